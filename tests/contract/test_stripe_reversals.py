"""Refunds, disputes and payment methods in Stripe's webhooks."""

from datetime import UTC, datetime

import pytest

from providers.base import (
    CardFacts,
    CustomerFacts,
    DisputeFacts,
    DisputeStatus,
    EventKind,
    Ignored,
    MethodFacts,
    PaymentEvent,
    RefundFacts,
    RefundStatus,
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


def test_old_versions_list_the_refunds_of_a_charge() -> None:
    event = told("2020-08-27/charge.refunded.json")
    assert event.kind is EventKind.REFUND_UPDATED
    assert event.refunds == (
        RefundFacts(
            id="re_1",
            amount_minor=1900,
            currency="EUR",
            status=RefundStatus.SUCCEEDED,
            charge_id="ch_renewal_2",
            payment_id="pi_renewal_1",
            reason="requested_by_customer",
        ),
    )
    assert event.payment is not None
    assert (event.payment.charge_id, event.payment.invoice_id) == ("ch_renewal_2", "in_renewal_1")


def test_later_versions_tell_only_the_total_so_one_refund_is_derived_from_its_growth() -> None:
    event = load("2023-10-16/charge.refunded.json")
    event["data"]["object"]["amount_refunded"] = 2500
    event["data"]["previous_attributes"] = {"amount_refunded": 1900}
    meaning = read(event)
    assert isinstance(meaning, PaymentEvent)
    assert meaning.refunds == (
        RefundFacts(
            id="ch_renewal_2:2500",
            amount_minor=600,
            currency="EUR",
            status=RefundStatus.SUCCEEDED,
            charge_id="ch_renewal_2",
            payment_id="pi_renewal_1",
            derived=True,
        ),
    )


def test_a_refunded_charge_whose_total_did_not_grow_tells_nothing() -> None:
    event = load("2023-10-16/charge.refunded.json")
    event["data"]["previous_attributes"] = {"amount_refunded": 1900}
    assert isinstance(read(event), Ignored)


def test_a_released_authorisation_is_no_refund() -> None:
    assert isinstance(read(changed("2023-10-16/charge.refunded.json", "captured", False)), Ignored)


@pytest.mark.parametrize(
    ("name", "status", "failure_reason"),
    [
        ("2023-10-16/charge.refund.updated.json", RefundStatus.FAILED, "lost_or_stolen_card"),
        ("2025-10-29.clover/refund.created.json", RefundStatus.PENDING, ""),
        ("2025-10-29.clover/refund.updated.json", RefundStatus.SUCCEEDED, ""),
        ("2025-10-29.clover/refund.failed.json", RefundStatus.FAILED, "expired_or_canceled_card"),
    ],
)
def test_a_refund_with_an_event_of_its_own(name: str, status: RefundStatus, failure_reason: str) -> None:
    event = told(name)
    (refund,) = event.refunds
    assert event.kind is EventKind.REFUND_UPDATED
    assert (refund.status, refund.failure_reason, refund.amount_minor) == (status, failure_reason, 1900)
    assert (refund.charge_id, refund.derived) == ("ch_renewal_2", False)


def test_our_refund_carries_our_reference() -> None:
    (refund,) = told("2025-10-29.clover/refund.created.json").refunds
    assert (refund.id, refund.reference) == ("re_2", "att_01refund")


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("canceled", RefundStatus.FAILED),
        ("requires_action", RefundStatus.PENDING),
        (None, RefundStatus.PENDING),
        ("never_heard_of", RefundStatus.PENDING),
    ],
)
def test_refund_statuses(status: str | None, expected: RefundStatus) -> None:
    meaning = read(changed("2025-10-29.clover/refund.updated.json", "status", status))
    assert isinstance(meaning, PaymentEvent)
    assert meaning.refunds[0].status is expected


def test_a_refund_of_no_charge_is_ignored() -> None:
    event = load("2025-10-29.clover/refund.created.json")
    event["data"]["object"].update(charge=None, payment_intent=None)
    assert isinstance(read(event), Ignored)


def test_a_card_dispute() -> None:
    assert told("2025-10-29.clover/charge.dispute.created.json").dispute == DisputeFacts(
        id="du_2",
        amount_minor=4900,
        currency="EUR",
        status=DisputeStatus.OPEN,
        charge_id="ch_renewal_4",
        payment_id="pi_renewal_2",
        reason_code="13.2",
    )
    closed = told("2025-10-29.clover/charge.dispute.closed.json").dispute
    assert closed is not None
    assert closed.status is DisputeStatus.LOST


