"""Money in another currency pays nothing by itself; a person may say that it pays the debt; no amount is made up."""

from typing import Any

import pytest

from invoices.models import Invoice, Transaction
from recovery_site.common.errors import Conflict
from recovery_site.console.verification import verify
from retries.models import RetryJob
from tests.retries.refunding import (
    ask,
    assert_ledger,
    charge_at_provider,
    collected,
    question,
    refunds,
    sandbox_tells,
    shown,
    totals,
)
from tests.retries.test_answers import answer
from tests.support.shop import Shop
from tests.support.stripe import Bill, Try

pytestmark = pytest.mark.django_db(transaction=True)


def paid_in_euro(shop: Shop, minor: int = 2300) -> tuple[Bill, Try]:
    """25.00 USD are owed; 23.00 EUR arrive."""
    bill = shop.failed_bill()
    paid = charge_at_provider(shop, bill, minor, "EUR")
    told = bill.attempt(shop.wait(hours=1), charge=paid, currency="eur", amount=minor)
    shop.tell(told.charge_succeeded())
    return bill, told


def owed(shop: Shop, bill: Bill) -> tuple[str, int, int, int]:
    """(status, paid, credited, due) of the invoice."""
    invoice = shop.invoice(bill)
    return invoice.status, invoice.paid_minor, invoice.credited_minor, invoice.due_minor


def test_staff_say_that_it_pays_the_debt(shop: Shop) -> None:
    bill, _ = paid_in_euro(shop)
    item = question(shop, bill)
    assert (item.kind, item.choices) == ("wrong_currency", ["pays", "refund", "keep"])
    answer(shop, item, "pays", note="agreed by mail")
    assert owed(shop, bill) == ("SETTLED", 0, 2500, 0)
    case = shop.case(bill)
    assert (case.status, case.recovered_by, case.recovered_minor) == ("RECOVERED", "outside", 0)
    event = shop.invoice(bill).events.get(kind="transaction.credit")
    assert (event.actor, event.data) == (
        "user:bob",
        {"settles_minor": 2500, "currency": "USD", "received": [2300, "EUR"]},
    )
    item.refresh_from_db()
    assert (item.resolution, item.resolved_by, item.note) == ("pays", "user:bob", "agreed by mail")
    shop.wait(days=10)
    assert (shop.drain().claimed, shop.charged(bill)) == (0, 2300)
    assert_ledger(shop)


def test_what_pays_the_debt_and_is_taken_back_is_owed_again_and_no_more(shop: Shop) -> None:
    bill, told = paid_in_euro(shop)
    answer(shop, question(shop, bill), "pays")
    shop.tell(told.dispute("lost", shop.wait(days=2), currency="eur", amount=2300))
    assert owed(shop, bill) == ("PROCESS_FAILED", 0, 0, 2500)
    assert (shop.case(bill).status, shop.case(bill).amount_minor) == ("OPEN", 2500)
    assert_ledger(shop)
    shop.tell(told.dispute("won", shop.wait(days=2), currency="eur", amount=2300))
    assert owed(shop, bill) == ("SETTLED", 0, 2500, 0)
    assert (shop.case(bill).status, shop.case(bill).recovered_minor) == ("RECOVERED", 0)
    assert_ledger(shop)


def test_a_dispute_of_money_that_pays_nothing_does_not_raise_the_debt(shop: Shop) -> None:
    """Counted as dollars, the lost euros once made `paid_minor` negative and the customer owe twice."""
    bill, told = paid_in_euro(shop)
    shop.tell(told.dispute("lost", shop.wait(days=2), currency="eur", amount=2300))
    assert owed(shop, bill)[1:] == (0, 0, 2500)
    with pytest.raises(Conflict, match="disputed or was returned"):
        answer(shop, question(shop, bill, "wrong_currency"), "pays")
    assert_ledger(shop)


def test_the_debt_stays_paid_until_all_of_the_money_is_given_back(shop: Shop) -> None:
    bill, _ = paid_in_euro(shop)
    answer(shop, question(shop, bill), "pays")
    ask(shop, bill, 1000)
    assert shop.invoice(bill).status == "REFUNDING"
    shop.drain()
    assert (shop.invoice(bill).status, refunds(shop, bill)) == ("SETTLED", [("DONE", 1000)])
    ask(shop, bill)
    shop.drain()
    assert (totals(shop, bill), owed(shop, bill)[3]) == (("REFUNDED", 0, 0), 0)
    assert_ledger(shop)


