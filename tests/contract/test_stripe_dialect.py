"""Stripe's payments and invoices, as old and new API versions tell them."""

from datetime import UTC, datetime, timedelta

import pytest

from providers.base import (
    CardFacts,
    CustomerFacts,
    DeclineFacts,
    EventKind,
    Ignored,
    InvoiceFacts,
    MethodFacts,
    PaymentEvent,
    PaymentFacts,
)
from tests.contract.stripe_fixtures import changed, load, read, told

START = datetime(2026, 1, 1, 9, tzinfo=UTC)
NORTHWIND = CustomerFacts(id="cus_northwind")
NORTHWIND_BILLED = CustomerFacts(id="cus_northwind", email="ap@northwind.example", name="Northwind BV", country="NL")
VISA = CardFacts(
    fingerprint="fpNorthwind01",
    network="visa",
    last4="0341",
    exp_month=4,
    exp_year=2028,
    funding="debit",
    country="NL",
)
MASTERCARD = CardFacts(
    fingerprint="fpNorthwind01",
    network="mastercard",
    last4="0341",
    exp_month=4,
    exp_year=2028,
    funding="debit",
    country="NL",
)


OLD_INVOICE = InvoiceFacts(
    id="in_renewal_1",
    amount_minor=4900,
    currency="EUR",
    number="NW-0007",
    description="1 × Team (at €49.00 / month)",  # noqa: RUF001
    subscription_id="sub_northwind",
    plan="price_team_monthly",
    interval="month",
    status="open",
    attempt_count=1,
    next_retry_at=START + timedelta(days=3),
    payment_id="pi_renewal_1",
    charge_id="ch_renewal_1",
    token="pm_northwind_1",
    issued_at=START - timedelta(minutes=1),
)


def test_an_old_invoice_failure_names_payment_and_charge_but_no_reason() -> None:
    assert told("2022-11-15/invoice.payment_failed.json") == PaymentEvent(
        kind=EventKind.INVOICE_FAILED,
        provider="stripe",
        event_id="evt_invoice_payment_failed_1",
        event_type="invoice.payment_failed",
        occurred_at=START + timedelta(seconds=3),
        customer=NORTHWIND_BILLED,
        invoice=OLD_INVOICE,
    )


def test_an_old_failed_charge_names_its_invoice_and_the_issuers_reason() -> None:
    assert told("2022-11-15/charge.failed.json") == PaymentEvent(
        kind=EventKind.PAYMENT_FAILED,
        provider="stripe",
        event_id="evt_charge_failed_1",
        event_type="charge.failed",
        occurred_at=START + timedelta(seconds=1),
        customer=NORTHWIND,
        payment=PaymentFacts(
            charge_id="ch_renewal_1",
            payment_id="pi_renewal_1",
            amount_minor=4900,
            currency="EUR",
            invoice_id="in_renewal_1",
            method=MethodFacts(token="pm_northwind_1", card=VISA),
            decline=DeclineFacts(raw_code="insufficient_funds", message="Your card has insufficient funds."),
            occurred_at=START,
            network_reference="700000000000001",
        ),
    )


def test_an_old_failed_intent_names_the_same_charge_with_the_same_reason() -> None:
    charge = told("2022-11-15/charge.failed.json").payment
    intent = told("2022-11-15/payment_intent.payment_failed.json").payment
    assert charge is not None
    assert intent is not None
    assert (intent.charge_id, intent.payment_id, intent.invoice_id, intent.amount_minor, intent.currency) == (
        charge.charge_id,
        charge.payment_id,
        charge.invoice_id,
        charge.amount_minor,
        charge.currency,
    )
    assert intent.decline == charge.decline
    assert intent.method == charge.method
    assert intent.names_invoice is True


