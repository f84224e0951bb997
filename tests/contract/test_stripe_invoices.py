"""The Stripe client and the invoices of Stripe Billing, through the real SDK and real sockets."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from providers.base import (
    Outcome,
    ProviderUnavailable,
    ProviderUncertain,
)
from tests.contract.stripe_wire import (
    CREATED,
    Answer,
    StripeWire,
    error,
    intent,
    page,
)

CREATED_AT = datetime.fromtimestamp(CREATED, UTC)
MISSING = Answer(404, error("invalid_request_error", code="resource_missing"))


@pytest.fixture
def wire() -> Iterator[StripeWire]:
    with StripeWire() as server:
        yield server


def invoice(**changes: object) -> dict[str, Any]:
    return {
        "id": "in_1",
        "object": "invoice",
        "amount_due": 4900,
        "amount_paid": 0,
        "amount_remaining": 4900,
        "attempt_count": 2,
        "auto_advance": True,
        "created": CREATED,
        "currency": "eur",
        "customer": "cus_1",
        "next_payment_attempt": CREATED + 86_400,
        "status": "open",
        **changes,
    }


def test_an_invoice_is_read_fresh_with_its_payment(wire: StripeWire) -> None:
    payment = {"is_default": True, "payment": {"type": "payment_intent", "payment_intent": "pi_1"}}
    wire.script("GET /v1/invoices/in_1", Answer(200, invoice(amount_paid=900, payments=page(payment))))
    found = wire.client(emulator=False).invoice_get("in_1")
    assert found is not None
    assert (found.id, found.amount_minor, found.paid_minor, found.status) == ("in_1", 4900, 900, "open")
    assert (found.payment_id, found.next_retry_at) == ("pi_1", CREATED_AT + timedelta(days=1))
    assert wire.seen[0].params == {"expand[0]": "payments"}


def test_an_unknown_invoice_is_none(wire: StripeWire) -> None:
    assert wire.client().invoice_get("in_404") is None


def test_stripes_own_collection_is_stopped(wire: StripeWire) -> None:
    stopped = invoice(auto_advance=False, next_payment_attempt=None)
    wire.script("POST /v1/invoices/in_1", Answer(200, stopped))
    answer = wire.client().stop_collection("in_1")
    assert answer == "auto_advance=false, status=open, next_payment_attempt=none"
    assert wire.seen[0].params == {"auto_advance": "false"}


def test_a_collection_that_did_not_stop_is_said(wire: StripeWire) -> None:
    wire.script("POST /v1/invoices/in_1", Answer(200, invoice()))
    with pytest.raises(ProviderUnavailable, match="still collects"):
        wire.client().stop_collection("in_1")


@pytest.mark.parametrize("payment_id", ["pi_1", "py_1"])
def test_the_invoice_of_a_payment(wire: StripeWire, payment_id: str) -> None:
    kind = "payment_intent" if payment_id == "pi_1" else "charge"
    wire.script(
        "GET /v1/invoice_payments",
        Answer(200, page({"id": "inpay_1", "invoice": "in_1"})),
        Answer(200, page()),
    )
    client = wire.client()
    assert client.invoice_of_payment(payment_id) == "in_1"
    assert client.invoice_of_payment(payment_id) == ""
    assert wire.seen[0].params == {"payment[type]": kind, f"payment[{kind}]": payment_id, "limit": "1"}


def test_an_older_stripe_has_the_invoice_on_the_payment(wire: StripeWire) -> None:
    wire.script("GET /v1/invoice_payments", MISSING)
    wire.script("GET /v1/payment_intents/pi_1", Answer(200, intent(invoice="in_1")), Answer(200, intent(invoice=None)))
    client = wire.client()
    assert client.invoice_of_payment("pi_1") == "in_1"
    assert client.invoice_of_payment("pi_1") == ""
    assert client.invoice_of_payment("ch_404") == ""


def test_stripe_collects_its_own_invoice(wire: StripeWire) -> None:
    made = intent(latest_charge="ch_1", metadata={})
    payment = {"is_default": True, "payment": {"type": "payment_intent", "payment_intent": made}}
    paid = invoice(status="paid", amount_paid=4900, amount_remaining=0, payments=page(payment))
    wire.script("POST /v1/invoices/in_1/pay", Answer(200, paid))
    result = wire.client(emulator=False).invoice_pay("in_1", "pm_1", "key-03")
    assert (result.outcome, result.provider_id, result.payment_id) == (Outcome.SUCCEEDED, "ch_1", "pi_1")
    assert (result.amount_minor, result.currency, result.token) == (4900, "EUR", "pm_1")
    assert wire.seen[0].headers["idempotency-key"] == "key-03"
    assert wire.seen[0].params == {
        "payment_method": "pm_1",
        "off_session": "true",
        "expand[0]": "payments.data.payment.payment_intent",
    }


def test_an_older_stripe_names_the_payment_on_the_invoice(wire: StripeWire) -> None:
    paid = invoice(
        status="paid",
        amount_paid=4900,
        amount_remaining=0,
        charge="ch_1",
        payment_intent="pi_1",
        payments=None,
    )
    wire.script("POST /v1/invoices/in_1/pay", Answer(200, paid))
    result = wire.client().invoice_pay("in_1", "pm_1", "key-03")
    assert (result.outcome, result.provider_id, result.payment_id, result.amount_minor) == (
        Outcome.SUCCEEDED,
        "ch_1",
        "pi_1",
        4900,
    )


def test_a_collection_under_way_is_awaited(wire: StripeWire) -> None:
    under_way = intent(status="processing", latest_charge="py_1", payment_method_types=["us_bank_account"])
    payment = {"is_default": True, "payment": {"type": "payment_intent", "payment_intent": under_way}}
    wire.script("POST /v1/invoices/in_1/pay", Answer(200, invoice(payments=page(payment))))
    result = wire.client().invoice_pay("in_1", "pm_1", "key-03")
    assert (result.outcome, result.provider_id) == (Outcome.AWAITING, "py_1")
    assert result.expected_by == datetime(2026, 1, 8, 8, 59, 59, tzinfo=UTC)


def test_a_declined_collection(wire: StripeWire) -> None:
    body = error("card_error", code="card_declined", decline_code="insufficient_funds", charge="ch_1")
    wire.script("POST /v1/invoices/in_1/pay", Answer(402, body))
    result = wire.client().invoice_pay("in_1", "pm_1", "key-03")
    assert (result.outcome, result.provider_id) == (Outcome.DECLINED, "ch_1")
    assert result.decline is not None
    assert result.decline.raw_code == "insufficient_funds"


def test_a_collection_of_which_stripe_names_no_payment_is_uncertain(wire: StripeWire) -> None:
    wire.script("POST /v1/invoices/in_1/pay", Answer(200, invoice()))
    with pytest.raises(ProviderUncertain, match="names no payment"):
        wire.client().invoice_pay("in_1", "pm_1", "key-03")
