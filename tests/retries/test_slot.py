"""The slot: one booked or running retry per customer, the others queued behind it; nobody is forgotten."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from django.db import IntegrityError, transaction

from providers.base import ProviderUncertain
from retries.engine.claim import jobs_claim
from retries.engine.prepare import Prepared, attempt_prepare
from retries.engine.send import charge_record
from retries.models import RetryJob
from tests.support.books import assert_next_steps, assert_slots
from tests.support.shop import Shop
from tests.support.stripe import Bill

pytestmark = pytest.mark.django_db
LEASE = timedelta(minutes=5)


def statuses(shop: Shop, *bills: Bill) -> list[str]:
    return [shop.job(bill).status for bill in bills]


def steps(shop: Shop, *bills: Bill) -> list[str]:
    return [shop.case(bill).next_step for bill in bills]


def later(shop: Shop, first: Bill, **known: object) -> Bill:
    """A further invoice of the same customer that has just failed in the same way."""
    return shop.failed_bill(customer=first.customer, **known)


def test_the_second_invoice_of_a_customer_queues_behind_the_first(shop: Shop) -> None:
    first = shop.failed_bill()
    second = later(shop, first)
    assert statuses(shop, first, second) == ["SCHEDULED", "QUEUED"]
    assert steps(shop, first, second) == ["booked", "queued"]
    assert f"N-{first.key}" in shop.case(second).why
    assert_slots(shop)
    assert_next_steps(shop)


def test_other_customers_do_not_wait(shop: Shop, new_shop: Callable[..., Shop]) -> None:
    other = new_shop()
    bills = [shop.failed_bill(), shop.failed_bill()]
    same_name = other.failed_bill(customer=bills[0].customer)
    assert statuses(shop, *bills) == ["SCHEDULED", "SCHEDULED"]
    assert other.job(same_name).status == "SCHEDULED"


def test_the_database_refuses_a_second_holder(shop: Shop) -> None:
    first = shop.failed_bill()
    second = later(shop, first)
    with pytest.raises(IntegrityError, match="job_slot_one_per_customer"), transaction.atomic():
        RetryJob.objects.filter(pk=shop.job(second).pk).update(status="SCHEDULED")


def test_a_free_slot_goes_to_the_invoice_worth_most(shop: Shop) -> None:
    first = shop.failed_bill()
    small, large = later(shop, first, amount=900), later(shop, first, amount=9000)
    shop.tell(first.voided(shop.wait(hours=1)))
    assert statuses(shop, first, small, large) == ["CANCELED", "QUEUED", "SCHEDULED"]
    assert steps(shop, small, large) == ["queued", "booked"]
    assert_slots(shop)


def test_of_equal_worth_the_older_goes_first(shop: Shop) -> None:
    first = shop.failed_bill()
    older, younger = later(shop, first), later(shop, first)
    shop.tell(first.voided(shop.wait(hours=1)))
    assert statuses(shop, older, younger) == ["SCHEDULED", "QUEUED"]


@pytest.mark.parametrize(("hours", "swaps"), [(22.9, True), (23.0, False), (23.5, False)])
def test_an_invoice_that_can_go_over_an_hour_sooner_takes_the_slot(shop: Shop, hours: float, swaps: bool) -> None:
    """The first waits 24 hours for funds; another one fails `24 - hours` hours later and could go three hours after."""
    first = shop.failed_bill(code="do_not_honor")
    due = shop.job(first).due_at
    assert due == first.at + timedelta(hours=3)
    shop.wait_until(due - timedelta(hours=24) + timedelta(hours=hours))
    assert (due - shop.at) == timedelta(hours=24 - hours)
    second = later(shop, first, code="processing_error")
    sooner = shop.at + timedelta(minutes=1)
    assert (due - sooner > timedelta(hours=1)) == swaps
    assert statuses(shop, first, second) == (["QUEUED", "SCHEDULED"] if swaps else ["SCHEDULED", "QUEUED"])
    assert_slots(shop)
    assert_next_steps(shop)


def test_who_gets_a_free_slot_does_not_keep_a_much_sooner_one_waiting(shop: Shop) -> None:
    """The invoice worth most can go in a day, a small one in a minute: the small one goes first."""
    first = shop.failed_bill(code="processing_error")
    large = later(shop, first, amount=90_000)
    small = later(shop, first, amount=900, code="processing_error")
    assert statuses(shop, first, large, small) == ["SCHEDULED", "QUEUED", "QUEUED"]
    shop.tell(first.voided(shop.wait(seconds=30)))
    assert statuses(shop, large, small) == ["QUEUED", "SCHEDULED"]
    assert_slots(shop)


def test_staff_take_the_slot_from_a_booked_retry(shop: Shop) -> None:
    first = shop.failed_bill()
    second = later(shop, first)
    shop.wait(hours=1)
    job = shop.retry_now(second)
    assert (job.status, job.trigger, job.due_at) == ("SCHEDULED", "staff", shop.at)
    assert statuses(shop, first, second) == ["QUEUED", "SCHEDULED"]
    assert_slots(shop)
    assert_next_steps(shop)


def test_nobody_takes_the_slot_from_a_running_retry(shop: Shop) -> None:
    first = shop.failed_bill()
    second = later(shop, first)
    shop.wait_for(first)
    (claim,) = jobs_claim(now=shop.at, lease=LEASE, limit=10)
    assert claim.invoice_pk == shop.invoice(first).pk
    job = shop.retry_now(second)
    assert (job.status, statuses(shop, first)) == ("QUEUED", ["RUNNING"])
    assert_slots(shop)


@pytest.mark.parametrize("event", ["pause", "cancel", "write_off", "void", "paid", "hard"])
def test_whatever_ends_a_booked_retry_frees_the_slot(shop: Shop, event: str) -> None:
    first = shop.failed_bill()
    second = later(shop, first)
    match event:
        case "pause":
            shop.pause(first)
        case "cancel":
            shop.cancel(first)
        case "write_off":
            shop.cancel(first, write_off=True)
        case "void":
            shop.tell(first.voided(shop.wait(hours=1)))
        case "paid":
            shop.tell(*first.attempt(shop.wait(hours=1)).succeeded())
        case _:
            shop.tell(first.attempt(shop.wait(hours=1), code="fraudulent").charge_failed())
    assert shop.job(first).status in ("PAUSED", "CANCELED")
    assert (shop.job(second).status, shop.case(second).next_step) == ("SCHEDULED", "booked")
    assert_slots(shop)
    assert_next_steps(shop)


def test_a_charge_that_nobody_knows_the_end_of_frees_the_slot(shop: Shop) -> None:
    first = shop.failed_bill()
    second = later(shop, first)
    shop.wait_for(first)
    (claim,) = jobs_claim(now=shop.at, lease=LEASE, limit=10)
    prepared = attempt_prepare(claim, now=shop.at, lease=LEASE, timeout=timedelta(seconds=5))
    assert isinstance(prepared, Prepared)
    charge_record(prepared.attempt_pk, ProviderUncertain("No answer."), now=shop.at)
    assert (shop.job(first).status, shop.case(first).next_step) == ("DONE", "resolving")
    assert (shop.job(second).status, shop.case(second).next_step) == ("SCHEDULED", "booked")
    assert_slots(shop)
    assert_next_steps(shop)


def test_a_paused_invoice_comes_back_behind_the_one_that_has_the_slot(shop: Shop) -> None:
    first = shop.failed_bill()
    second = later(shop, first)
    shop.pause(first)
    assert (shop.job(first).status, shop.case(first).next_step) == ("PAUSED", "paused")
    shop.resume(first)
    assert statuses(shop, first, second) == ["QUEUED", "SCHEDULED"]
    assert_slots(shop)
    assert_next_steps(shop)


def test_a_hard_decline_of_one_card_does_not_end_the_case_while_another_lives(shop: Shop) -> None:
    bill = shop.failed_bill()
    spare = shop.bill(customer=bill.customer)
    shop.tell(spare.method_attached(shop.wait(hours=1)))
    shop.tell(bill.attempt(shop.wait(hours=1), code="lost_card").charge_failed())
    job = shop.job(bill)
    assert (job.status, job.token, job.due_at) == ("SCHEDULED", shop.token(spare), shop.at)
    assert "other payment method was refused for good" in shop.case(bill).why


def test_no_card_at_all_is_not_the_same_as_all_cards_declined(shop: Shop) -> None:
    bill = shop.bill()
    shop.tell(bill.attempt().intent_failed(with_method=False))
    assert shop.case(bill).next_step == "customer"
    assert "no payment method of this customer is known" in shop.case(bill).why
    shop.tell(bill.method_attached(shop.wait(hours=1)))
    assert shop.case(bill).next_step == "booked"


def test_a_queued_invoice_that_is_canceled_leaves_the_holder_alone(shop: Shop) -> None:
    first = shop.failed_bill()
    second, third = later(shop, first), later(shop, first)
    shop.cancel(second)
    assert statuses(shop, first, second, third) == ["SCHEDULED", "CANCELED", "QUEUED"]
    assert_slots(shop)


def test_a_new_card_books_one_invoice_and_queues_the_others(shop: Shop) -> None:
    first = shop.failed_bill(code="expired_card")
    second = later(shop, first, code="expired_card")
    assert steps(shop, first, second) == ["customer", "customer"]
    fresh = shop.bill(customer=first.customer)
    shop.tell(fresh.method_attached(shop.wait(hours=1)))
    assert sorted(statuses(shop, first, second)) == ["QUEUED", "SCHEDULED"]
    assert {shop.job(bill).token for bill in (first, second)} == {shop.token(fresh)}
    assert_slots(shop)
    assert_next_steps(shop)
