"""dj-stripe's endpoint as its guide sets it up, for the ingest benchmark; run by the Python of `make djstripe`.

    python -m benchmarks._djstripe_site

makes the tables and an endpoint, and prints its path. `application` is the site and `stripe_api` what it asks Stripe:
an API that knows every object and answers at once. DJSTRIPE_DATABASE is a JSON object with the database's settings,
DJSTRIPE_API that API's address, DJSTRIPE_MODE full, or store: a callback that leaves the event for later.
"""

# Django has to be set up before the models can be imported.
# ruff: noqa: E402
import json
import os
from collections.abc import Callable, Iterable
from typing import Any

import django
from django.conf import settings

from benchmarks._webhooks import CREATED, SECRET


def leave(trigger: Any, **known: Any) -> None:
    """The event callback of store-only mode: the trigger's row is what is stored."""


settings.configure(
    ALLOWED_HOSTS=["*"],
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "CONN_MAX_AGE": None,
            **json.loads(os.environ["DJSTRIPE_DATABASE"]),
        }
    },
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    DJSTRIPE_FOREIGN_KEY_TO_FIELD="id",
    DJSTRIPE_WEBHOOK_EVENT_CALLBACK=leave if os.environ["DJSTRIPE_MODE"] == "store" else None,
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "djstripe"],
    LOGGING_CONFIG=None,
    MIDDLEWARE=["django.middleware.common.CommonMiddleware"],
    ROOT_URLCONF="djstripe.urls",
    SECRET_KEY="of a benchmark",
    STRIPE_API_HOST=os.environ["DJSTRIPE_API"],
    STRIPE_LIVE_MODE=True,
    STRIPE_LIVE_SECRET_KEY="sk_live_" + "0" * 24,
    USE_TZ=True,
)
django.setup()

from django.core.handlers.wsgi import WSGIHandler
from django.core.management import call_command
from djstripe.models import WebhookEndpoint

application = WSGIHandler()
_KINDS = {
    "account": "account",
    "charges": "charge",
    "customers": "customer",
    "invoices": "invoice",
    "payment_intents": "payment_intent",
}


def stripe_api(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
    """Any object by its id, with what dj-stripe's models do not do without."""
    _, _, kinds, *rest = environ["PATH_INFO"].split("/")
    key = rest[0] if rest else "acct_1"
    found = {
        "id": key,
        "object": _KINDS[kinds],
        "created": CREATED,
        "livemode": True,
        "metadata": {},
        "customer": "cus_" + key.partition("_")[2],
        "currency": "eur",
        "amount": 4900,
    }
    body = json.dumps(found).encode()
    start("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]


def main() -> None:
    call_command("migrate", verbosity=0)
    made = WebhookEndpoint.objects.create(
        id="we_benchmark",
        livemode=True,
        url="https://bench.example",
        secret=SECRET,
        enabled_events=["*"],
        status="enabled",
    )
    print(f"/webhook/{made.djstripe_uuid}/")


if __name__ == "__main__":
    main()