def test_from_basil_on_an_invoice_failure_names_no_payment() -> None:
    for name in (
        "2025-03-31.basil/invoice.payment_failed.json",
        "2025-10-29.clover/invoice.payment_failed.json",
    ):
        event = told(name)
        assert event.kind is EventKind.INVOICE_FAILED
        assert event.payment is None
        assert event.invoice is not None
        assert (event.invoice.payment_id, event.invoice.charge_id) == ("", "")
        assert (event.invoice.subscription_id, event.invoice.plan) == ("sub_northwind", "price_team_monthly")


def test_the_last_scheduled_attempt_has_no_next_one() -> None:
    last = told("2025-10-29.clover/invoice.payment_failed.json").invoice
    assert last is not None
    assert (last.attempt_count, last.next_retry_at) == (4, None)


def test_from_basil_on_a_failed_charge_cannot_name_its_invoice() -> None:
    assert told("2025-10-29.clover/charge.failed.json").payment == PaymentFacts(
        charge_id="ch_renewal_3",
        payment_id="pi_renewal_2",
        amount_minor=4900,
        currency="EUR",
        reference="att_01charge",
        method=MethodFacts(token="pm_northwind_1", card=MASTERCARD),
        decline=DeclineFacts(
            raw_code="insufficient_funds",
            network_code="51",
            advice_code="24",
            provider_advice="try_again_later",
            message="Your card has insufficient funds.",
        ),
        occurred_at=START,
        names_invoice=False,
        network_reference="MCC000001",
    )


def test_from_basil_on_a_failed_intent_tells_the_same_as_its_charge() -> None:
    charge = told("2025-10-29.clover/charge.failed.json").payment
    intent = told("2025-10-29.clover/payment_intent.payment_failed.json").payment
    assert charge is not None
    assert intent is not None
    # Only the instant differs: an intent does not say when its charge was made.
    assert intent.occurred_at is None
    assert (intent.charge_id, intent.payment_id, intent.reference) == (
        charge.charge_id,
        charge.payment_id,
        charge.reference,
    )
    assert (intent.decline, intent.method, intent.names_invoice) == (charge.decline, charge.method, False)


def test_an_invoice_payment_links_invoice_and_payment() -> None:
    event = told("2025-10-29.clover/invoice_payment.paid.json")
    assert event.kind is EventKind.PAYMENT_LINKED
    assert event.payment == PaymentFacts(
        payment_id="pi_renewal_2", amount_minor=4900, currency="EUR", invoice_id="in_renewal_2"
    )


def test_an_invoice_paid_outside_stripe_links_nothing() -> None:
    event = changed("2025-10-29.clover/invoice_payment.paid.json", "payment", {"type": "out_of_band_payment"})
    assert isinstance(read(event), Ignored)


@pytest.mark.parametrize(
    ("version", "has_key", "expected"),
    [
        ("2022-11-15", True, True),
        ("2022-11-15", False, True),
        ("2025-02-24.acacia", False, True),
        ("2025-03-31.basil", False, False),
        ("2025-10-29.clover", False, False),
        ("2025-10-29.clover", True, True),
        (None, True, True),
        (None, False, False),
    ],
)
def test_whether_an_event_could_name_its_invoice(version: str | None, has_key: bool, expected: bool) -> None:
    event = load("2022-11-15/charge.failed.json")
    event["api_version"] = version
    if not has_key:
        del event["data"]["object"]["invoice"]
    meaning = read(event)
    assert isinstance(meaning, PaymentEvent)
    assert meaning.payment is not None
    assert meaning.payment.names_invoice is expected


def test_an_intent_that_failed_to_authenticate_has_no_charge() -> None:
    payment = told("2025-10-29.clover/payment_intent.payment_failed-authentication.json").payment
    assert payment is not None
    assert (payment.charge_id, payment.payment_id) == ("", "pi_unauthenticated_1")
    assert payment.decline is not None
    assert payment.decline.raw_code == "payment_intent_authentication_failure"


