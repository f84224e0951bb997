"""Money that does not fit: twice, too late, too much, too little, in another currency. Recorded, put before staff."""

from datetime import timedelta

import pytest

from invoices.models import Transaction
from retries.models import RetryJob
from tests.support.books import assert_chain, assert_next_steps, assert_slots, assert_totals
from tests.support.shop import Shop
from tests.support.stripe import BASIL, OLD, Bill

pytestmark = pytest.mark.django_db


def charges(shop: Shop, bill: Bill) -> list[tuple[str, int, str, int | None]]:
    rows = Transaction.objects.filter(invoice=shop.invoice(bill), kind="CHARGE").order_by("id")
    return list(rows.values_list("status", "amount_minor", "currency", "captured_minor"))


def nothing_is_booked(shop: Shop) -> bool:
    held = RetryJob.objects.filter(merchant=shop.merchant, status__in=("SCHEDULED", "QUEUED", "RUNNING", "PAUSED"))
    return not held.exists()


@pytest.mark.parametrize("version", [OLD, BASIL])
def test_a_second_payment_is_recorded_as_such_and_offered_for_refund(shop: Shop, version: str) -> None:
    bill = shop.bill(version=version)
    shop.tell(*bill.attempt().succeeded(), bill.attempt(shop.wait(hours=2)).charge_succeeded())
    invoice = shop.invoice(bill)
    assert (invoice.status, invoice.paid_minor) == ("SETTLED", 5000)
    assert charges(shop, bill) == [("DONE", 2500, "USD", 2500), ("DONE", 2500, "USD", 2500)]
    first, second = invoice.transactions.order_by("id")
    assert (first.duplicate_of, second.duplicate_of) == (None, first)
    assert (shop.reviews(bill), shop.alerts(bill)) == (["paid_twice"], ["paid_twice"])
    assert_totals(shop)
    assert_chain(invoice)


def test_the_second_payment_told_again_is_not_a_third(shop: Shop) -> None:
    bill = shop.bill()
    second = bill.attempt(shop.wait(hours=2), charge="ch_second" + bill.key)
    shop.tell(*bill.attempt(bill.at).succeeded(), *second.succeeded(), *(event.again() for event in second.succeeded()))
    assert shop.invoice(bill).paid_minor == 5000
    assert len(shop.attempts(bill)) == 2
    assert shop.reviews(bill) == ["paid_twice"]


def test_a_payment_after_the_cancellation_leaves_it_canceled_and_alerts(shop: Shop) -> None:
    """billy set such an invoice to SETTLED, without a word."""
    bill = shop.failed_bill()
    shop.cancel(bill)
    shop.tell(*bill.attempt(shop.wait(hours=1)).succeeded())
    invoice = shop.invoice(bill)
    assert (invoice.status, invoice.paid_minor) == ("CANCELED", 2500)
    assert (shop.reviews(bill), shop.alerts(bill)) == (["paid_after_cancel"], ["first_failure", "paid_after_cancel"])
    assert shop.case(bill).status == "CANCELED"
    assert charges(shop, bill) == [("DONE", 2500, "USD", 2500)]
    assert_totals(shop)


def test_what_only_the_biller_tells_of_a_canceled_invoice_counts_too(shop: Shop) -> None:
    bill = shop.failed_bill(version=BASIL)
    shop.cancel(bill)
    shop.tell(bill.attempt(shop.wait(hours=1)).invoice_paid())
    assert (shop.invoice(bill).status, shop.invoice(bill).paid_minor) == ("CANCELED", 2500)
    assert shop.reviews(bill) == ["paid_after_cancel"]


def test_more_than_was_owed_settles_and_is_put_before_staff(shop: Shop) -> None:
    bill = shop.failed_bill()
    shop.tell(bill.attempt(shop.wait(hours=1), amount=3000).charge_succeeded())
    invoice = shop.invoice(bill)
    assert (invoice.status, invoice.paid_minor, invoice.due_minor) == ("SETTLED", 3000, 0)
    assert shop.reviews(bill) == ["overpaid"]
    assert (shop.case(bill).status, shop.case(bill).recovered_minor) == ("RECOVERED", 2500)


