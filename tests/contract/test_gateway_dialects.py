"""Hyperswitch, Braintree and Paddle: every field that is sent, and how events share their keys."""

from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

import braintree as braintree_sdk
import pytest

from providers import registry
from providers.base import (
    CardFacts,
    CustomerFacts,
    DeclineFacts,
    DisputeStatus,
    EventKind,
    InboundRequest,
    MethodFacts,
    PaymentEvent,
    PaymentFacts,
    RefundStatus,
    Thin,
)
from tests.contract.dialect_fixtures import FIXTURES, Body, changed, load, told
from tests.support.signing import SECRETS, delivery

HYPERSWITCH = load("hyperswitch", "payment_failed")
PADDLE = load("paddle", "transaction.payment_failed")
BRAINTREE = (FIXTURES / "braintree" / "subscription_charged_unsuccessfully.xml").read_bytes()


def braintree(*changes: tuple[str, str]) -> PaymentEvent:
    text = BRAINTREE.decode()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return told("braintree", delivery("braintree", text.encode()).body)


def test_hyperswitch_tells_the_newest_try_and_those_before_it() -> None:
    dialect = registry.dialect("hyperswitch")
    items = dialect.split(InboundRequest(delivery("hyperswitch", HYPERSWITCH).body, {}))
    assert [(item.event_id, item.order_key) for item in items] == [
        ("evt_northwind_1:pay_northwind_1", "pay_northwind"),
        ("evt_northwind_1", "pay_northwind"),
    ]
    earlier, newest = (dialect.parse(item) for item in items)
    assert isinstance(earlier, PaymentEvent)
    assert earlier.payment
    assert earlier.payment.decline == DeclineFacts(raw_code="Refused", message="Refused", gateway="adyen")
    assert isinstance(newest, PaymentEvent)
    assert newest.occurred_at == datetime(2026, 1, 1, 9, 0, 4, tzinfo=UTC)
    assert newest.customer == CustomerFacts(id="northwind", email="lena@example.com", name="Lena Weber")
    card = CardFacts(
        network="mastercard", last4="4444", exp_month=8, exp_year=2027, funding="debit", country="DE", bin="520424"
    )
    assert newest.payment == PaymentFacts(
        charge_id="pay_northwind_2",
        payment_id="pay_northwind",
        amount_minor=4900,
        currency="EUR",
        invoice_id="204",
        reference="att_northwind",
        method=MethodFacts(token="pm_northwind", card=card),
        decline=DeclineFacts(
            raw_code="insufficient_funds",
            network_code="51",
            advice_code="24",
            provider_advice="retry_after_24_hours",
            message="Your card has insufficient funds.",
            gateway="stripe",
        ),
        occurred_at=datetime(2026, 1, 1, 9, 0, 3, tzinfo=UTC),
        gateway_reference="pi_northwind_2",
    )


def test_hyperswitch_disputes_name_amounts_as_text() -> None:
    dispute: Body = {
        "dispute_id": "dp_1",
        "payment_id": "pay_northwind",
        "attempt_id": "pay_northwind_2",
        "amount": "4900",
        "currency": "EUR",
    }
    body = changed(HYPERSWITCH, event_type="dispute_lost", content={"type": "dispute_details", "object": dispute})
    event = told("hyperswitch", body)
    assert event.dispute
    assert (event.dispute.amount_minor, event.dispute.status, event.dispute.charge_id) == (
        4900,
        DisputeStatus.LOST,
        "pay_northwind_2",
    )


def test_braintree_tells_decimal_amounts_and_a_cycle_instead_of_an_invoice() -> None:
    event = braintree()
    assert (event.kind, event.customer) == (
        EventKind.PAYMENT_FAILED,
        CustomerFacts(id="4711", email="lena@example.com", name="Lena Weber", country="DE"),
    )
    assert event.payment
    assert (event.payment.charge_id, event.payment.amount_minor, event.payment.invoice_id) == (
        "bt_northwind_2",
        4900,
        "northwind_team:7",
    )
    assert event.payment.decline == DeclineFacts(
        raw_code="2001", network_code="51", advice_code="24", message="Insufficient Funds"
    )
    assert event.payment.method
    assert event.payment.method.card == CardFacts(
        fingerprint="fp_northwind",
        network="mastercard",
        last4="4444",
        exp_month=8,
        exp_year=2027,
        funding="debit",
        country="DE",
        bin="520424",
    )
    assert event.invoice
    assert (event.invoice.attempt_count, event.invoice.plan, event.invoice.status) == (2, "team", "past_due")


