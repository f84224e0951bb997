"""WSGI entry point, for servers that speak it; the shipped set-up serves recovery_site/web.py, which holds it."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "recovery_site.settings")

application = get_wsgi_application()