def test_money_in_another_currency_pays_nothing_and_stops_the_machine(shop: Shop) -> None:
    """2,500 euro cents are not 2,500 dollar cents; and who has paid in euro must not be charged in dollars as well."""
    bill = shop.failed_bill()
    paid = bill.attempt(shop.wait(hours=1), currency="eur")
    shop.tell(paid.charge_succeeded(), paid.charge_succeeded().again())
    invoice = shop.invoice(bill)
    assert (invoice.currency, invoice.paid_minor, invoice.due_minor) == ("USD", 0, 2500)
    assert invoice.status == "PROCESSING"
    assert ("DONE", 2500, "EUR", 2500) in charges(shop, bill)
    assert "wrong_currency" in shop.reviews(bill)
    assert (shop.case(bill).status, shop.case(bill).next_step) == ("OPEN", "staff")
    assert nothing_is_booked(shop)
    assert_next_steps(shop)
    assert_totals(shop)


def test_a_failure_in_another_currency_does_not_disturb_the_plan(shop: Shop) -> None:
    bill = shop.failed_bill()
    shop.tell(bill.attempt(shop.wait(hours=1), currency="eur", code="do_not_honor").charge_failed())
    job = shop.job(bill)
    assert (job.status, job.transaction.currency, job.transaction.amount_minor) == ("SCHEDULED", "USD", 2500)
    assert [attempt.currency for attempt in shop.attempts(bill)] == ["USD", "EUR"]
    assert_slots(shop)


def test_a_partial_capture_and_its_remainder_settle_together(shop: Shop) -> None:
    bill = shop.failed_bill()
    shop.tell(bill.attempt(shop.wait(hours=1), captured=1000).charge_succeeded())
    assert charges(shop, bill) == [("DONE", 2500, "USD", 1000), ("INIT", 1500, "USD", None)]
    shop.tell(bill.attempt(shop.wait(hours=1), amount=1500).charge_succeeded())
    invoice = shop.invoice(bill)
    assert (invoice.status, invoice.paid_minor) == ("SETTLED", 2500)
    assert charges(shop, bill) == [("DONE", 2500, "USD", 1000), ("DONE", 1500, "USD", 1500)]
    assert shop.reviews(bill) == []
    assert nothing_is_booked(shop)


def test_a_late_success_beside_a_planned_remainder_is_booked_on_it(shop: Shop) -> None:
    """The first try succeeds after all while the rest of a partial payment is already planned as another charge."""
    bill = shop.bill()
    first = bill.attempt()
    shop.tell(first.charge_failed(), bill.attempt(shop.wait(hours=1), captured=1000).charge_succeeded())
    shop.tell(first.charge_succeeded())
    invoice = shop.invoice(bill)
    assert (invoice.status, invoice.paid_minor) == ("SETTLED", 3500)
    assert shop.reviews(bill) == ["overpaid"]
    assert nothing_is_booked(shop)
    assert_totals(shop)
    assert_chain(invoice)


def test_a_success_after_the_case_was_lost_recovers_it(shop: Shop) -> None:
    bill = shop.failed_bill(code="fraudulent")
    assert (shop.invoice(bill).status, shop.case(bill).status) == ("PROCESS_FAILED", "LOST")
    shop.tell(bill.attempt(shop.wait(days=3)).charge_succeeded())
    assert (shop.invoice(bill).status, shop.case(bill).status) == ("SETTLED", "RECOVERED")


@pytest.mark.parametrize("version", [OLD, BASIL])
def test_an_invoice_of_zero_is_settled_at_once_without_a_charge(shop: Shop, version: str) -> None:
    bill = shop.bill(version=version, amount=0)
    tried = bill.attempt()
    shop.tell(tried.invoice_paid(), tried.invoice_failed(), bill.voided(bill.at + timedelta(hours=1)))
    assert (shop.invoice(bill).status, shop.invoice(bill).paid_minor) == ("SETTLED", 0)
    assert charges(shop, bill) == []
    assert not shop.invoice(bill).attempts.exists()


def test_due_is_never_negative_and_refunds_do_not_raise_it(shop: Shop) -> None:
    bill = shop.bill()
    paid = bill.attempt(amount=3000)
    shop.tell(bill.attempt().invoice_failed(), paid.charge_succeeded(), paid.refund("a", 3000, shop.wait(days=1)))
    invoice = shop.invoice(bill)
    assert (invoice.due_minor, invoice.refunded_minor, invoice.status) == (0, 3000, "REFUNDED")
    assert nothing_is_booked(shop)
