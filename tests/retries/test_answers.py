"""The staff queue: what no machine can find out is asked once, with all that is known, and answers are carried out."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from django.db import connection

from accounts.models import User
from invoices.models import ReviewItem, Transaction
from invoices.services.ledger import Stamp
from invoices.services.reviews import review_take
from invoices.states import ReviewKind
from recovery_site.common.errors import Conflict, InvalidInput, NotFound
from retries.models import RetryJob
from retries.services import answers as answers_module
from retries.services.answers import review_answer
from tests.retries.refunding import (
    alerts,
    ask,
    assert_clean,
    assert_ledger,
    charge_at_provider,
    collected,
    moved_back,
    question,
    refund_of,
    refunds,
    sandbox_tells,
    shown,
    totals,
)
from tests.retries.refunding import sandbox as sandbox
from tests.support.shop import Shop
from tests.support.stripe import Bill

pytestmark = pytest.mark.django_db(transaction=True)
DAY = timedelta(days=1)


def answer(shop: Shop, item: ReviewItem, choice: str, actor: str = "user:bob", note: str = "looked it up") -> None:
    stamp = Stamp(actor=actor, cause="staff queue", now=shop.at)
    review_answer(item_pk=item.pk, answer=choice, stamp=stamp, note=note)


def silence(shop: Shop) -> Callable[[], None]:
    """The provider cannot be read any more, until the returned function is called."""
    url = shop.connection.base_url

    def switch(to: str) -> None:
        shop.connection.base_url = to
        shop.connection.save(update_fields=["base_url"])

    switch("http://127.0.0.1:9")
    return lambda: switch(url)


# --- a charge that nobody knows about ---------------------------------------------------------------


def unknown_for_a_day(shop: Shop, step: str) -> tuple[Bill, Callable[[], None]]:
    bill = shop.failed_bill()
    shop.sandbox.script(bill.token, step, "ok")
    assert shop.retry(bill).unknown == 1
    shop.expire_leases()
    speak = silence(shop)
    shop.wait(hours=24)
    assert shop.reconcile().charges["waiting"] == 1
    assert (shop.reviews(bill), shop.case(bill).next_step) == ([], "resolving")
    shop.wait(seconds=1)
    assert shop.reconcile().charges["staff"] == 1
    return bill, speak


def test_unknown_charge_becomes_a_question_after_a_day(shop: Shop) -> None:
    bill, _ = unknown_for_a_day(shop, "timeout_before")
    attempt, item = shop.attempt(bill), question(shop, bill)
    assert (item.kind, item.subject_id, item.choices) == (
        "unknown_attempt",
        attempt.public_id,
        ["charged", "not_charged"],
    )
    assert item.facts == {
        "why": "The sandbox cannot be read now (NewConnectionError); check that it runs and try again.",
        "amount_minor": 2500,
        "currency": "USD",
        "sent_at": attempt.attempted_at.isoformat(),
        "reference": attempt.public_id,
        "provider_id": "",
    }
    assert (attempt.status, alerts(shop, bill)) == ("UNKNOWN", ["unknown_attempt"])
    assert (shop.case(bill).next_step, shop.case(bill).next_step_at) == ("staff", None)
    assert shop.case(bill).why == f"A person has to find out: {item.facts['why']}"
    shop.wait(hours=23)
    shop.reconcile()
    assert (alerts(shop, bill), shop.reviews(bill)) == (["unknown_attempt"], ["unknown_attempt"])
    assert_clean(shop)


@pytest.mark.parametrize("choice", ["charged", "not_charged"])
def test_staff_resolve_an_unknown_charge(shop: Shop, choice: str) -> None:
    bill, speak = unknown_for_a_day(shop, {"charged": "timeout_after_charge", "not_charged": "timeout_before"}[choice])
    speak()
    item = question(shop, bill)
    answer(shop, item, choice)
    item.refresh_from_db()
    assert (item.resolution, item.resolved_by, item.resolved_at, item.note) == (
        choice,
        "user:bob",
        shop.at,
        "looked it up",
    )
    audited = shop.invoice(bill).events.get(kind="staff.resolve")
    assert (audited.actor, audited.subject_id) == ("user:bob", shop.attempt(bill).public_id)
    assert audited.data == {"answer": choice, "note": "looked it up"}
    if choice == "charged":
        assert (shop.attempt(bill).status, totals(shop, bill)) == ("SUCCEEDED", ("SETTLED", 2500, 0))
        assert shop.case(bill).status == "RECOVERED"
    else:
        assert (shop.attempt(bill).status, shop.attempt(bill).counts) == ("ERRORED", True)
        assert shop.case(bill).next_step == "booked"
        shop.wait_for(bill)
        assert shop.drain().succeeded == 1
    assert (totals(shop, bill), shop.charged(bill)) == (("SETTLED", 2500, 0), 2500)
    with pytest.raises(NotFound, match="already answered"):
        answer(shop, item, choice)
    assert shop.reconcile().charges["adopted"] == 0
    assert_clean(shop)


def test_provider_that_speaks_again_answers_the_question_itself(shop: Shop) -> None:
    bill, speak = unknown_for_a_day(shop, "timeout_after_charge")
    item = question(shop, bill)
    speak()
    shop.wait(hours=25)
    assert shop.reconcile().charges["adopted"] == 1
    item.refresh_from_db()
    assert (item.resolution, item.resolved_by) == ("answered_by_events", "system:reconcile")
    assert (totals(shop, bill), shop.charged(bill), shop.reviews(bill)) == (("SETTLED", 2500, 0), 2500, [])
    with pytest.raises(NotFound):
        answer(shop, item, "not_charged")
    assert_clean(shop)


def test_staff_said_not_charged_and_the_provider_proves_the_opposite(shop: Shop) -> None:
    """The wrong answer costs a second charge, but not in silence: both are recorded and a refund is offered."""
    bill, speak = unknown_for_a_day(shop, "timeout_after_charge")
    first = shop.attempt(bill)
    speak()
    answer(shop, question(shop, bill), "not_charged")
    shop.wait_for(bill)
    assert shop.drain().succeeded == 1
    (charge, _) = shop.sandbox.charges(bill.customer)
    sandbox_tells(shop, "charge.succeeded", shown(shop, "charge", charge["id"]))
    shop.process()
    first.refresh_from_db()
    assert (first.status, totals(shop, bill)) == ("SUCCEEDED", ("SETTLED", 5000, 0))
    assert (shop.reviews(bill), shop.charged(bill)) == (["paid_twice"], 5000)
    assert alerts(shop, bill) == ["unknown_attempt", "late_success", "paid_twice"]
    answer(shop, question(shop, bill), "refund")
    assert shop.drain().succeeded == 1
    assert (totals(shop, bill), moved_back(shop, bill)) == (("SETTLED", 5000, 2500), 2500)
    assert_clean(shop)


# --- a settlement that does not come ----------------------------------------------------------------


def awaited(shop: Shop) -> Bill:
    bill = shop.failed_bill()
    shop.sandbox.script(bill.token, "pending", "ok")
    assert shop.retry(bill).awaiting == 1
    assert (shop.case(bill).next_step, shop.case(bill).next_step_at) == ("awaiting", shop.at + 5 * DAY)
    return bill


@pytest.mark.parametrize(("end", "status"), [("succeeded", "SETTLED"), ("declined", "PROCESSING")])
def test_early_answer_ends_the_wait(shop: Shop, end: str, status: str) -> None:
    bill = awaited(shop)
    shop.sandbox.settle(shop.attempt(bill).provider_id or "", end, "insufficient_funds" if end == "declined" else "")
    shop.wait(days=2)
    assert shop.reconcile().charges["adopted"] == 0
    sandbox_tells(shop, f"charge.{end}", shown(shop, "charge", shop.attempt(bill).provider_id or ""))
    assert shop.process().processed == 1
    assert shop.invoice(bill).status == status
    assert shop.case(bill).next_step == {"succeeded": "none", "declined": "booked"}[end]
    shop.wait(days=4)
    assert shop.reconcile().charges["adopted"] == 0
    assert_clean(shop)


def test_settlement_is_read_when_it_is_due_extended_once_and_then_asked_of_staff(shop: Shop) -> None:
    bill = awaited(shop)
    sent = shop.at
    shop.wait_until(sent + 5 * DAY - timedelta(seconds=1))
    assert shop.reconcile().charges["waiting"] == 0
    shop.wait(seconds=1)
    assert shop.reconcile().charges["waiting"] == 1
    assert (shop.attempt(bill).expected_by, shop.attempt(bill).extended) == (sent + 10 * DAY, True)
    assert (shop.case(bill).next_step, shop.case(bill).next_step_at) == ("awaiting", sent + 10 * DAY)
    shop.wait(days=5)
    assert shop.reconcile().charges["staff"] == 1
    item = question(shop, bill)
    assert (item.kind, item.choices) == ("overdue_settlement", ["charged", "not_charged"])
    assert item.facts["provider_id"] == shop.attempt(bill).provider_id
    assert (shop.attempt(bill).status, shop.case(bill).next_step) == ("AWAITING", "staff")
    assert alerts(shop, bill) == ["overdue_settlement"]
    # It never becomes a new charge.
    shop.wait(days=3)
    assert (shop.drain().claimed, RetryJob.objects.filter(status="SCHEDULED").count()) == (0, 0)
    assert_clean(shop)


@pytest.mark.parametrize("choice", ["charged", "not_charged", "late"])
def test_overdue_settlement_is_answered_by_staff_or_by_the_bank_after_all(shop: Shop, choice: str) -> None:
    bill = awaited(shop)
    shop.wait(days=5)
    shop.reconcile()
    shop.wait(days=5)
    shop.reconcile()
    item = question(shop, bill)
    if choice == "late":
        shop.sandbox.settle(shop.attempt(bill).provider_id or "")
        shop.wait(days=1, minutes=1)
        assert shop.reconcile().charges["adopted"] == 1
        item.refresh_from_db()
        assert item.resolution == "answered_by_events"
    else:
        answer(shop, item, choice)
    if choice == "not_charged":
        assert (shop.attempt(bill).status, shop.case(bill).next_step) == ("ERRORED", "booked")
    else:
        assert (shop.attempt(bill).status, totals(shop, bill)) == ("SUCCEEDED", ("SETTLED", 2500, 0))
    assert shop.reviews(bill) == []


def test_bank_that_cannot_be_read_does_not_hold_a_settlement_up_for_ever(shop: Shop) -> None:
    bill = awaited(shop)
    silence(shop)
    for days, kind in ((5, []), (1, []), (4, []), (1, ["overdue_settlement"])):
        shop.wait(days=days, seconds=1)
        shop.reconcile()
        assert shop.reviews(bill) == kind
    assert shop.attempt(bill).status == "AWAITING"


# --- money that nobody asked for --------------------------------------------------------------------


def test_paid_twice_is_refunded_in_one_click(shop: Shop) -> None:
    bill = collected(shop)
    again = charge_at_provider(shop, bill, 2500)
    shop.tell(bill.attempt(shop.at, charge=again).charge_succeeded())
    assert (totals(shop, bill), alerts(shop, bill)) == (("SETTLED", 5000, 0), ["paid_twice"])
    first, second = Transaction.objects.filter(invoice=shop.invoice(bill), kind="CHARGE", status="DONE").order_by("id")
    item = question(shop, bill)
    assert (item.kind, item.subject_id, item.choices) == ("paid_twice", second.public_id, ["refund", "keep"])
    assert second.duplicate_of == first
    assert item.facts == {
        "captured_minor": 2500,
        "currency": "USD",
        "invoice_amount_minor": 2500,
        "invoice_currency": "USD",
        "invoice_status": "SETTLED",
    }
    answer(shop, item, "refund")
    assert (refund_of(shop, bill).refund_of, refund_of(shop, bill).reason) == (second, "Paid twice")
    assert shop.drain().succeeded == 1
    assert (totals(shop, bill), moved_back(shop, bill)) == (("SETTLED", 5000, 2500), 2500)
    assert shop.reviews(bill) == []


def test_paid_after_cancel_is_refunded_in_one_click(shop: Shop) -> None:
    bill = shop.failed_bill()
    shop.cancel(bill)
    late = charge_at_provider(shop, bill, 2500)
    shop.tell(bill.attempt(shop.at, charge=late).charge_succeeded())
    assert (totals(shop, bill), shop.reviews(bill)) == (("CANCELED", 2500, 0), ["paid_after_cancel"])
    answer(shop, question(shop, bill), "refund")
    shop.drain()
    assert (totals(shop, bill), moved_back(shop, bill)) == (("CANCELED", 2500, 2500), 2500)


def test_of_an_overpayment_only_the_surplus_goes_back(shop: Shop) -> None:
    bill = shop.failed_bill()
    paid = charge_at_provider(shop, bill, 3100)
    shop.tell(bill.attempt(shop.at, charge=paid, amount=3100).charge_succeeded())
    assert (totals(shop, bill), alerts(shop, bill)) == (("SETTLED", 3100, 0), ["overpaid"])
    answer(shop, question(shop, bill), "refund")
    assert refunds(shop, bill) == [("INIT", 600)]
    shop.drain()
    assert (totals(shop, bill), moved_back(shop, bill)) == (("SETTLED", 3100, 600), 600)


def test_money_in_another_currency_pays_nothing_and_is_refunded_in_one_click(shop: Shop) -> None:
    bill = shop.failed_bill()
    paid = charge_at_provider(shop, bill, 2500, "EUR")
    shop.tell(bill.attempt(shop.at, charge=paid, currency="eur").charge_succeeded())
    assert (totals(shop, bill), shop.invoice(bill).due_minor) == (("PROCESSING", 0, 0), 2500)
    assert (shop.reviews(bill), alerts(shop, bill)) == (["wrong_currency"], ["wrong_currency"])
    assert shop.case(bill).next_step == "staff"
    assert (shop.drain().claimed, RetryJob.objects.filter(status="SCHEDULED").count()) == (0, 0)
    answer(shop, question(shop, bill), "refund")
    assert (refund_of(shop, bill).amount_minor, refund_of(shop, bill).currency) == (2500, "EUR")
    assert shop.drain().succeeded == 1
    assert moved_back(shop, bill) == 2500
    # The debt stands, so recovery goes on.
    shop.reconcile()
    assert shop.case(bill).next_step == "booked"
    shop.wait_for(bill)
    assert shop.drain().succeeded == 1
    assert totals(shop, bill)[:2] == ("SETTLED", 2500)


def test_part_of_a_payment_leaves_the_rest_owed(shop: Shop) -> None:
    bill = shop.failed_bill()
    paid = charge_at_provider(shop, bill, 900)
    shop.tell(bill.attempt(shop.at, charge=paid, captured=900).charge_succeeded())
    (charge,) = Transaction.objects.filter(invoice=shop.invoice(bill), kind="CHARGE", status="DONE")
    assert (charge.amount_minor, charge.captured_minor) == (2500, 900)
    assert (totals(shop, bill), shop.invoice(bill).due_minor) == (("PROCESSING", 900, 0), 1600)
    shop.wait_for(bill)
    assert shop.drain().succeeded == 1
    assert (totals(shop, bill), shop.charged(bill)) == (("SETTLED", 2500, 0), 2500)


@pytest.mark.parametrize("kind", ["paid_twice", "paid_after_cancel", "overpaid"])
def test_money_may_be_kept(shop: Shop, kind: str) -> None:
    bill = shop.failed_bill()
    if kind == "paid_after_cancel":
        shop.cancel(bill)
    amount = 2600 if kind == "overpaid" else 2500
    for _ in range(2 if kind == "paid_twice" else 1):
        paid = charge_at_provider(shop, bill, amount)
        shop.tell(bill.attempt(shop.at, charge=paid, amount=amount).charge_succeeded())
    item = question(shop, bill)
    assert item.kind == kind
    answer(shop, item, "keep", note="a tip")
    item.refresh_from_db()
    assert (item.resolution, item.note, shop.reviews(bill), refunds(shop, bill)) == ("keep", "a tip", [], [])
    assert (shop.drain().claimed, moved_back(shop, bill)) == (0, 0)


def test_remedy_that_the_world_has_overtaken_leaves_the_question_open(shop: Shop) -> None:
    """The bank takes the second payment back before anybody clicks: a refund would give it back twice."""
    bill = collected(shop)
    again = charge_at_provider(shop, bill, 2500)
    told = bill.attempt(shop.at, charge=again)
    shop.tell(told.charge_succeeded(), told.dispute("needs_response", shop.at))
    item = question(shop, bill, "paid_twice")
    with pytest.raises(Conflict, match="would give it back twice"):
        answer(shop, item, "refund")
    item.refresh_from_db()
    assert (item.resolved_at, refunds(shop, bill)) == (None, [])
    answer(shop, item, "keep")
    assert shop.reviews(bill) == []


# --- a second person, by way of the queue -----------------------------------------------------------


@pytest.mark.parametrize("choice", ["approve", "refuse"])
def test_large_refund_is_decided_in_the_queue_by_somebody_else(shop: Shop, choice: str) -> None:
    shop.merchant.refund_approval_above_minor = 0
    shop.merchant.save(update_fields=["refund_approval_above_minor"])
    bill = collected(shop)
    ask(shop, bill, actor="user:ann")
    item = question(shop, bill)
    if choice == "approve":
        with pytest.raises(Conflict, match="somebody else"):
            answer(shop, item, "approve", actor="user:ann")
        assert shop.reviews(bill) == ["refund_approval"]
    answer(shop, item, choice)
    shop.drain()
    assert refunds(shop, bill) == [("DONE" if choice == "approve" else "FAILED", 2500)]
    assert moved_back(shop, bill) == (2500 if choice == "approve" else 0)
    assert_clean(shop)


def test_asking_for_a_refund_through_the_queue_needs_the_second_person_too(shop: Shop) -> None:
    shop.merchant.refund_approval_above_minor = 1000
    shop.merchant.save(update_fields=["refund_approval_above_minor"])
    bill = collected(shop)
    again = charge_at_provider(shop, bill, 2500)
    shop.tell(bill.attempt(shop.at, charge=again).charge_succeeded())
    answer(shop, question(shop, bill), "refund", actor="user:ann")
    assert (shop.reviews(bill), shop.drain().claimed) == (["refund_approval"], 0)
    with pytest.raises(Conflict):
        answer(shop, question(shop, bill), "approve", actor="user:ann")
    answer(shop, question(shop, bill), "approve", actor="user:bob")
    assert shop.drain().succeeded == 1
    assert moved_back(shop, bill) == 2500


# --- the queue itself -------------------------------------------------------------------------------


def test_every_kind_of_question_has_its_answers() -> None:
    assert set(answers_module._ANSWERS) == set(ReviewKind)


def test_foreign_answers_are_refused_and_change_nothing(shop: Shop) -> None:
    bill, _ = unknown_for_a_day(shop, "timeout_before")
    item = question(shop, bill)
    with pytest.raises(InvalidInput, match="'refund' is not one of the answers: charged, not_charged"):
        answer(shop, item, "refund")
    with pytest.raises(NotFound):
        review_answer(item_pk=10**9, answer="charged", stamp=shop.staff())
    item.refresh_from_db()
    assert (item.resolved_at, shop.attempt(bill).status) == (None, "UNKNOWN")


def test_two_people_answer_at_once_and_one_of_them_is_told_so(shop: Shop) -> None:
    bill, _ = unknown_for_a_day(shop, "timeout_before")
    item = question(shop, bill)
    gate = threading.Barrier(2)

    def click(number: int) -> str:
        gate.wait(60)
        try:
            answer(shop, item, ("charged", "not_charged")[number], actor=f"user:{number}")
        except (Conflict, NotFound) as error:
            return type(error).__name__
        finally:
            connection.close()
        return "done"

    with ThreadPoolExecutor(2) as pool:
        ends = sorted(pool.map(click, range(2)))
    assert ends[1] == "done"
    assert ends[0] in ("Conflict", "NotFound")
    assert shop.invoice(bill).events.filter(kind="staff.resolve").count() == 1
    item.refresh_from_db()
    expected = {"charged": "SUCCEEDED", "not_charged": "ERRORED"}[item.resolution]
    assert shop.attempt(bill).status == expected
    assert_ledger(shop)


def test_question_is_taken_by_a_person_and_given_back(shop: Shop) -> None:
    bill, _ = unknown_for_a_day(shop, "timeout_before")
    item, ann = question(shop, bill), User.objects.create_user("ann", password="pass-word-1")
    review_take(item_pk=item.pk, user_pk=ann.pk, now=shop.at)
    item.refresh_from_db()
    assert item.owner == ann
    review_take(item_pk=item.pk, user_pk=None, now=shop.at)
    item.refresh_from_db()
    assert item.owner is None
    answer(shop, item, "not_charged")
    with pytest.raises(Conflict, match="already answered"):
        review_take(item_pk=item.pk, user_pk=ann.pk, now=shop.at)


def test_question_that_waits_too_long_raises_one_alert(shop: Shop, settings: pytest.FixtureRequest) -> None:
    settings.STAFF_QUEUE_ALERT_AFTER = timedelta(hours=6)  # type: ignore[attr-defined]
    bill = collected(shop)
    again = charge_at_provider(shop, bill, 2500)
    shop.tell(bill.attempt(shop.at, charge=again).charge_succeeded())
    item = question(shop, bill)
    shop.wait(hours=5, minutes=59)
    assert shop.reconcile().reminded == 0
    shop.wait(minutes=1)
    assert shop.reconcile().reminded == 1
    assert alerts(shop, bill) == ["paid_twice", "staff_waits"]
    event = shop.invoice(bill).events.get(kind="alert.staff_waits")
    assert (event.subject_type, event.subject_id, event.occurred_at) == ("review", item.public_id, shop.at)
    assert event.data == {"text": "Paid twice: nobody has decided for 6 hours.", "kind": "paid_twice"}
    shop.wait(days=9)
    assert shop.reconcile().reminded == 0
    answer(shop, item, "keep")
    shop.wait(days=9)
    assert shop.reconcile().reminded == 0
    assert_ledger(shop)


def test_question_that_is_answered_in_time_raises_none(shop: Shop) -> None:
    bill = collected(shop)
    again = charge_at_provider(shop, bill, 2500)
    shop.tell(bill.attempt(shop.at, charge=again).charge_succeeded())
    shop.wait(hours=23)
    answer(shop, question(shop, bill), "keep")
    shop.wait(hours=23)
    assert shop.reconcile().reminded == 0
    assert alerts(shop, bill) == ["paid_twice"]
