"""What people may do to an invoice, and what they are refused with a sentence that says what to do."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from invoices.models import Attempt
from recovery_site.common.errors import Conflict, NotFound
from retries.engine import drain
from retries.engine.claim import jobs_claim
from retries.models import Case, RetryJob
from retries.services.manual import attempt_resolve, case_resume, legal_actions, retry_now
from tests.support.books import assert_chain, assert_next_steps, assert_promises, assert_slots
from tests.support.shop import Shop
from tests.support.stripe import Bill
from tokens.models import Card

DAY = timedelta(days=1)
plain = pytest.mark.django_db
charging = pytest.mark.django_db(transaction=True)


def kinds(shop: Shop, bill: Bill) -> list[str]:
    events = shop.invoice(bill).events.filter(kind__startswith="staff.").order_by("seq")
    return list(events.values_list("kind", flat=True))


def resume_as(shop: Shop, bill: Bill, actor: str) -> None:
    case_resume(invoice_pk=shop.invoice(bill).pk, stamp=replace(shop.staff(), actor=actor), reason="go on")


@charging
def test_a_manual_retry_is_booked_at_once_charged_and_audited(shop: Shop) -> None:
    bill = shop.failed_bill()
    shop.wait(hours=1)
    job = shop.retry_now(bill)
    assert (job.status, job.trigger, job.due_at, job.requested_by) == ("SCHEDULED", "staff", shop.at, "user:ann")
    assert shop.drain().succeeded == 1
    attempt = shop.attempt(bill)
    assert (attempt.trigger, attempt.decision["kind"]) == ("staff", "staff")
    assert (shop.case(bill).status, shop.case(bill).recovered_by) == ("RECOVERED", "staff")
    event = shop.invoice(bill).events.get(kind="staff.retry")
    assert (event.actor, event.data["reason"]) == ("user:ann", "customer called")
    assert_promises(shop)


@charging
def test_a_manual_retry_can_be_booked_for_later_with_a_chosen_card(shop: Shop) -> None:
    bill = shop.failed_bill("tok_decline_insufficient_funds")
    spare = shop.bill(customer=bill.customer)
    shop.tell(spare.method_attached(shop.at))
    due = shop.at + 5 * DAY
    job = shop.retry_now(bill, token_pk=shop.token(spare).pk, due_at=due)
    assert (job.due_at, job.token, job.status) == (due, shop.token(spare), "SCHEDULED")
    shop.wait(days=4)
    assert shop.drain().claimed == 0
    shop.wait(days=1)
    assert shop.drain().succeeded == 1
    assert [charge["token"] for charge in shop.sandbox.charges(bill.customer)] == [spare.token]


@charging
def test_a_manual_retry_is_not_booked_for_years_ahead(shop: Shop) -> None:
    bill = shop.failed_bill()
    with pytest.raises(Conflict, match="at most a year ahead"):
        shop.retry_now(bill, due_at=shop.at + timedelta(days=367))
    assert shop.job(bill).trigger == "automatic"
    assert shop.retry_now(bill, due_at=shop.at + timedelta(days=365)).trigger == "staff"


@charging
def test_a_manual_retry_that_is_declined_goes_on_with_the_plan(shop: Shop) -> None:
    bill = shop.failed_bill("tok_decline_do_not_honor")
    shop.retry_now(bill)
    assert shop.drain().declined == 1
    assert (shop.case(bill).next_step, shop.job(bill).trigger) == ("booked", "automatic")
    assert_promises(shop)


@plain
@pytest.mark.parametrize("state", ["settled", "canceled", "refunded"])
def test_a_closed_invoice_is_not_retried(shop: Shop, state: str) -> None:
    bill = shop.bill()
    paid = bill.attempt()
    if state == "canceled":
        shop.tell(*paid.failed(), bill.voided(shop.wait(hours=1)))
    else:
        shop.tell(*paid.succeeded())
    if state == "refunded":
        shop.tell(paid.refund("a", 2500, shop.wait(hours=1)))
    with pytest.raises(Conflict, match="nothing is due that could be retried"):
        shop.retry_now(bill)
    assert not RetryJob.objects.filter(merchant=shop.merchant).exclude(status="CANCELED").exists()
    assert kinds(shop, bill) == []


@charging
@pytest.mark.parametrize("step", ["timeout_after_charge", "pending"])
def test_while_a_result_is_open_nobody_charges_again(shop: Shop, step: str) -> None:
    bill = shop.failed_bill()
    shop.sandbox.script(bill.token, step)
    shop.retry(bill)
    with pytest.raises(Conflict, match="result of an earlier charge is still open"):
        shop.retry_now(bill)
    assert len(shop.sandbox.charges(bill.customer)) == 1


@plain
def test_while_a_retry_runs_nobody_books_another(shop: Shop) -> None:
    bill = shop.failed_bill()
    shop.wait_for(bill)
    assert len(jobs_claim(now=shop.at, lease=timedelta(minutes=5), limit=1)) == 1
    with pytest.raises(Conflict, match="running right now"):
        shop.retry_now(bill)


@plain
def test_a_dead_card_is_refused_with_its_reason(shop: Shop) -> None:
    bill = shop.failed_bill(code="lost_card")
    with pytest.raises(Conflict, match="choose another payment method"):
        shop.retry_now(bill)
    with pytest.raises(Conflict, match="choose another payment method"):
        shop.retry_now(bill, token_pk=shop.token(bill).pk)


@plain
def test_a_card_of_somebody_else_cannot_be_chosen(shop: Shop) -> None:
    bill, other = shop.failed_bill(), shop.failed_bill()
    with pytest.raises(Conflict, match="no payment method"):
        shop.retry_now(bill, token_pk=shop.token(other).pk)


@plain
def test_a_networks_limit_binds_people_too(shop: Shop) -> None:
    bill = shop.failed_bill()
    Card.objects.filter(pk=shop.card(bill).pk).update(wait_until=shop.at + 3 * DAY)
    with pytest.raises(Conflict, match="may not be charged before 2026-03-05 09:00 UTC"):
        shop.retry_now(bill)
    assert shop.retry_now(bill, due_at=shop.at + 3 * DAY).due_at == shop.at + 3 * DAY


@plain
@pytest.mark.parametrize("config", [{"mode": "observe"}, {"take_over": "never"}])
def test_where_we_never_charge_people_do_not_either(new_shop: Callable[..., Shop], config: dict[str, str]) -> None:
    shop = new_shop(**config)
    bill = shop.failed_bill()
    with pytest.raises(Conflict, match="leaves charging to its provider"):
        shop.retry_now(bill)
    assert not RetryJob.objects.filter(merchant=shop.merchant).exists()


@plain
def test_the_policys_number_of_manual_retries_is_a_limit(shop: Shop) -> None:
    bill = shop.failed_bill()
    attempt = shop.attempts(bill)[0]
    for number in range(10):
        Attempt.objects.create(
            merchant=shop.merchant,
            connection=shop.connection,
            customer=attempt.customer,
            invoice=attempt.invoice,
            transaction=attempt.transaction,
            origin="OURS",
            trigger="staff",
            number=number + 2,
            amount_minor=2500,
            currency="USD",
            idempotency_key=f"key-{number}",
            attempted_at=shop.at + timedelta(minutes=number),
        )
        Attempt.objects.filter(idempotency_key=f"key-{number}").update(status="DECLINED", counts=False)
    with pytest.raises(Conflict, match="10 manual retries of this case are used up"):
        shop.retry_now(bill)


@plain
def test_an_unknown_invoice_is_not_found(shop: Shop) -> None:
    with pytest.raises(NotFound):
        retry_now(invoice_pk=2**60, stamp=shop.staff(), reason="x")


@charging
def test_a_lost_case_is_taken_up_again_by_staff(shop: Shop) -> None:
    bill = shop.failed_bill(code="fraudulent")
    assert shop.case(bill).status == "LOST"
    spare = shop.bill(customer=bill.customer)
    shop.tell(spare.method_attached(shop.wait(days=1)))
    assert not RetryJob.objects.filter(merchant=shop.merchant).exists()
    shop.retry_now(bill, token_pk=shop.token(spare).pk)
    assert Case.objects.filter(merchant=shop.merchant, status="OPEN").count() == 1
    assert shop.drain().succeeded == 1
    assert (shop.invoice(bill).status, shop.case(bill).status) == ("SETTLED", "RECOVERED")


# --- pause and resume ---------------------------------------------------------------------------------------------


@charging
def test_a_paused_invoice_is_not_charged_until_it_is_resumed(shop: Shop) -> None:
    bill = shop.failed_bill()
    shop.pause(bill)
    case = shop.case(bill)
    assert (case.paused_by, case.next_step, shop.job(bill).status) == ("user:ann", "paused", "PAUSED")
    shop.wait(days=3)
    assert shop.drain().claimed == 0
    shop.resume(bill)
    assert (shop.case(bill).paused_by, shop.job(bill).status, shop.job(bill).due_at) == ("", "SCHEDULED", shop.at)
    assert shop.drain().succeeded == 1
    assert kinds(shop, bill) == ["staff.pause", "staff.resume"]
    assert_promises(shop)


@charging
def test_a_manual_retry_that_a_pause_stopped_is_booked_again(shop: Shop) -> None:
    bill = shop.failed_bill()
    spare = shop.bill(customer=bill.customer)
    shop.tell(spare.method_attached(shop.at))
    due = shop.at + 5 * DAY
    shop.retry_now(bill, token_pk=shop.token(spare).pk, due_at=due)
    shop.pause(bill)
    shop.wait(days=1)
    resume_as(shop, bill, "user:bob")
    job, case = shop.job(bill), shop.case(bill)
    assert (job.status, job.trigger, job.due_at, job.token) == ("SCHEDULED", "staff", due, shop.token(spare))
    assert (job.requested_by, job.decision["reason"]) == ("user:ann", "customer called")
    assert (case.next_step, case.next_step_at, case.paused_by) == ("booked", due, "")
    assert shop.invoice(bill).events.get(kind="staff.resume").actor == "user:bob"
    assert kinds(shop, bill) == ["staff.retry", "staff.pause", "staff.resume"]
    shop.wait_until(due - DAY)
    assert shop.drain().claimed == 0
    shop.wait_until(due)
    assert shop.drain().succeeded == 1
    assert [charge["token"] for charge in shop.sandbox.charges(bill.customer)] == [spare.token]
    assert_promises(shop)


@plain
def test_a_manual_retry_whose_time_went_by_during_the_pause_is_due_at_once(shop: Shop) -> None:
    bill = shop.failed_bill()
    shop.retry_now(bill, due_at=shop.at + DAY)
    shop.pause(bill)
    shop.wait(days=3)
    shop.resume(bill)
    assert (shop.job(bill).status, shop.job(bill).trigger, shop.job(bill).due_at) == ("SCHEDULED", "staff", shop.at)
    assert_next_steps(shop)


@plain
def test_a_manual_retry_that_may_not_be_made_any_more_is_planned_anew_and_the_case_says_why(shop: Shop) -> None:
    bill = shop.failed_bill()
    spare = shop.bill(customer=bill.customer)
    shop.tell(spare.method_attached(shop.at))
    shop.retry_now(bill, token_pk=shop.token(spare).pk, due_at=shop.at + 5 * DAY)
    shop.pause(bill)
    shop.tell(spare.method_detached(shop.wait(hours=1)))
    shop.resume(bill)
    job, case = shop.job(bill), shop.case(bill)
    assert (job.status, job.trigger, job.token) == ("SCHEDULED", "automatic", shop.token(bill))
    assert (case.next_step, case.next_step_at) == ("booked", job.due_at)
    assert case.why.startswith(f"The manual retry for {job.due_at:%Y}")
    assert "was not booked again: " in case.why
    assert case.why.endswith(job.why)
    assert_next_steps(shop)


@charging
def test_a_manual_retry_that_was_tried_is_not_taken_up_again(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    bill = shop.failed_bill("tok_decline_insufficient_funds")
    shop.retry_now(bill)
    send = drain.charge_send

    def paused_meanwhile(*given: Any, **known: Any) -> Any:
        shop.pause(bill)
        return send(*given, **known)

    monkeypatch.setattr(drain, "charge_send", paused_meanwhile)
    assert shop.drain().declined == 1
    assert (shop.job(bill).status, shop.job(bill).trigger) == ("PAUSED", "staff")
    shop.resume(bill)
    assert (shop.job(bill).status, shop.job(bill).trigger) == ("SCHEDULED", "automatic")
    assert_promises(shop)


@plain
def test_a_claimed_retry_can_still_be_paused(shop: Shop) -> None:
    bill = shop.failed_bill()
    shop.wait_for(bill)
    assert len(jobs_claim(now=shop.at, lease=timedelta(minutes=5), limit=1)) == 1
    shop.pause(bill)
    assert (shop.job(bill).status, shop.job(bill).claim_token, shop.case(bill).next_step) == ("PAUSED", None, "paused")
    assert_next_steps(shop)


@plain
def test_news_about_a_paused_invoice_does_not_wake_it(shop: Shop) -> None:
    bill = shop.failed_bill()
    shop.pause(bill)
    shop.tell(bill.attempt(shop.wait(hours=1), code="do_not_honor").charge_failed())
    shop.tell(shop.bill(customer=bill.customer).method_attached(shop.wait(hours=1)))
    assert (shop.case(bill).next_step, shop.job(bill).status) == ("paused", "PAUSED")
    assert_next_steps(shop)


@plain
def test_pausing_twice_or_resuming_what_runs_is_refused(shop: Shop) -> None:
    bill = shop.failed_bill()
    with pytest.raises(Conflict, match="is not paused"):
        shop.resume(bill)
    shop.pause(bill)
    with pytest.raises(Conflict, match="already paused by user:ann"):
        shop.pause(bill)
    shop.cancel(bill)
    with pytest.raises(Conflict, match="no open case"):
        shop.pause(bill)


# --- cancel -------------------------------------------------------------------------------------------------------


@plain
@pytest.mark.parametrize("write_off", [False, True])
def test_canceling_ends_everything_that_was_planned(shop: Shop, write_off: bool) -> None:
    bill = shop.failed_bill()
    shop.cancel(bill, write_off=write_off)
    invoice, case = shop.invoice(bill), shop.case(bill)
    reason = "written_off" if write_off else "canceled"
    assert (invoice.status, invoice.cancel_reason) == ("CANCELED", reason)
    assert (case.status, case.next_step) == ("WRITTEN_OFF" if write_off else "CANCELED", "none")
    assert (shop.job(bill).status, shop.job(bill).transaction.status) == ("CANCELED", "CANCELED")
    with pytest.raises(Conflict, match="cannot be canceled"):
        shop.cancel(bill)
    assert_slots(shop)
    assert_chain(invoice)


@charging
@pytest.mark.parametrize(
    ("step", "charge_status", "reviews"),
    [("ok", "DONE", ["paid_after_cancel"]), ("decline:insufficient_funds", "FAILED", [])],
)
def test_a_charge_that_was_pending_at_the_cancellation_ends_as_the_bank_says(
    shop: Shop, step: str, charge_status: str, reviews: list[str]
) -> None:
    bill = shop.failed_bill()
    shop.sandbox.script(bill.token, "pending")
    shop.retry(bill)
    shop.cancel(bill)
    assert shop.attempt(bill).transaction.status == "PROCESSING"
    sent = shop.attempt(bill)
    ours = bill.attempt(shop.wait(days=1), reference=sent.public_id, charge=sent.provider_id)
    shop.tell(ours.charge_succeeded() if step == "ok" else ours.charge_failed())
    assert shop.attempt(bill).transaction.status == charge_status
    assert (shop.invoice(bill).status, shop.reviews(bill)) == ("CANCELED", reviews)
    assert shop.case(bill).status == "CANCELED"


# --- what only a person can know ----------------------------------------------------------------------------------


@charging
@pytest.mark.parametrize("charged", [True, False])
def test_staff_say_what_became_of_an_unknown_charge(new_shop: Callable[..., Shop], charged: bool) -> None:
    shop = new_shop(timeout_seconds=0.5)
    bill = shop.failed_bill()
    shop.sandbox.script(bill.token, "timeout_after_charge" if charged else "timeout_before")
    shop.retry(bill)
    shop.expire_leases()
    attempt_resolve(attempt_pk=shop.attempt(bill).pk, charged=charged, stamp=shop.staff(), note="seen in the dashboard")
    assert shop.attempt(bill).status == ("SUCCEEDED" if charged else "ERRORED")
    assert shop.invoice(bill).status == ("SETTLED" if charged else "PROCESSING")
    assert shop.case(bill).next_step == ("none" if charged else "booked")
    assert kinds(shop, bill) == ["staff.resolve"]
    with pytest.raises(Conflict, match="nothing to answer any more"):
        attempt_resolve(attempt_pk=shop.attempt(bill).pk, charged=charged, stamp=shop.staff(), note="again")
    assert_promises(shop)


@plain
def test_the_actions_that_are_offered_are_those_that_work(shop: Shop) -> None:
    bill = shop.failed_bill()
    assert legal_actions(shop.invoice(bill), shop.case(bill)) == {"cancel", "write_off", "retry", "pause"}
    shop.pause(bill)
    assert legal_actions(shop.invoice(bill), shop.case(bill)) == {"cancel", "write_off", "retry", "resume"}
    shop.cancel(bill)
    assert legal_actions(shop.invoice(bill), None) == set()
