"""ASGI entry point: the live stream, in a process of its own. Everything else is WSGI (recovery_site/wsgi.py).

`granian --interface asgi --workers 1 --no-ws --workers-kill-timeout 5 --port 8001 recovery_site.asgi:application`
"""

import os

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "recovery_site.settings")
django.setup()

from webhooks.stream.application import StreamApplication  # noqa: E402  # its models need Django to be set up

application = StreamApplication()
