"""The floor of the ingest figures: a Django view behind no middleware that checks the signature and inserts a row."""

# Django has to be set up before the site's addresses can be imported.
# ruff: noqa: E402
import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "recovery_site.settings")

import django
from django.conf import settings

settings.MIDDLEWARE = []
django.setup()

import json

import stripe
from django.core.handlers.wsgi import WSGIHandler
from django.db import connection
from django.http import HttpRequest, HttpResponse
from django.urls import path

from benchmarks._webhooks import SECRET

_INSERT = """
INSERT INTO webhooks_inboxevent (merchant_id, endpoint_id, provider_event_id, event_type, order_key, body, body_hash,
    received_at, proof, status, reason, attempts)
VALUES (%s, %s, %s, %s, '', %s, '', now(), 'signed', 'RECEIVED', '', 0)
ON CONFLICT (endpoint_id, provider_event_id) DO NOTHING
"""


def bare(request: HttpRequest, merchant: int, endpoint: int) -> HttpResponse:
    body = request.body
    stripe.WebhookSignature.verify_header(body, request.headers["Stripe-Signature"], SECRET, 300)
    event = json.loads(body)
    with connection.cursor() as cursor:
        cursor.execute(_INSERT, [merchant, endpoint, event["id"], event["type"], body.decode()])
    return HttpResponse(b"{}", content_type="application/json", headers={"Content-Length": "2"})


urlpatterns = [path("bare/<int:merchant>/<int:endpoint>/", bare)]
settings.ROOT_URLCONF = __name__
application = WSGIHandler()