@pytest.mark.parametrize("choice", ["keep", "refund"])
def test_unless_it_pays_recovery_goes_on_at_once(shop: Shop, choice: str) -> None:
    bill, _ = paid_in_euro(shop)
    answer(shop, question(shop, bill), choice)
    assert (shop.reviews(bill), shop.case(bill).next_step) == ([], "booked")
    assert owed(shop, bill) == ("PROCESSING", 0, 0, 2500)
    assert refunds(shop, bill) == ([("INIT", 2300)] if choice == "refund" else [])
    assert_ledger(shop)
    shop.wait_for(bill)
    assert shop.drain().succeeded == (2 if choice == "refund" else 1)
    assert owed(shop, bill)[:2] == ("SETTLED", 2500)


def test_two_such_payments_are_two_questions_and_recovery_waits_for_both(shop: Shop) -> None:
    bill, _ = paid_in_euro(shop)
    again = charge_at_provider(shop, bill, 900, "EUR")
    shop.tell(bill.attempt(shop.wait(hours=2), charge=again, currency="eur", amount=900).charge_succeeded())
    first, second = shop.invoice(bill).review_items.order_by("id")
    answer(shop, first, "keep")
    assert (shop.case(bill).next_step, RetryJob.objects.filter(status="SCHEDULED").count()) == ("staff", 0)
    answer(shop, second, "pays")
    assert owed(shop, bill) == ("SETTLED", 0, 2500, 0)
    assert_ledger(shop)


def refunded(shop: Shop, bill: Bill) -> None:
    ask(shop, bill)


def in_flight(shop: Shop, bill: Bill) -> None:
    shop.sandbox.script(bill.token, "timeout_before")
    shop.retry_now(bill)
    assert shop.drain().unknown == 1


@pytest.mark.parametrize(("event", "why"), [(refunded, "on its way back"), (in_flight, "in flight")])
def test_what_the_world_has_overtaken_pays_nothing(shop: Shop, event: Any, why: str) -> None:
    bill, _ = paid_in_euro(shop)
    item = question(shop, bill)
    event(shop, bill)
    with pytest.raises(Conflict, match=why):
        answer(shop, item, "pays")
    item.refresh_from_db()
    assert (item.resolved_at, shop.invoice(bill).credited_minor) == (None, 0)


def test_of_a_paid_invoice_nothing_can_be_paid(shop: Shop) -> None:
    bill = collected(shop)
    more = charge_at_provider(shop, bill, 2300, "EUR")
    shop.tell(bill.attempt(shop.wait(hours=1), charge=more, currency="eur", amount=2300).charge_succeeded())
    assert question(shop, bill, "wrong_currency").choices == ["refund", "keep"]


@pytest.mark.parametrize(
    ("rows", "change", "problem"),
    [
        (Transaction, {"settles_minor": 2400}, "credit_differs"),
        (Invoice, {"credited_minor": 2400}, "credited_differs"),
    ],
)
def test_a_credit_that_nobody_gave_is_found(shop: Shop, rows: Any, change: dict[str, int], problem: str) -> None:
    bill, _ = paid_in_euro(shop)
    answer(shop, question(shop, bill), "pays")
    field, value = next(iter(change.items()))
    assert rows.objects.filter(**{f"{field}__isnull": False}).exclude(**{field: value}).update(**change) == 1
    assert problem in {found.problem for found in verify(merchant=shop.merchant).problems}


def test_staff_believe_another_amount_and_are_asked_about_the_surplus(shop: Shop) -> None:
    bill = shop.failed_bill()
    shop.sandbox.script(bill.token, "timeout_after_charge")
    assert shop.retry(bill).unknown == 1
    (charge,) = shop.sandbox.charges(bill.customer)
    sandbox_tells(shop, "charge.succeeded", {**shown(shop, "charge", charge["id"]), "amount": 9900})
    assert shop.process().ignored == 1
    item = question(shop, bill)
    assert (item.kind, item.choices) == ("mismatch", ["charged_as_told", "charged", "not_charged"])
    answer(shop, item, "charged_as_told")
    assert (totals(shop, bill), shop.reviews(bill)) == (("SETTLED", 9900, 0), ["overpaid"])
    attempt = shop.attempt(bill)
    assert (attempt.amount_minor, attempt.captured_minor, attempt.provider_id) == (2500, 9900, charge["id"])
    assert shop.invoice(bill).events.get(kind="staff.resolve").data["captured_minor"] == 9900
    assert_ledger(shop)
