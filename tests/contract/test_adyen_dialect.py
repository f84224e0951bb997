"""Adyen's webhooks: batches item by item, what the signature leaves out, and what cannot be smuggled past it."""

import copy
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from providers.adyen.dialect import AdyenDialect
from providers.base import (
    CardFacts,
    CustomerFacts,
    DeclineFacts,
    DisputeStatus,
    EventKind,
    Ignored,
    InboundItem,
    InboundRequest,
    InvoiceFacts,
    MethodFacts,
    PaymentEvent,
    PaymentFacts,
    Proof,
    RefundStatus,
    SignatureInvalid,
)
from recovery_site.common.errors import InvalidInput
from tests.contract.dialect_fixtures import items_of, load
from tests.support.signing import adyen_signed

KEY = "A1B2" * 16
LOGIN = {"authorization": "Basic dXNlcjpwYXNz"}  # user:pass
BATCH = load("adyen", "batch")
DIALECT = AdyenDialect()


def verify(body: Any, secret: str, headers: dict[str, str] | None = None) -> Proof:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return DIALECT.verify(InboundRequest(raw, headers or {}), [secret], now=0.0, tolerance_seconds=300)


def read(item: dict[str, Any], proof: Proof = Proof.SIGNED) -> PaymentEvent | Ignored:
    body = {"live": "false", "notificationItems": [{"NotificationRequestItem": item}]}
    (split,) = items_of("adyen", body)
    meaning = DIALECT.parse(InboundItem(split.event_id, split.event_type, split.order_key, split.payload, proof))
    assert isinstance(meaning, PaymentEvent | Ignored)
    return meaning


def first(**changes: Any) -> dict[str, Any]:
    item: dict[str, Any] = copy.deepcopy(BATCH["notificationItems"][0]["NotificationRequestItem"])
    return item | changes


def test_a_batch_is_taken_item_by_item() -> None:
    items = items_of("adyen", BATCH)
    assert [(item.event_id, item.order_key) for item in items] == [
        ("AUTHORISATION:PSPNORTHWIND1:false", "PSPNORTHWIND1"),
        ("REFUND:PSPNORTHWIND9:true", "PSPNORTHWIND0"),
        ("CHARGEBACK:PSPNORTHWIND7:true", "PSPNORTHWIND0"),
    ]


def test_a_refused_authorisation_fills_every_field() -> None:
    at = datetime(2026, 1, 1, 9, tzinfo=UTC)
    event = read(first())
    assert isinstance(event, PaymentEvent)
    assert (event.kind, event.occurred_at) == (EventKind.PAYMENT_FAILED, at)
    assert event.customer == CustomerFacts(id="northwind", email="lena@example.com")
    card = CardFacts(
        network="mcdebit", last4="4444", exp_month=8, exp_year=2027, funding="debit", country="DE", bin="520424"
    )
    assert event.payment == PaymentFacts(
        charge_id="PSPNORTHWIND1",
        amount_minor=4900,
        currency="EUR",
        invoice_id="order:204",
        reference="order:204",
        method=MethodFacts(token="M5NORTHWIND", card=card),
        decline=DeclineFacts(
            raw_code="Not enough balance", network_code="51", advice_code="24", message="51 : Insufficient funds"
        ),
        occurred_at=at,
    )
    assert event.invoice == InvoiceFacts(
        id="order:204",
        amount_minor=4900,
        currency="EUR",
        attempt_count=2,
        next_retry_at=at + timedelta(days=30),
        issued_at=at,
    )


def test_without_a_password_nobody_vouches_for_the_reason() -> None:
    told = read(first(), Proof.PARTLY)
    assert isinstance(told, PaymentEvent)
    assert told.payment
    assert told.payment.decline
    assert (told.payment.decline.raw_code, told.payment.decline.trusted) == ("Not enough balance", False)


