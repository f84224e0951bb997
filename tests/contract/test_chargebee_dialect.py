"""Chargebee's webhooks: every field that is sent, every event type, and a password instead of a signature."""

from datetime import UTC, datetime
from typing import Any

import pytest

from providers.base import (
    CardFacts,
    CustomerFacts,
    DeclineFacts,
    DisputeStatus,
    EventKind,
    InboundRequest,
    InvoiceFacts,
    MethodFacts,
    PaymentEvent,
    PaymentFacts,
    Proof,
    RefundFacts,
    RefundStatus,
    SignatureInvalid,
)
from providers.chargebee.dialect import ChargebeeDialect
from recovery_site.common.errors import InvalidInput
from tests.contract import dialect_fixtures
from tests.contract.dialect_fixtures import Body, changed, items_of

FAILED = dialect_fixtures.load("chargebee", "payment_failed")


def told(body: Body) -> PaymentEvent:
    return dialect_fixtures.told("chargebee", body, Proof.SENDER)


def at(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def with_transaction(**values: Any) -> Body:
    return changed(FAILED, **{f"content__transaction__{name}": value for name, value in values.items()})


def test_a_failed_payment_fills_every_field() -> None:
    visa = CardFacts(
        network="visa", last4="4242", exp_month=8, exp_year=2027, funding="debit", country="DE", bin="424242"
    )
    assert told(FAILED) == PaymentEvent(
        kind=EventKind.PAYMENT_FAILED,
        provider="chargebee",
        event_id="ev_northwind_1",
        event_type="payment_failed",
        occurred_at=at(1767258003),
        trusted=False,
        customer=CustomerFacts(
            id="northwind", email="lena@example.com", name="Lena Weber", country="DE", locale="de-DE"
        ),
        invoice=InvoiceFacts(
            id="204",
            amount_minor=4900,
            currency="EUR",
            number="204",
            description="Team, January",
            subscription_id="sub_northwind",
            plan="team",
            interval="month",
            status="open",
            attempt_count=2,
            next_retry_at=at(1767430800),
            charge_id="txn_northwind_1",
            due_at=at(1767257990),
            issued_at=at(1767257990),
            told_at=at(1767258003.123),
        ),
        payment=PaymentFacts(
            charge_id="txn_northwind_1",
            payment_id="ch_northwind_1",
            amount_minor=4900,
            currency="EUR",
            invoice_id="204",
            reference="att_northwind_1",
            method=MethodFacts(token="pm_northwind_1", card=visa),
            decline=DeclineFacts(
                raw_code="insufficient_funds",
                network_code="51",
                advice_code="24",
                provider_advice="try_again_later",
                message="Your card has insufficient funds.",
                gateway="stripe",
            ),
            occurred_at=at(1767258000),
            gateway_reference="ch_northwind_1",
        ),
    )


def test_the_card_is_also_read_from_the_packed_details() -> None:
    method = told(changed(FAILED, content__card=None)).payment
    assert method
    assert method.method
    assert method.method.card == CardFacts(network="visa", last4="4242", bin="424242")


@pytest.mark.parametrize("packed", ["not JSON", "[1]", "{", '{"card": 1}', ""])
def test_packed_details_that_are_none_leave_the_masked_number(packed: str) -> None:
    body = changed(FAILED, content__card=None, content__transaction__payment_method_details=packed)
    payment = told(body).payment
    assert payment
    assert payment.method
    assert payment.method.card == CardFacts(last4="4242")


@pytest.mark.parametrize(
    ("status", "kind", "undone"),
    [
        ("success", EventKind.PAYMENT_SUCCEEDED, False),
        ("failure", EventKind.PAYMENT_FAILED, False),
        ("late_failure", EventKind.PAYMENT_FAILED, True),
        ("voided", EventKind.PAYMENT_FAILED, True),
        ("in_progress", EventKind.PAYMENT_PENDING, False),
        ("timeout", EventKind.PAYMENT_FAILED, False),
        ("needs_attention", EventKind.PAYMENT_PENDING, False),
    ],
)
def test_the_status_of_a_transaction_says_what_became_of_the_money(status: str, kind: EventKind, undone: bool) -> None:
    event = told(with_transaction(status=status))
    assert event.payment
    assert (event.kind, event.payment.undone, event.payment.captured_minor) == (
        kind,
        undone,
        4900 if status == "success" else None,
    )
    assert (event.payment.decline is not None) == (kind is EventKind.PAYMENT_FAILED)


@pytest.mark.parametrize(
    ("currency", "kind"), [("USD", "ach"), ("EUR", "sepa"), ("GBP", "bacs"), ("AUD", "becs"), ("SEK", "direct_debit")]
)
def test_a_direct_debit_is_of_the_scheme_of_its_currency(currency: str, kind: str) -> None:
    payment = told(with_transaction(payment_method="direct_debit", currency_code=currency)).payment
    assert payment
    assert payment.method == MethodFacts(token="pm_northwind_1", kind=kind)


@pytest.mark.parametrize(
    ("changes", "kind", "amount"),
    [
        ({"status": "payment_due"}, EventKind.INVOICE_UPDATED, 4900),
        ({"status": "paid", "amount_paid": 4900, "amount_due": 0}, EventKind.INVOICE_PAID, 4900),
        ({"status": "voided"}, EventKind.INVOICE_VOIDED, 4900),
        (
            {"status": "not_paid", "write_off_amount": 4900, "amount_due": 0},
            EventKind.INVOICE_UNCOLLECTIBLE,
            0,
        ),
        ({"amount_due": None}, EventKind.INVOICE_UPDATED, 5400),
    ],
)
def test_an_invoice_says_what_became_of_it(changes: dict[str, Any], kind: EventKind, amount: int) -> None:
    body = changed(FAILED, event_type="invoice_updated", content__transaction=None)
    event = told(changed(body, **{f"content__invoice__{name}": value for name, value in changes.items()}))
    assert event.invoice
    assert (event.kind, event.invoice.amount_minor) == (kind, amount)


def test_a_paid_invoice_names_the_payment_that_paid_it() -> None:
    body = changed(
        FAILED,
        event_type="invoice_updated",
        content__transaction=None,
        content__invoice__status="paid",
        content__invoice__linked_payments__0__txn_status="success",
    )
    invoice = told(body).invoice
    assert invoice
    assert invoice.charge_id == "txn_northwind_0"


@pytest.mark.parametrize("status", ["exhausted", "stopped"])
def test_dunning_that_has_ended_announces_no_further_try(status: str) -> None:
    invoice = told(changed(FAILED, event_type="dunning_updated", content__invoice__dunning_status=status)).invoice
    assert invoice
    assert invoice.next_retry_at is None


def test_a_refund() -> None:
    event = told(dialect_fixtures.load("chargebee", "payment_refunded"))
    assert event.kind is EventKind.REFUND_UPDATED
    assert event.refunds == (
        RefundFacts(
            id="txn_northwind_9",
            amount_minor=900,
            currency="EUR",
            status=RefundStatus.SUCCEEDED,
            charge_id="txn_northwind_1",
            invoice_id="204",
            reason="waiver",
        ),
    )


def test_a_reversal_and_a_chargeback_are_disputes() -> None:
    reversal = told(
        with_transaction(type="payment_reversal", reference_transaction_id="txn_0", payment_method="direct_debit")
    )
    assert reversal.dispute
    assert (reversal.kind, reversal.dispute.status, reversal.dispute.charge_id, reversal.dispute.is_return) == (
        EventKind.DISPUTE_UPDATED,
        DisputeStatus.LOST,
        "txn_0",
        True,
    )
    note = {
        "id": "CN-2",
        "customer_id": "northwind",
        "reference_invoice_id": "204",
        "reason_code": "chargeback",
        "total": 4900,
        "currency_code": "EUR",
    }
    chargeback = told(changed(FAILED, event_type="credit_note_created", content={"credit_note": note}))
    assert chargeback.dispute
    assert (chargeback.dispute.status, chargeback.dispute.invoice_id, chargeback.dispute.amount_minor) == (
        DisputeStatus.OPEN,
        "204",
        4900,
    )


def test_a_new_card_behind_a_payment_source() -> None:
    event = told(dialect_fixtures.load("chargebee", "payment_source_updated"))
    mastercard = CardFacts(
        network="mastercard", last4="4444", exp_month=1, exp_year=2030, funding="credit", bin="520424"
    )
    assert (event.kind, event.method) == (
        EventKind.METHOD_UPDATED,
        MethodFacts(token="pm_northwind_1", card=mastercard, is_default=True, updated=True),
    )


def test_a_deleted_payment_source_and_a_subscription_that_ended() -> None:
    source = dialect_fixtures.load("chargebee", "payment_source_updated")
    removed = told(changed(source, event_type="payment_source_deleted"))
    assert (removed.kind, removed.method and removed.method.token) == (EventKind.METHOD_REMOVED, "pm_northwind_1")
    ended = told(dialect_fixtures.load("chargebee", "subscription_cancelled"))
    assert (ended.kind, ended.subscription_id, ended.customer and ended.customer.id) == (
        EventKind.SUBSCRIPTION_ENDED,
        "sub_northwind",
        "northwind",
    )


@pytest.mark.parametrize(
    ("event_type", "content", "reason"),
    [
        ("payment_failed", {}, "neither a payment nor an invoice"),
        ("payment_succeeded", {"transaction": {"id": "t", "type": "authorization"}}, "moves no money"),
        ("payment_succeeded", {"transaction": {"id": "t", "type": "payment", "status": "new"}}, "whether money moved"),
        ("invoice_generated", {"invoice": {"id": "d", "status": "pending"}}, "not owed yet"),
        ("credit_note_created", {"credit_note": {"id": "c", "reason_code": "waiver"}}, "changes its invoice"),
        ("payment_source_deleted", {"customer": {"id": "northwind"}}, "which payment method is gone"),
        ("card_updated", {"customer": {"id": "northwind"}}, "no payment method"),
        ("card_expired", {"customer": {"id": "n", "primary_payment_source_id": "pm"}}, "shows no card"),
        ("card_expiry_reminder", {}, "shows no card"),
        ("subscription_renewed", {}, "events of their own"),
        ("quote_created", {}, "nothing that a payment recovery needs"),
    ],
)
def test_what_needs_nothing_is_ignored_with_its_reason(event_type: str, content: Body, reason: str) -> None:
    body = {"id": "ev_1", "occurred_at": 1767258003, "event_type": event_type, "content": content}
    assert reason in dialect_fixtures.ignored("chargebee", body)


@pytest.mark.parametrize(
    ("content", "key"),
    [
        (FAILED["content"], "204"),
        ({"transaction": {"id": "txn_1", "linked_invoices": [{"invoice_id": "7"}]}}, "7"),
        ({"transaction": {"id": "txn_1", "linked_credit_notes": [{"cn_reference_invoice_id": "8"}]}}, "8"),
        ({"transaction": {"id": "txn_1", "linked_invoices": []}}, "txn_1"),
        ({"subscription": {"id": "sub_1"}, "customer": {"id": "c"}}, "sub_1"),
        ({"customer": {"id": "c"}}, "c"),
        ({}, "ev_1"),
        ([], "ev_1"),
    ],
)
def test_events_of_one_invoice_share_their_order_key(content: object, key: str) -> None:
    body = {"id": "ev_1", "occurred_at": 1, "event_type": "payment_failed", "content": content}
    (item,) = items_of("chargebee", body)
    assert (item.event_id, item.order_key) == ("ev_1", key)


# "user:new" and "user:old" in base 64.
NEW, OLD = "Basic dXNlcjpuZXc=", "Basic dXNlcjpvbGQ="


def test_the_password_is_asked_for_and_nothing_else_vouches_for_the_body() -> None:
    dialect = ChargebeeDialect()

    def verify(header: str, *secrets: str, key: str = "") -> Proof:
        request = InboundRequest(b"{}", {"authorization": header}, {"key": key} if key else {})
        return dialect.verify(request, secrets, now=0.0, tolerance_seconds=300)

    assert verify(NEW, "user:new", "user:old") is Proof.SENDER
    assert verify(OLD, "user:new", "user:old") is Proof.SENDER
    keyed = '{"username": "user", "password": "new", "key": "k1"}'
    assert verify(NEW, keyed, key="k1") is Proof.SENDER
    for refused in (
        lambda: verify(OLD, "user:new"),
        lambda: verify("", "user:new"),
        lambda: verify(NEW),
        lambda: verify(NEW, keyed),
        lambda: verify(NEW, keyed, key="k2"),
        lambda: verify(OLD, keyed, key="k1"),
    ):
        with pytest.raises(SignatureInvalid):
            refused()


@pytest.mark.parametrize("secret", [":", ":x", '{"key": "k1"}', '{"username": "u", "key": 1}'])
def test_a_secret_without_a_user_is_refused(secret: str) -> None:
    with pytest.raises(InvalidInput):
        ChargebeeDialect().secret_check(secret)