def test_a_bank_debit_that_came_back_after_success_is_a_return() -> None:
    assert told("2025-10-29.clover/charge.dispute.created-ach_return.json").dispute == DisputeFacts(
        id="du_1",
        amount_minor=12500,
        currency="USD",
        status=DisputeStatus.LOST,
        charge_id="py_ach_1",
        payment_id="pi_ach_1",
        reason_code="insufficient_funds",
        is_return=True,
    )


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("warning_needs_response", DisputeStatus.OPEN),
        ("warning_closed", DisputeStatus.WON),
        ("under_review", DisputeStatus.OPEN),
        ("won", DisputeStatus.WON),
        ("prevented", DisputeStatus.WON),
        ("lost", DisputeStatus.LOST),
        ("brand_new_status", DisputeStatus.OPEN),
    ],
)
@pytest.mark.parametrize("event_type", ["updated", "closed", "funds_withdrawn", "funds_reinstated"])
def test_dispute_statuses(event_type: str, status: str, expected: DisputeStatus) -> None:
    event = changed("2025-10-29.clover/charge.dispute.created.json", "status", status)
    meaning = read({**event, "type": f"charge.dispute.{event_type}"})
    assert isinstance(meaning, PaymentEvent)
    assert meaning.dispute is not None
    assert (meaning.kind, meaning.dispute.status) == (EventKind.DISPUTE_UPDATED, expected)


def test_an_early_fraud_warning_is_ignored_with_a_reason() -> None:
    event = {
        **load("2025-10-29.clover/charge.dispute.created.json"),
        "type": "radar.early_fraud_warning.created",
    }
    meaning = read(event)
    assert isinstance(meaning, Ignored)
    assert "warning" in meaning.reason


def test_a_new_payment_method() -> None:
    event = told("2025-10-29.clover/payment_method.attached.json")
    assert (event.kind, event.customer) == (EventKind.METHOD_UPDATED, NORTHWIND)
    assert event.method == MethodFacts(token="pm_northwind_1", card=VISA)


@pytest.mark.parametrize(
    "event_type", ["payment_method.automatically_updated", "payment_method.card_automatically_updated"]
)
def test_the_account_updater_replaced_a_card(event_type: str) -> None:
    event = {**load("2025-10-29.clover/payment_method.automatically_updated.json"), "type": event_type}
    meaning = read(event)
    assert isinstance(meaning, PaymentEvent)
    new = CardFacts(
        fingerprint="fpNorthwind02",
        network="visa",
        last4="7777",
        exp_month=4,
        exp_year=2031,
        funding="debit",
        country="NL",
    )
    assert meaning.kind is EventKind.METHOD_UPDATED
    assert meaning.method == MethodFacts(token="pm_northwind_1", card=new, updated=True, previous=VISA)


def test_a_new_billing_address_is_no_new_card() -> None:
    method = told("2025-10-29.clover/payment_method.updated.json").method
    assert method == MethodFacts(token="pm_northwind_1", card=VISA)


def test_an_old_card_object_with_a_new_expiry() -> None:
    method = told("2019-12-03/customer.source.updated.json").method
    assert method is not None
    assert (method.token, method.kind, method.updated) == ("card_northwind_1", "card", True)
    assert method.card is not None
    assert method.previous is not None
    assert (method.card.network, method.card.exp_month, method.card.exp_year) == ("amex", 9, 2027)
    assert (method.previous.exp_month, method.previous.exp_year) == (3, 2024)
    assert method.previous.fingerprint == method.card.fingerprint == "fpAmex01"


def test_a_detached_method_still_knows_whose_it_was() -> None:
    event = told("2025-10-29.clover/payment_method.detached.json")
    assert (event.kind, event.customer) == (EventKind.METHOD_REMOVED, NORTHWIND)
    assert event.method is not None
    assert event.method.token == "pm_northwind_1"


def test_a_mandate_that_cannot_be_used_any_more_removes_its_method() -> None:
    event = told("2025-10-29.clover/mandate.updated.json")
    assert event.kind is EventKind.METHOD_REMOVED
    assert event.method == MethodFacts(token="pm_bank_1", kind="ach")
    assert isinstance(read(changed("2025-10-29.clover/mandate.updated.json", "status", "pending")), Ignored)


def test_a_new_default_method_of_a_customer() -> None:
    event = told("2025-10-29.clover/customer.updated.json")
    assert event.kind is EventKind.METHOD_UPDATED
    assert event.method == MethodFacts(token="pm_northwind_2", kind="", is_default=True)
    assert event.customer == CustomerFacts(
        id="cus_northwind", email="ap@northwind.example", name="Northwind BV", country="NL", locale="nl-NL"
    )


def test_a_new_mail_address_of_a_customer_starts_nothing() -> None:
    assert isinstance(read(load("2025-10-29.clover/customer.updated-email.json")), Ignored)


def test_a_default_method_that_was_taken_away_starts_nothing() -> None:
    event = changed("2025-10-29.clover/customer.updated.json", "invoice_settings.default_payment_method", None)
    assert isinstance(read(event), Ignored)