def test_a_charge_that_stripe_blocked_never_reached_the_network() -> None:
    payment = told("2025-10-29.clover/charge.failed-blocked.json").payment
    assert payment is not None
    assert payment.decline == DeclineFacts(
        raw_code="fraudulent", message="Your card was declined.", sent_to_network=False
    )


@pytest.mark.parametrize(
    ("failure_code", "reason", "kind", "expected"),
    [
        ("card_declined", "lost_card", "issuer_declined", "lost_card"),
        ("card_declined", None, "issuer_declined", "card_declined"),
        ("expired_card", "expired_card", "issuer_declined", "expired_card"),
        ("processing_error", "something_else", "issuer_declined", "processing_error"),
        ("card_declined", "rule", "blocked", "generic_decline"),
        ("card_declined", "new_block_reason", "blocked", "card_declined"),
        (None, None, None, ""),
    ],
)
def test_the_code_of_a_failed_charge(
    failure_code: str | None, reason: str | None, kind: str | None, expected: str
) -> None:
    event = changed("2022-11-15/charge.failed.json", "failure_code", failure_code)
    event["data"]["object"]["outcome"] = {
        "reason": reason,
        "type": kind,
        "network_status": "declined_by_network",
    }
    meaning = read(event)
    assert isinstance(meaning, PaymentEvent)
    assert meaning.payment is not None
    assert meaning.payment.decline is not None
    assert meaning.payment.decline.raw_code == expected


@pytest.mark.parametrize(
    ("name", "kind", "captured"),
    [
        ("2022-11-15/charge.succeeded.json", EventKind.PAYMENT_SUCCEEDED, 4900),
        ("2022-11-15/payment_intent.succeeded.json", EventKind.PAYMENT_SUCCEEDED, 4900),
        ("2025-10-29.clover/charge.succeeded.json", EventKind.PAYMENT_SUCCEEDED, 4900),
        ("2025-10-29.clover/payment_intent.succeeded.json", EventKind.PAYMENT_SUCCEEDED, 4900),
        ("2025-10-29.clover/charge.succeeded-uncaptured.json", EventKind.PAYMENT_PENDING, None),
        ("2025-10-29.clover/charge.captured-partly.json", EventKind.PAYMENT_SUCCEEDED, 3000),
    ],
)
def test_money_counts_as_moved_when_it_is_captured(name: str, kind: EventKind, captured: int | None) -> None:
    event = told(name)
    assert event.kind is kind
    assert event.payment is not None
    assert (event.payment.amount_minor, event.payment.captured_minor) == (4900, captured)
    assert event.payment.decline is None


def test_a_succeeded_intent_and_its_charge_are_one_payment() -> None:
    charge = told("2025-10-29.clover/charge.succeeded.json").payment
    intent = told("2025-10-29.clover/payment_intent.succeeded.json").payment
    assert charge is not None
    assert intent is not None
    assert (charge.charge_id, charge.payment_id) == (intent.charge_id, intent.payment_id)
    # Several kinds of method were allowed, so the intent alone does not know which one was used.
    assert intent.method == MethodFacts(token="pm_northwind_1", kind="")


@pytest.mark.parametrize("name", ["charge.pending.json", "payment_intent.processing.json"])
def test_a_bank_debit_under_way_is_pending(name: str) -> None:
    event = told(f"2025-10-29.clover/{name}")
    assert event.kind is EventKind.PAYMENT_PENDING
    assert event.payment is not None
    assert (event.payment.charge_id, event.payment.payment_id) == ("py_ach_1", "pi_ach_1")
    assert event.payment.method == MethodFacts(token="pm_bank_1", kind="ach")
    assert (event.payment.amount_minor, event.payment.captured_minor) == (12500, None)


def test_a_bank_debit_that_the_bank_refused_is_a_failed_payment() -> None:
    event = told("2025-10-29.clover/charge.failed-ach.json")
    assert event.kind is EventKind.PAYMENT_FAILED
    assert event.payment is not None
    assert event.payment.decline is not None
    assert event.payment.decline.raw_code == "no_account"
    assert event.payment.occurred_at == START
    assert event.occurred_at == START + timedelta(days=4)


