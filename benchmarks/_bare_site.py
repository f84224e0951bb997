"""The application with one more address: a view that reads the body and says 200, the floor of every ingest figure."""

# Django has to be set up before the site's addresses can be imported.
# ruff: noqa: E402
import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "recovery_site.settings")

import django

django.setup()

from django.conf import settings
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpRequest, HttpResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

from recovery_site.urls import urlpatterns as site


@csrf_exempt
def bare(request: HttpRequest) -> HttpResponse:
    request.read()
    return HttpResponse(b"{}", content_type="application/json")


urlpatterns = [path("bare/", bare), *site]
settings.ROOT_URLCONF = __name__
application = WSGIHandler()
