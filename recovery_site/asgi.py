"""ASGI entry point: only the live stream is served from here, everything else through WSGI."""

import os

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "recovery_site.settings")

application = get_asgi_application()