@pytest.mark.parametrize(
    ("code", "success", "kind"),
    [
        ("AUTHORISATION", "true", EventKind.PAYMENT_SUCCEEDED),
        ("PENDING", "true", EventKind.PAYMENT_PENDING),
        ("CAPTURE", "true", EventKind.PAYMENT_SUCCEEDED),
        ("CAPTURE_FAILED", "true", EventKind.PAYMENT_FAILED),
        ("EXPIRE", "true", EventKind.PAYMENT_FAILED),
        ("REFUND", "true", EventKind.REFUND_UPDATED),
        ("CANCELLATION", "true", EventKind.REFUND_UPDATED),
        ("REFUND_FAILED", "true", EventKind.REFUND_UPDATED),
        ("AUTORESCUE", "true", EventKind.INVOICE_PAID),
        ("AUTORESCUE", "false", EventKind.INVOICE_UPDATED),
        ("CANCEL_AUTORESCUE", "true", EventKind.INVOICE_UPDATED),
        ("CHARGEBACK", "true", EventKind.DISPUTE_UPDATED),
        ("RECURRING_CONTRACT", "true", EventKind.METHOD_UPDATED),
    ],
)
def test_what_each_event_code_becomes(code: str, success: str, kind: EventKind) -> None:
    event = read(first(eventCode=code, success=success, originalReference="PSPNORTHWIND0"))
    assert isinstance(event, PaymentEvent)
    assert event.kind is kind
    if event.refunds:
        assert event.refunds[0].charge_id == "PSPNORTHWIND0"
        assert event.refunds[0].status is (RefundStatus.FAILED if code == "REFUND_FAILED" else RefundStatus.SUCCEEDED)
    if code in ("CAPTURE_FAILED", "EXPIRE"):
        assert event.payment
        assert event.payment.undone


def test_a_rescue_that_was_called_off_says_nothing_about_the_amount() -> None:
    event = read(first(eventCode="CANCEL_AUTORESCUE", success="true", amount={"currency": "EUR", "value": 0}))
    assert isinstance(event, PaymentEvent)
    assert event.invoice
    assert (event.invoice.amount_told, event.invoice.next_retry_at) == (False, None)


def test_a_returned_debit_is_final_and_how_a_dispute_ended_needs_a_voucher() -> None:
    returned = read(first(eventCode="CHARGEBACK", success="true", paymentMethod="sepadirectdebit", reason="AM04:x"))
    assert isinstance(returned, PaymentEvent)
    assert returned.dispute
    assert (returned.dispute.status, returned.dispute.is_return) == (DisputeStatus.LOST, True)
    ended = first(eventCode="DISPUTE_DEFENSE_PERIOD_ENDED", success="true", additionalData={"disputeStatus": "Lost"})
    believed = read(ended)
    assert isinstance(believed, PaymentEvent)
    assert isinstance(read(ended, Proof.PARTLY), Ignored)


def test_a_key_alone_vouches_for_a_part_and_a_password_for_all() -> None:
    signed = adyen_signed(BATCH, KEY)
    assert verify(signed, KEY) is Proof.PARTLY
    assert verify(signed, f"user:pass:{KEY}", LOGIN) is Proof.SIGNED
    assert verify(signed, json.dumps({"hmac_key": KEY, "username": "user", "password": "pass"}), LOGIN) is Proof.SIGNED
    with pytest.raises(SignatureInvalid):
        verify(signed, f"user:pass:{KEY}")
    with pytest.raises(SignatureInvalid):
        verify(signed, f"user:other:{KEY}", LOGIN)


def forged(number: int, **changes: Any) -> dict[str, Any]:
    body = adyen_signed(BATCH, KEY)
    body["notificationItems"][number]["NotificationRequestItem"] |= changes
    return body


@pytest.mark.parametrize(
    "body",
    [
        forged(0, pspReference="FORGED"),
        forged(2, pspReference="FORGED"),
        forged(1, amount={"currency": "EUR", "value": 1}),
        forged(0, additionalData={}),
        forged(0, additionalData=None),
        forged(0, additionalData={"hmacSignature": None}),
        forged(0, additionalData={"hmacSignature": "é"}),
        forged(0, amount=[1]),
        forged(0, merchantAccountCode="NorthwindECOM:order", merchantReference="204"),
        {**forged(0), "notificationItems": []},
        {**forged(0), "notificationItems": [{"NotificationRequestItem": {"pspReference": "X", **forged(0)}}]},
    ],
)
def test_one_forged_item_spoils_the_batch(body: dict[str, Any]) -> None:
    with pytest.raises(SignatureInvalid):
        verify(body, KEY)


@pytest.mark.parametrize("secret", ["", "not hex", "ABC", f":pass:{KEY}", "{}", '{"username": "u"}'])
def test_a_secret_without_a_key_is_refused(secret: str) -> None:
    with pytest.raises(InvalidInput):
        DIALECT.secret_check(secret)
