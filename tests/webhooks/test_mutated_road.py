"""Bodies with something wrong in them on the whole road: endpoint, inbox, handler, ledger.

Each is accepted, ignored or refused. None ends in a trace, none that is refused has written anything, and whatever was
written keeps every promise of the ledger.
"""

import random
from typing import Any

import pytest
from django.test import Client

from accounts.models import Merchant
from invoices.models import Event
from invoices.services.parties import connection_create
from tests.support.mutating import PROVIDERS, Body, bases, mutant
from tests.support.signing import SECRETS, delivery
from tests.webhooks.door import faults
from tests.webhooks.renewal import moment
from webhooks.models import InboxEvent, WebhookEndpoint
from webhooks.services import endpoint_create, inbox_drain

pytestmark = pytest.mark.django_db
# Where nothing needs to be asked of an API, failures are planned as they are for a merchant who charges.
CONFIGS: dict[str, dict[str, Any]] = {
    "stripe": {"api_key": "sk_test_1"},
    "hyperswitch": {"api_key": "snd_1"},
    "adyen": {"api_key": "key_1", "merchant_account": "NorthwindECOM", "environment": "test"},
    "braintree": {
        "merchant_id": "m",
        "public_key": "p",
        "private_key": "k",
        "environment": "sandbox",
        "merchant_accounts": "EUR=a",
    },
    "recurly": {"mode": "observe", "currency": "EUR"},
}
NOW = moment(40 * 86_400)
CODES = {"body_malformed", "signature_invalid", "body_too_large"}
# How many go by between two looks at the whole ledger.
LOOK_AFTER = 100


class Road:
    """One merchant's endpoint, and what comes in by it."""

    def __init__(self, provider: str) -> None:
        self.merchant = Merchant.objects.create(name=f"Mutants of {provider}")
        named = {}
        if provider in CONFIGS:
            config = {"mode": "charge", **CONFIGS[provider]}
            named = {"connection": connection_create(merchant=self.merchant, provider=provider, config=config)}
        self.endpoint: WebhookEndpoint = endpoint_create(
            merchant=self.merchant, provider=provider, secret=SECRETS[provider], **named
        )
        self.client = Client()

    def tell(self, body: Body) -> set[str]:
        """Send it and work it off; how its items ended, or why the door refused it."""
        try:
            sent = delivery(self.endpoint.provider, body)
        except UnicodeEncodeError:
            return set()  # half a character cannot be sent at all
        path = f"/webhooks/{self.endpoint.provider}/{self.endpoint.uuid}/"
        answer = self.client.post(path, data=sent.body, content_type=sent.content_type, headers=dict(sent.headers))
        if answer.status_code != 200:
            assert (answer.status_code, answer.json()["error"] in CODES) in ((400, True), (413, True)), answer.content
            return {answer.json()["error"]}
        inbox_drain(now=NOW)
        items = list(self.endpoint.events.all())
        for item in items:
            assert item.attempts == 0, f"{item.event_type} broke: {item.reason}"
            assert item.status == "PROCESSED" or item.reason, f"{item.event_type} is {item.status} and says not why"
            if item.status in ("FAILED", "RECEIVED"):
                assert not Event.objects.filter(cause=f"inbox:{item.pk}").exists(), "refused, and yet written"
        # The next one may have the same id.
        self.endpoint.events.all().delete()
        return {item.status for item in items}


@pytest.mark.parametrize("cases", [25, pytest.param(3_000, marks=[pytest.mark.long, pytest.mark.timeout(3600)])])
@pytest.mark.parametrize("provider", PROVIDERS)
def test_what_is_wrong_ends_accepted_ignored_or_refused_and_never_half_written(provider: str, cases: int) -> None:
    chance, found, road = random.Random(f"road {provider}"), bases(provider), Road(provider)
    ends = road.tell(found[0])
    for number in range(cases):
        # Among others that are right: mutants of what the ledger knows reach further.
        body = chance.choice(found) if chance.random() < 0.3 else mutant(chance, provider, found)
        ends |= road.tell(body)
        if number % LOOK_AFTER == LOOK_AFTER - 1:
            assert faults(road.merchant) == [], body
    assert "PROCESSED" in ends
    assert faults(road.merchant) == []
    assert not InboxEvent.objects.filter(endpoint=road.endpoint).exists()
