"""A payment's life as four other gateways tell it: failed, tried again and paid, refunded in part; any order, told
twice, one ledger."""

import copy
import json
from datetime import UTC, datetime
from itertools import count
from random import Random
from typing import Any

import pytest
from django.db.models.functions import Now
from django.test import Client

from accounts.models import Merchant
from tests.contract.dialect_fixtures import FIXTURES
from tests.support.signing import SECRETS, delivery
from tests.webhooks.door import faults, ledger
from webhooks.models import InboxEvent, WebhookEndpoint
from webhooks.services import endpoint_create, inbox_drain

pytestmark = pytest.mark.django_db
NOW = datetime(2026, 1, 20, tzinfo=UTC)
ORDERS = 6
Told = dict[str, Any] | bytes
_serial = count(1)


def hyperswitch() -> list[Told]:
    failed: dict[str, Any] = json.loads((FIXTURES / "hyperswitch/payment_failed.json").read_bytes())
    paid = copy.deepcopy(failed)
    paid |= {"event_id": "evt_northwind_2", "event_type": "payment_succeeded", "timestamp": "2026-01-04T09:00:05.000Z"}
    thing = paid["content"]["object"]
    thing |= {"status": "succeeded", "amount_received": 4900, "updated": "2026-01-04T09:00:04.000Z", "attempt_count": 3}
    thing |= {"error_code": None, "error_message": None, "issuer_error_code": None, "unified_code": None}
    thing |= {"error_details": None, "network_details": None, "connector_transaction_id": "pi_northwind_3"}
    charged = {"attempt_id": "pay_northwind_3", "status": "charged", "amount": 4900, "connector": "stripe"}
    thing["attempts"].insert(0, {**charged, "created_at": "2026-01-04T09:00:03.000Z"})
    refund = {
        "merchant_id": "merchant_1",
        "event_id": "evt_northwind_3",
        "event_type": "refund_succeeded",
        "timestamp": "2026-01-06T09:00:05.000Z",
        "content": {
            "type": "refund_details",
            "object": {
                "refund_id": "ref_northwind",
                "payment_id": "pay_northwind",
                "amount": 900,
                "currency": "EUR",
                "status": "succeeded",
                "reason": "returned",
                "connector": "stripe",
                "created_at": "2026-01-06T09:00:00.000Z",
                "updated_at": "2026-01-06T09:00:04.000Z",
            },
        },
    }
    return [failed, paid, refund]


def adyen() -> list[Told]:
    batch: dict[str, Any] = json.loads((FIXTURES / "adyen/batch.json").read_bytes())
    failed, refund, _chargeback = (entry["NotificationRequestItem"] for entry in batch["notificationItems"])
    paid = copy.deepcopy(failed)
    paid |= {"success": "true", "pspReference": "PSPNORTHWIND2", "eventDate": "2026-01-04T10:00:00+01:00", "reason": ""}
    for name in ("refusalReasonRaw", "merchantAdviceCode", "retry.rescueScheduled"):
        paid["additionalData"].pop(name)
    refund |= {"originalReference": "PSPNORTHWIND2", "merchantReference": "order:204"}
    refund["eventDate"] = "2026-01-06T10:00:05+01:00"
    return [
        {"live": "false", "notificationItems": [{"NotificationRequestItem": one}]} for one in (failed, paid, refund)
    ]