def test_braintree_says_by_the_status_what_became_of_the_money() -> None:
    paid = braintree((">processor_declined<", ">submitted_for_settlement<"))
    assert paid.payment
    assert (paid.kind, paid.payment.captured_minor) == (EventKind.PAYMENT_SUCCEEDED, 4900)
    late = braintree((">processor_declined<", ">settlement_declined<"))
    assert late.payment
    assert (late.kind, late.payment.undone) == (EventKind.PAYMENT_FAILED, True)


def test_paddle_tells_amounts_as_text_and_the_newest_payment_first() -> None:
    event = told("paddle", PADDLE)
    card = CardFacts(network="visa", last4="4242", exp_month=8, exp_year=2027)
    assert event.payment == PaymentFacts(
        charge_id="8a1f-2",
        payment_id="txn_northwind",
        amount_minor=4900,
        currency="EUR",
        invoice_id="inv_northwind",
        method=MethodFacts(token="paymtd_northwind", card=card),
        decline=DeclineFacts(raw_code="not_enough_balance"),
        occurred_at=datetime(2026, 1, 1, 9, tzinfo=UTC),
    )
    assert event.invoice
    assert (event.invoice.id, event.invoice.number, event.invoice.amount_minor, event.invoice.attempt_count) == (
        "inv_northwind",
        "204-1",
        4900,
        2,
    )


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        ("past_due", EventKind.PAYMENT_FAILED),
        ("completed", EventKind.INVOICE_PAID),
        ("canceled", EventKind.INVOICE_VOIDED),
    ],
)
def test_paddle_says_by_the_status_what_became_of_a_transaction(status: str, kind: EventKind) -> None:
    assert told("paddle", changed(PADDLE, data__status=status)).kind is kind


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("approved", RefundStatus.SUCCEEDED),
        ("pending_approval", RefundStatus.PENDING),
        ("rejected", RefundStatus.FAILED),
    ],
)
def test_paddle_refunds_are_adjustments(status: str, expected: RefundStatus) -> None:
    adjustment = {
        "id": "adj_1",
        "action": "refund",
        "status": status,
        "transaction_id": "txn_northwind",
        "currency_code": "EUR",
        "totals": {"total": "900"},
    }
    (refund,) = told("paddle", changed(PADDLE, event_type="adjustment.updated", data=adjustment)).refunds
    assert (refund.status, refund.amount_minor, refund.payment_id) == (expected, 900, "txn_northwind")


def test_every_kind_that_braintrees_sdk_makes_is_understood_or_ignored_for_a_reason() -> None:
    """Its samples leave out what Braintree may leave out; a charge without its currency is read through the API."""
    sdk: Any = braintree_sdk
    public, _, private = SECRETS["braintree"].partition(":")
    gateway = sdk.BraintreeGateway(
        sdk.Configuration(environment=sdk.Environment.Sandbox, merchant_id="m", public_key=public, private_key=private)
    )
    dialect, thin_ones = registry.dialect("braintree"), set()
    for kind in (value for name, value in vars(sdk.WebhookNotification.Kind).items() if not name.startswith("_")):
        request = InboundRequest(urlencode(gateway.webhook_testing.sample_notification(kind, "id_1")).encode(), {})
        dialect.verify(request, [SECRETS["braintree"]], now=0, tolerance_seconds=300)
        (item,) = dialect.split(request)
        meaning = dialect.parse(item)
        assert isinstance(meaning, PaymentEvent | Thin) or meaning.reason, kind
        if isinstance(meaning, Thin):
            thin_ones.add(kind)
    assert thin_ones == {"subscription_charged_successfully", "subscription_charged_unsuccessfully", "refund_failed"}