@pytest.mark.parametrize(
    ("name", "kind", "paid", "status"),
    [
        ("2022-11-15/invoice.paid.json", EventKind.INVOICE_PAID, 4900, "paid"),
        ("2022-11-15/invoice.voided.json", EventKind.INVOICE_VOIDED, 0, "void"),
        (
            "2025-10-29.clover/invoice.marked_uncollectible.json",
            EventKind.INVOICE_UNCOLLECTIBLE,
            0,
            "uncollectible",
        ),
    ],
)
def test_an_invoice_that_is_over(name: str, kind: EventKind, paid: int, status: str) -> None:
    event = told(name)
    assert event.kind is kind
    assert event.invoice is not None
    assert (event.invoice.amount_minor, event.invoice.paid_minor, event.invoice.status) == (
        4900,
        paid,
        status,
    )


@pytest.mark.parametrize(
    ("event_type", "kind"),
    [
        ("invoice.payment_succeeded", EventKind.INVOICE_PAID),
        ("invoice.finalized", EventKind.INVOICE_UPDATED),
        ("invoice.updated", EventKind.INVOICE_UPDATED),
        ("invoice.overdue", EventKind.INVOICE_UPDATED),
    ],
)
def test_other_types_with_the_same_invoice(event_type: str, kind: EventKind) -> None:
    meaning = read({**load("2022-11-15/invoice.payment_failed.json"), "type": event_type})
    assert isinstance(meaning, PaymentEvent)
    assert (meaning.kind, meaning.invoice) == (kind, OLD_INVOICE)


def test_an_invoice_paid_out_of_band_is_paid_although_stripe_took_nothing() -> None:
    meaning = read(changed("2022-11-15/invoice.paid.json", "amount_paid", 0))
    assert isinstance(meaning, PaymentEvent)
    assert meaning.invoice is not None
    assert meaning.invoice.paid_minor == 4900


def test_a_draft_is_not_owed() -> None:
    event = {
        **changed("2022-11-15/invoice.payment_failed.json", "status", "draft"),
        "type": "invoice.updated",
    }
    assert isinstance(read(event), Ignored)


def test_an_invoice_that_waits_for_the_payer_has_its_reason_with_it() -> None:
    event = told("2025-10-29.clover/invoice.payment_action_required.json")
    assert event.kind is EventKind.INVOICE_FAILED
    assert event.invoice is not None
    assert event.invoice.payment_id == "pi_renewal_2"
    assert event.payment == PaymentFacts(
        payment_id="pi_renewal_2",
        amount_minor=4900,
        currency="EUR",
        invoice_id="in_renewal_2",
        method=MethodFacts(token="pm_northwind_1", kind=""),
        decline=DeclineFacts(raw_code="authentication_required"),
        occurred_at=START + timedelta(seconds=4),
    )


def test_expanded_objects_stand_for_their_ids() -> None:
    event = load("2022-11-15/invoice.payment_failed.json")
    event["data"]["object"].update(
        customer={"id": "cus_northwind", "object": "customer", "email": "x@northwind.example"},
        payment_intent={"id": "pi_renewal_1", "object": "payment_intent", "latest_charge": "ch_renewal_1"},
        charge=None,
        subscription={"id": "sub_northwind", "object": "subscription"},
        default_payment_method={"id": "pm_northwind_1", "object": "payment_method"},
    )
    meaning = read(event)
    assert isinstance(meaning, PaymentEvent)
    assert meaning.invoice == OLD_INVOICE
    assert meaning.customer == NORTHWIND_BILLED


def test_a_subscription_that_ended() -> None:
    event = told("2025-10-29.clover/customer.subscription.deleted.json")
    assert (event.kind, event.subscription_id, event.customer) == (
        EventKind.SUBSCRIPTION_ENDED,
        "sub_northwind",
        NORTHWIND,
    )
