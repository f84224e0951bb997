"""ASGI entry point, for servers that speak it; the shipped set-up serves everything through WSGI."""

import os

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "recovery_site.settings")

application = get_asgi_application()
