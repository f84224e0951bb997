"""A payment's life as four gateways and two billing systems tell it: failed, tried again and paid, refunded in part;
any order, told twice, one ledger."""

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
from invoices.services.parties import connection_create
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
    paid = replaced(
        failed,
        (b"subscription_charged_unsuccessfully", b"subscription_charged_successfully"),
        (b"2026-01-01T09:00:0", b"2026-01-04T09:00:0"),
        (b"<status>Past Due</status>", b"<status>Active</status>"),
        (b"<balance>49.00</balance>", b"<balance>0.00</balance>"),
        (b"bt_northwind_2", b"bt_northwind_3"),
        (b"processor_declined", b"settled"),
        (b"<processor-response-code>2001<", b"<processor-response-code>1000<"),
        (b"Insufficient Funds", b"Approved"),
    )
    return [failed, paid]


def chargebee() -> list[Told]:
    failed: dict[str, Any] = json.loads((FIXTURES / "chargebee/payment_failed.json").read_bytes())
    paid = copy.deepcopy(failed)
    paid |= {"id": "ev_paid", "event_type": "payment_succeeded", "occurred_at": 1767517203}
    again = {"id": "txn_northwind_2", "status": "success", "date": 1767517200, "id_at_gateway": "ch_northwind_2"}
    transaction, invoice = paid["content"]["transaction"], paid["content"]["invoice"]
    transaction |= {**again, "resource_version": 1767517202000, "reference_number": None}
    transaction |= {"error_code": None, "error_text": None, "error_detail": None}
    invoice |= {"status": "paid", "amount_paid": 4900, "amount_due": 0, "resource_version": 1767517203123}
    invoice |= {"dunning_status": "success", "next_retry_at": None}
    invoice["linked_payments"].append(
        {"txn_id": "txn_northwind_2", "txn_status": "success", "txn_date": 1767517200, "txn_amount": 4900}
    )
    updated = {**paid, "id": "ev_updated", "event_type": "invoice_updated"}
    updated["content"] = {name: paid["content"][name] for name in ("invoice", "customer")}
    dunning = {**copy.deepcopy(failed), "id": "ev_dunning", "event_type": "dunning_updated"}
    dunning["content"].pop("transaction")
    refund: dict[str, Any] = json.loads((FIXTURES / "chargebee/payment_refunded.json").read_bytes())
    refund |= {"occurred_at": 1767690000}
    refund["content"]["transaction"] |= {"refunded_txn_id": "txn_northwind_2", "date": 1767689990}
    return [failed, dunning, paid, updated, refund]


def recurly() -> list[Told]:
    failed = (FIXTURES / "recurly/failed_payment_notification.xml").read_bytes()
    dunning = (FIXTURES / "recurly/new_dunning_event_notification.xml").read_bytes()
    dunning = replaced(dunning, (b">4400<", b">4900<"), (b"2026-01-03T09:00:00Z", b"2026-01-01T09:00:02Z"))
    paid = replaced(
        failed,
        (b"failed_payment_notification", b"successful_payment_notification"),
        (b"0123456789abcdef0123456789abcdef", b"f123456789abcdef0123456789abcdef"),
        (b"2026-01-01T09:00:00Z", b"2026-01-04T09:00:00Z"),
        (b">declined<", b">success<"),
    )
    closed = replaced(
        dunning,
        (b"new_dunning_event_notification", b"paid_charge_invoice_notification"),
        (b">past_due<", b">paid<"),
        (b'<balance_in_cents type="integer">4900<', b'<balance_in_cents type="integer">0<'),
        (b"2026-01-01T09:00:02Z", b"2026-01-04T09:00:02Z"),
    )
    refund = replaced(
        paid,
        (b"successful_payment_notification", b"successful_refund_notification"),
        (b"f123456789abcdef0123456789abcdef", b"e123456789abcdef0123456789abcdef"),
        (b">purchase<", b">credit<"),
        (b">4900<", b">900<"),
        (b"2026-01-04T09:00:00Z", b"2026-01-06T09:00:00Z"),
    )
    return [failed, dunning, paid, closed, refund]


def replaced(body: bytes, *changes: tuple[bytes, bytes]) -> bytes:
    for old, new in changes:
        assert old in body, old
        body = body.replace(old, new)
    return body


STORIES = {
    "hyperswitch": hyperswitch,
    "adyen": adyen,
    "paddle": paddle,
    "braintree": braintree,
    "chargebee": chargebee,
    "recurly": recurly,
}
# What was paid and given back in the end.
ENDS = {name: (4900, 0 if name == "braintree" else 900) for name in STORIES}
# Recurly's XML names no currency.
CONFIGS = {"recurly": {"mode": "observe", "currency": "EUR"}}


def endpoint_of(provider: str) -> WebhookEndpoint:
    merchant = Merchant.objects.create(name=f"{provider} {next(_serial)}")
    config = CONFIGS.get(provider, {"mode": "observe"})
    connection = connection_create(merchant=merchant, provider=provider, config=config)
    return endpoint_create(merchant=merchant, provider=provider, secret=SECRETS[provider], connection=connection)


def post(endpoint: WebhookEndpoint, told: Told) -> None:
    sent = delivery(endpoint.provider, told)
    path = f"/webhooks/{endpoint.provider}/{endpoint.uuid}/"
    answer = Client().post(path, data=sent.body, content_type=sent.content_type, headers=dict(sent.headers))
    assert answer.status_code == 200, answer.content


def finish(endpoint: WebhookEndpoint) -> list[Any]:
    """Drain as if the time of what waits had come; the ledger then."""
    for _ in range(5):
        InboxEvent.objects.filter(endpoint=endpoint).update(due_at=Now())
        assert inbox_drain(now=NOW).failed == 0
    assert not endpoint.events.filter(status="RECEIVED").exists()
    assert faults(endpoint.merchant) == []
    return ledger(endpoint.merchant)


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