def paddle() -> list[Told]:
    failed: dict[str, Any] = json.loads((FIXTURES / "paddle/transaction.payment_failed.json").read_bytes())
    paid = copy.deepcopy(failed)
    paid |= {
        "event_id": "evt_northwind_2",
        "event_type": "transaction.completed",
        "occurred_at": "2026-01-04T09:00:01Z",
    }
    paid["data"] |= {"status": "completed", "updated_at": "2026-01-04T09:00:01Z"}
    paid["data"]["details"]["totals"]["balance"] = "0"
    first = paid["data"]["payments"][0]
    captured = {"payment_attempt_id": "8a1f-3", "status": "captured", "error_code": None}
    again = {**first, **captured, "created_at": "2026-01-04T09:00:00Z", "captured_at": "2026-01-04T09:00:01Z"}
    paid["data"]["payments"].insert(0, again)
    refund = {
        "event_id": "evt_northwind_3",
        "event_type": "adjustment.updated",
        "occurred_at": "2026-01-06T09:00:01Z",
        "data": {
            "id": "adj_northwind",
            "action": "refund",
            "status": "approved",
            "transaction_id": "txn_northwind",
            "customer_id": "ctm_northwind",
            "currency_code": "EUR",
            "totals": {"total": "900", "currency_code": "EUR"},
            "created_at": "2026-01-06T09:00:00Z",
            "updated_at": "2026-01-06T09:00:01Z",
        },
    }
    return [failed, paid, refund]


def braintree() -> list[Told]:
    failed = (FIXTURES / "braintree/subscription_charged_unsuccessfully.xml").read_bytes()
    paid = failed.replace(b"subscription_charged_unsuccessfully", b"subscription_charged_successfully")
    for old, new in (
        (b"2026-01-01T09:00:0", b"2026-01-04T09:00:0"),
        (b"<status>Past Due</status>", b"<status>Active</status>"),
        (b"<balance>49.00</balance>", b"<balance>0.00</balance>"),
        (b"bt_northwind_2", b"bt_northwind_3"),
        (b"processor_declined", b"settled"),
        (b"<processor-response-code>2001<", b"<processor-response-code>1000<"),
        (b"Insufficient Funds", b"Approved"),
    ):
        assert old in paid
        paid = paid.replace(old, new)
    return [failed, paid]


STORIES = {"hyperswitch": hyperswitch, "adyen": adyen, "paddle": paddle, "braintree": braintree}
# What was paid and given back in the end.
ENDS = {"hyperswitch": (4900, 900), "adyen": (4900, 900), "paddle": (4900, 900), "braintree": (4900, 0)}


def endpoint_of(provider: str) -> WebhookEndpoint:
    merchant = Merchant.objects.create(name=f"{provider} {next(_serial)}")
    return endpoint_create(merchant=merchant, provider=provider, secret=SECRETS[provider])


def post(endpoint: WebhookEndpoint, told: Told) -> None:
    sent = delivery(endpoint.provider, told)
    path = f"/webhooks/{endpoint.provider}/{endpoint.uuid}/"
    answer = Client().post(path, data=sent.body, content_type=sent.content_type, headers=dict(sent.headers))
    assert answer.status_code == 200, answer.content


def finish(endpoint: WebhookEndpoint) -> list[Any]:
    """Drain as if the time of what waits had come; the ledger, without the code that a recovered case keeps and the
    transactions and cases of failures that were told after the success."""
    for _ in range(5):
        InboxEvent.objects.filter(endpoint=endpoint).update(due_at=Now())
        assert inbox_drain(now=NOW).failed == 0
    assert not endpoint.events.filter(status="RECEIVED").exists()
    assert faults(endpoint.merchant) == []
    found = ledger(endpoint.merchant)
    for one in found:
        one["transactions"] = [row for row in one["transactions"] if row[1] != "FAILED"]
        one.pop("cases")
        if one["case"] and one["case"][0] == "RECOVERED":
            one["case"] = one["case"][:1]
    return found


@pytest.mark.parametrize("provider", STORIES)
def test_every_order_and_every_repetition_end_in_the_same_ledger(provider: str) -> None:
    events = STORIES[provider]()
    straight = endpoint_of(provider)
    for told in events:
        post(straight, told)
        inbox_drain(now=NOW)
    expected = finish(straight)
    assert [(one["paid"], one["refunded"]) for one in expected] == [ENDS[provider]]
    for seed in range(ORDERS):
        random, endpoint = Random(seed), endpoint_of(provider)
        mixed = [*events, random.choice(events)]
        random.shuffle(mixed)
        for told in mixed:
            post(endpoint, told)
            if random.random() < 0.5:
                inbox_drain(now=NOW)
        assert finish(endpoint) == expected, f"seed {seed}"
