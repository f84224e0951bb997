"""The charge protocol against a real provider: what is sent, what is not, and what each answer means."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from accounts.models import GlobalSwitch, Merchant
from invoices.models import Attempt, Connection, Invoice
from invoices.services.parties import connection_switch
from providers.base import ChargeRequest, ChargeResult, ClientTraits, Lookup, Outcome, ProviderUncertain, Settles
from retries.engine import drain
from retries.engine import prepare as preparing
from retries.engine.claim import jobs_claim
from retries.engine.prepare import Prepared, Refused, attempt_prepare
from retries.engine.send import charge_record, charge_send
from retries.models import RetryJob
from tests.support.books import assert_promises
from tests.support.shop import Shop
from tests.support.stripe import Bill
from tokens.models import Card, Token

pytestmark = pytest.mark.django_db(transaction=True)
DAY = timedelta(days=1)
LEASE = timedelta(minutes=5)


def prepare(shop: Shop, *, timeout: timedelta = timedelta(seconds=5)) -> list[Prepared | Refused]:
    """Steps 1 and 2 as a worker does them."""
    claims = jobs_claim(now=shop.at, lease=LEASE, limit=100)
    return [attempt_prepare(claim, now=shop.at, lease=LEASE, timeout=timeout) for claim in claims]


# --- the road -----------------------------------------------------------------------------------------------------


def test_a_booked_retry_is_charged_once_and_recovers_the_invoice(shop: Shop) -> None:
    bill = shop.failed_bill()
    assert shop.drain().as_dict() == dict.fromkeys(drain.DrainCounts().as_dict(), 0)
    counts = shop.retry(bill)
    assert (counts.claimed, counts.succeeded) == (1, 1)
    invoice, case, attempt = shop.invoice(bill), shop.case(bill), shop.attempt(bill)
    assert (invoice.status, invoice.paid_minor) == ("SETTLED", 2500)
    assert (case.status, case.recovered_by, case.recovered_minor) == ("RECOVERED", "retry", 2500)
    assert case.closed_at == shop.at
    assert (attempt.number, attempt.attempted_at, attempt.trigger) == (2, shop.at, "automatic")
    (charge,) = shop.sandbox.charges(bill.customer)
    assert (charge["amount"], charge["currency"], charge["token"]) == (2500, "USD", bill.token)
    assert (charge["reference"], charge["idempotency_key"]) == (attempt.public_id, f"recovery-{attempt.public_id}")
    assert attempt.provider_id == charge["id"]
    assert_promises(shop)
    assert shop.drain().claimed == 0


def test_the_plan_goes_on_until_it_succeeds(shop: Shop) -> None:
    bill = shop.failed_bill("tok_decline_insufficient_funds_then_ok_1")
    assert shop.retry(bill).declined == 1
    assert (shop.case(bill).next_step, shop.case(bill).next_step_at) == ("booked", shop.at + DAY)
    assert shop.retry(bill).succeeded == 1
    assert [attempt.status for attempt in shop.attempts(bill)] == ["DECLINED", "DECLINED", "SUCCEEDED"]
    assert shop.charged(bill) == 2500
    assert_promises(shop)


def test_the_plan_ends_with_the_policys_last_retry(shop: Shop) -> None:
    bill = shop.failed_bill("tok_decline_insufficient_funds")
    assert (shop.retry(bill).declined, shop.retry(bill).declined) == (1, 1)
    case, invoice = shop.case(bill), shop.invoice(bill)
    assert (case.next_step, case.exhausted_at, invoice.status) == ("customer", shop.at, "PROCESS_FAILED")
    assert (shop.job(bill).status, shop.job(bill).transaction.status) == ("EXHAUSTED", "FAILED")
    assert case.next_step_at == bill.at + 28 * DAY
    assert "exhausted" in shop.alerts(bill)
    shop.wait(days=10)
    assert shop.drain().claimed == 0
    assert_promises(shop)


@pytest.mark.parametrize(
    ("step", "counted", "status", "next_step", "moved"),
    [
        ("ok", "succeeded", "SUCCEEDED", "none", 2500),
        ("slow:0.2", "succeeded", "SUCCEEDED", "none", 2500),
        ("decline:insufficient_funds", "declined", "DECLINED", "booked", 0),
        ("decline:lost_card", "declined", "DECLINED", "customer", 0),
        ("decline:fraudulent", "declined", "DECLINED", "none", 0),
        ("decline:a_code_nobody_knows", "declined", "DECLINED", "booked", 0),
        ("pending", "awaiting", "AWAITING", "awaiting", 0),
        ("timeout_before", "unknown", "UNKNOWN", "resolving", 0),
        ("timeout_after_charge", "unknown", "UNKNOWN", "resolving", 2500),
        ("reset_after_charge", "unknown", "UNKNOWN", "resolving", 2500),
        ("http500_before", "unknown", "UNKNOWN", "resolving", 0),
        ("http500_after_charge", "unknown", "UNKNOWN", "resolving", 2500),
        ("malformed", "unknown", "UNKNOWN", "resolving", 2500),
        ("http429:7200", "rescheduled", "ERRORED", "booked", 0),
    ],
)
def test_every_kind_of_answer(
    new_shop: Callable[..., Shop], step: str, counted: str, status: str, next_step: str, moved: int
) -> None:
    """After a lost reply nobody knows: never a failure, never a new charge, the slot free for other invoices."""
    shop = new_shop(timeout_seconds=0.5)
    bill = shop.failed_bill()
    shop.sandbox.script(bill.token, step)
    counts = shop.retry(bill).as_dict()
    assert {name: count for name, count in counts.items() if count} == {"claimed": 1, counted: 1}
    attempt = shop.attempt(bill)
    assert (attempt.status, shop.case(bill).next_step, shop.charged(bill)) == (status, next_step, moved)
    assert attempt.counts == (status != "ERRORED")
    if status in ("UNKNOWN", "AWAITING"):
        assert shop.job(bill).status == "DONE"
        assert shop.job(bill).transaction.status == "PROCESSING"
        assert shop.drain().claimed == 0
    assert_promises(shop)


def test_an_answer_that_asks_to_wait_is_obeyed(shop: Shop) -> None:
    bill = shop.failed_bill()
    shop.sandbox.script(bill.token, "http429:7200", "ok")
    shop.retry(bill)
    assert shop.job(bill).due_at >= shop.at + timedelta(hours=2)
    assert shop.retry(bill).succeeded == 1
    assert shop.charged(bill) == 2500


def test_nobody_home_is_proof_that_nothing_was_sent(new_shop: Callable[..., Shop]) -> None:
    """Connection refused: ERRORED, no budget used, tried again at once."""
    shop = new_shop()
    bill = shop.failed_bill()
    Connection.objects.filter(pk=shop.connection.pk).update(base_url="http://127.0.0.1:9")
    counts = shop.retry(bill)
    assert (counts.claimed, counts.rescheduled) == (1, 1)
    attempt = shop.attempt(bill)
    assert (attempt.status, attempt.counts, attempt.category) == ("ERRORED", False, "NETWORK_ERROR")
    assert shop.job(bill).due_at == shop.at
    Connection.objects.filter(pk=shop.connection.pk).update(base_url=shop.sandbox.url)
    assert shop.drain().succeeded == 1
    assert shop.charged(bill) == 2500
    assert_promises(shop)


# --- what step 2 refuses ------------------------------------------------------------------------------------------


def cancel(shop: Shop, bill: Bill) -> None:
    Invoice.objects.filter(pk=shop.invoice(bill).pk).update(status="CANCELED")


def pay_outside(shop: Shop, bill: Bill) -> None:
    Invoice.objects.filter(pk=shop.invoice(bill).pk).update(paid_minor=2500)


def change_amount(shop: Shop, bill: Bill) -> None:
    Invoice.objects.filter(pk=shop.invoice(bill).pk).update(amount_minor=2400)


def disable_connection(shop: Shop, bill: Bill) -> None:
    connection_switch(connection_pk=shop.connection.pk, enabled=False)


def kill_merchant(shop: Shop, bill: Bill) -> None:
    Merchant.objects.filter(pk=shop.merchant.pk).update(charging_enabled=False)


def kill_everything(shop: Shop, bill: Bill) -> None:
    GlobalSwitch.objects.update_or_create(defaults={"charging_enabled": False})


def remove_token(shop: Shop, bill: Bill) -> None:
    Token.objects.filter(pk=shop.token(bill).pk).update(status="removed")


def decline_token(shop: Shop, bill: Bill) -> None:
    Token.objects.filter(pk=shop.token(bill).pk).update(status="declined", declined_at=shop.at)


def stop_card(shop: Shop, bill: Bill) -> None:
    Card.objects.filter(pk=shop.card(bill).pk).update(stopped_at=shop.at, stop_code="03")


def make_card_wait(shop: Shop, bill: Bill) -> None:
    Card.objects.filter(pk=shop.card(bill).pk).update(wait_until=shop.at + DAY)


def observe_only(shop: Shop, bill: Bill) -> None:
    Connection.objects.filter(pk=shop.connection.pk).update(mode="observe")


REFUSALS = [
    cancel,
    pay_outside,
    change_amount,
    disable_connection,
    kill_merchant,
    kill_everything,
    remove_token,
    decline_token,
    stop_card,
    make_card_wait,
    observe_only,
]


@pytest.mark.parametrize("happens", REFUSALS, ids=lambda happens: happens.__name__)
def test_what_changes_after_the_claim_stops_the_charge(
    shop: Shop, happens: Callable[[Shop, Bill], None], django_db_serialized_rollback: None
) -> None:
    """Between booking and sending hours pass: everything is asked once more under the locks."""
    bill = shop.failed_bill()
    shop.wait_for(bill)
    (claim,) = jobs_claim(now=shop.at, lease=LEASE, limit=10)
    happens(shop, bill)
    refused = attempt_prepare(claim, now=shop.at, lease=LEASE, timeout=timedelta(seconds=5))
    assert isinstance(refused, Refused)
    assert refused.reason
    assert not Attempt.objects.filter(invoice=shop.invoice(bill), origin="OURS").exists()
    assert shop.sandbox.charges(bill.customer) == []
    job = shop.job(bill)
    assert job.status != "RUNNING"
    assert refused.rebooked == (job.status == "SCHEDULED")


@pytest.mark.parametrize("happens", [disable_connection, kill_merchant, kill_everything])
def test_work_that_may_not_be_charged_now_is_not_even_claimed(
    shop: Shop, happens: Callable[[Shop, Bill], None]
) -> None:
    bill = shop.failed_bill()
    shop.wait_for(bill)
    happens(shop, bill)
    assert shop.drain().claimed == 0
    assert shop.job(bill).status == "SCHEDULED"


def test_another_invoice_of_the_customer_waits_while_a_charge_is_being_sent(shop: Shop) -> None:
    first = shop.failed_bill()
    shop.wait_for(first)
    (sending,) = prepare(shop)
    assert isinstance(sending, Prepared)
    shop.cancel(first)  # gives the slot back, but the charge is on its way
    second = shop.failed_bill(customer=first.customer, code="processing_error")
    shop.wait_for(second)
    counts = shop.drain()
    assert (counts.claimed, counts.rescheduled) == (1, 1)
    assert shop.job(second).due_at == shop.at + timedelta(seconds=30)
    assert shop.sandbox.charges(first.customer) == []


# --- claims and leases --------------------------------------------------------------------------------------------


def test_a_worker_that_lost_its_claim_is_refused(shop: Shop) -> None:
    bill = shop.failed_bill()
    shop.wait_for(bill)
    (stalled,) = jobs_claim(now=shop.at, lease=LEASE, limit=10)
    assert jobs_claim(now=shop.at, lease=LEASE, limit=10) == []
    shop.expire_leases()
    (fresh,) = jobs_claim(now=shop.at, lease=LEASE, limit=10)
    assert (fresh.job_pk, fresh.token != stalled.token) == (stalled.job_pk, True)
    late = attempt_prepare(stalled, now=shop.at, lease=LEASE, timeout=timedelta(seconds=5))
    assert late == Refused("another worker has taken the job over", rebooked=False)
    assert isinstance(attempt_prepare(fresh, now=shop.at, lease=LEASE, timeout=timedelta(seconds=5)), Prepared)
    twice = attempt_prepare(fresh, now=shop.at, lease=LEASE, timeout=timedelta(seconds=5))
    assert isinstance(twice, Refused)


def test_a_job_whose_attempt_is_written_down_is_never_claimed_again(shop: Shop) -> None:
    bill = shop.failed_bill()
    shop.wait_for(bill)
    (prepared,) = prepare(shop)
    assert isinstance(prepared, Prepared)
    shop.expire_leases()
    assert shop.drain().claimed == 0
    assert [attempt.status for attempt in shop.attempts(bill)] == ["DECLINED", "SENDING"]


def test_a_job_left_by_a_dead_worker_is_not_taken_over_before_it_is_due(shop: Shop) -> None:
    """The clock of the second worker is behind that of the first."""
    bill = shop.failed_bill()
    shop.wait_for(bill)
    (left,) = jobs_claim(now=shop.at, lease=timedelta(seconds=-1), limit=10)
    assert jobs_claim(now=shop.at - timedelta(minutes=4), lease=LEASE, limit=10) == []
    (taken,) = jobs_claim(now=shop.at, lease=LEASE, limit=10)
    assert (taken.job_pk, taken.token != left.token) == (left.job_pk, True)


def test_past_its_deadline_nothing_is_sent(shop: Shop) -> None:
    """A worker that slept through its lease: a definite, unsent error, tried again with a new key."""
    bill = shop.failed_bill()
    shop.wait_for(bill)
    (prepared,) = prepare(shop, timeout=2 * LEASE)
    assert isinstance(prepared, Prepared)
    answer = charge_send(prepared)
    assert isinstance(answer, ChargeResult)
    assert (answer.outcome, answer.error_code) == (Outcome.ERRORED, "unsent")
    assert charge_record(prepared.attempt_pk, answer, now=shop.at) == "ERRORED"
    assert (shop.sandbox.charges(bill.customer), shop.attempt(bill).counts) == ([], False)
    assert (shop.job(bill).status, shop.job(bill).due_at) == ("SCHEDULED", shop.at)
    assert shop.drain().succeeded == 1
    assert_promises(shop)


def test_a_row_that_cannot_be_prepared_stops_nobody_else(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    poison, good = shop.failed_bill(), shop.failed_bill()
    shop.wait_for(poison)
    shop.wait_for(good)

    within = preparing._prepare

    def prepare_or_raise(claim: Any, *given: Any) -> Prepared | Refused:
        if claim.invoice_pk == shop.invoice(poison).pk:
            raise RuntimeError("no such thing")
        return within(claim, *given)

    monkeypatch.setattr(preparing, "_prepare", prepare_or_raise)
    counts = shop.drain()
    assert (counts.claimed, counts.succeeded, counts.rescheduled) == (2, 1, 1)
    job = shop.job(poison)
    assert (job.status, job.due_at, job.last_error) == (
        "SCHEDULED",
        shop.at + timedelta(hours=1),
        "RuntimeError: no such thing",
    )
    monkeypatch.undo()
    assert shop.retry(poison).succeeded == 1


# --- sweeps -------------------------------------------------------------------------------------------------------


def test_a_sweep_makes_at_most_one_attempt_per_case(shop: Shop) -> None:
    """After a week of downtime everything is overdue: caught up without a burst on any card."""
    bills = [shop.failed_bill("tok_decline_processing_error") for _ in range(3)]
    shop.wait(days=7)
    counts = shop.drain()
    assert (counts.claimed, counts.declined) == (3, 3)
    assert [len(shop.sandbox.charges(bill.customer)) for bill in bills] == [1, 1, 1]


def test_merchants_take_turns_and_bands_go_in_order(shop: Shop, new_shop: Callable[..., Shop]) -> None:
    small = new_shop()
    crowd = [shop.failed_bill(amount=2500) for _ in range(4)]
    big = shop.failed_bill(amount=90_000)
    lonely = small.failed_bill(amount=700)
    shop.wait(days=2)
    (first, second) = jobs_claim(now=shop.at, lease=LEASE, limit=2)
    assert {first.invoice_pk, second.invoice_pk} == {shop.invoice(big).pk, small.invoice(lonely).pk}
    assert shop.job(big).band < shop.job(crowd[0]).band
    rest = [claim.invoice_pk for claim in jobs_claim(now=shop.at, lease=LEASE, limit=10)]
    assert sorted(rest) == sorted(shop.invoice(bill).pk for bill in crowd)


def test_nothing_is_claimed_before_it_is_due(shop: Shop) -> None:
    bill = shop.failed_bill()
    due = shop.job(bill).due_at
    shop.wait_until(due - timedelta(microseconds=1))
    assert shop.drain().claimed == 0
    shop.wait_until(due)
    assert shop.drain().claimed == 1


def test_a_drain_stops_when_it_is_told_to(shop: Shop) -> None:
    shop.failed_bill()
    shop.wait(days=2)
    assert drain.retries_drain(now=shop.at, keep_going=lambda: False).claimed == 0
    assert RetryJob.objects.get(merchant=shop.merchant).status == "SCHEDULED"


# --- answers that make no sense -----------------------------------------------------------------------------------


@dataclass
class OddClient:
    """A provider whose answers do not fit what it was asked."""

    change: Mapping[str, Any]
    traits = ClientTraits(
        key_ttl=timedelta(hours=24), lookup=Lookup.AUTHORITATIVE, settles=Settles.NOW, timeout_seconds=5
    )

    def charge(self, request: ChargeRequest) -> ChargeResult:
        if "raises" in self.change:
            raise ProviderUncertain("The provider answered with HTML.", body="<html>")
        known = {
            "outcome": Outcome.SUCCEEDED,
            "provider_id": f"ch_odd_{request.reference}",
            "amount_minor": request.amount_minor,
            "currency": request.currency,
            "reference": request.reference,
            "raw": {"answer": "odd"},
        }
        return ChargeResult(**{**known, **self.change})


@pytest.mark.parametrize(
    "change",
    [
        {"amount_minor": 2501},
        {"amount_minor": -2500},
        {"amount_minor": 0},
        {"currency": "EUR"},
        {"reference": "att_of_somebody_else"},
        {"raises": True},
        {"outcome": Outcome.DECLINED, "amount_minor": 1},
    ],
    ids=str,
)
def test_an_answer_that_does_not_fit_is_neither_success_nor_failure(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
) -> None:
    bill = shop.failed_bill()
    monkeypatch.setattr("retries.engine.send.connection_client", lambda connection: OddClient(change))
    monkeypatch.setattr("retries.engine.biller.connection_client", lambda connection: OddClient(change))
    counts = shop.retry(bill)
    assert (counts.claimed, counts.unknown) == (1, 1)
    assert shop.attempt(bill).status == "UNKNOWN"
    assert (shop.invoice(bill).status, shop.invoice(bill).paid_minor) == ("PROCESSING", 0)
    assert shop.case(bill).next_step == "resolving"
    assert shop.drain().claimed == 0


def test_a_refusal_without_any_reason_is_a_decline_of_an_unknown_kind(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    bill = shop.failed_bill()
    odd = OddClient({"outcome": Outcome.DECLINED, "decline": None})
    monkeypatch.setattr("retries.engine.send.connection_client", lambda connection: odd)
    assert shop.retry(bill).declined == 1
    assert (shop.attempt(bill).status, shop.attempt(bill).category) == ("DECLINED", "SOFT_DECLINE")
    assert shop.case(bill).next_step == "booked"


def test_an_answer_with_another_payments_id_is_not_believed(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    other = shop.failed_bill()
    shop.retry(other)
    taken = shop.attempt(other).provider_id
    bill = shop.failed_bill()
    monkeypatch.setattr("retries.engine.send.connection_client", lambda connection: OddClient({"provider_id": taken}))
    assert shop.retry(bill).unknown == 1
    assert (shop.attempt(bill).status, shop.attempt(bill).provider_id) == ("UNKNOWN", None)
    assert shop.invoice(other).paid_minor == 2500


def test_a_smaller_capture_is_taken_and_the_rest_stays_owed(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    bill = shop.failed_bill()
    monkeypatch.setattr("retries.engine.send.connection_client", lambda connection: OddClient({"amount_minor": 1000}))
    assert shop.retry(bill).succeeded == 1
    invoice = shop.invoice(bill)
    assert (invoice.status, invoice.paid_minor, invoice.due_minor) == ("PROCESSING", 1000, 1500)
    assert shop.case(bill).next_step in ("booked", "customer")


# --- results that come twice --------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["ok", "decline:insufficient_funds"])
def test_the_same_result_by_webhook_after_the_reply_changes_nothing(shop: Shop, step: str) -> None:
    bill = shop.failed_bill()
    shop.sandbox.script(bill.token, step)
    shop.retry(bill)
    attempt = shop.attempt(bill)
    before = shop.outcome(bill)
    told = bill.attempt(shop.at, reference=attempt.public_id, charge=attempt.provider_id or "")
    shop.tell(*(told.succeeded() if step == "ok" else told.failed()))
    assert shop.outcome(bill) == before


def test_the_result_by_webhook_before_the_reply_is_told_once(shop: Shop) -> None:
    bill = shop.failed_bill()
    shop.wait_for(bill)
    (prepared,) = prepare(shop)
    assert isinstance(prepared, Prepared)
    answer = charge_send(prepared)
    assert isinstance(answer, ChargeResult)
    attempt = shop.attempt(bill)
    shop.tell(*bill.attempt(shop.at, reference=attempt.public_id, charge=answer.provider_id).succeeded())
    assert (shop.invoice(bill).status, shop.attempt(bill).status) == ("SETTLED", "SUCCEEDED")
    before = shop.invoice(bill).last_seq
    assert charge_record(prepared.attempt_pk, answer, now=shop.at) == "SUCCEEDED"
    assert shop.invoice(bill).last_seq == before
    assert_promises(shop)


def test_a_foreign_event_waits_while_our_charge_is_being_sent(shop: Shop) -> None:
    """It may be ours, told without our reference: two attempts only if the charge ids differ afterwards."""
    bill = shop.failed_bill()
    shop.wait_for(bill)
    (prepared,) = prepare(shop)
    assert isinstance(prepared, Prepared)
    answer = charge_send(prepared)
    assert isinstance(answer, ChargeResult)
    ours = bill.attempt(shop.at, charge=answer.provider_id)
    theirs = bill.attempt(shop.at, charge=f"ch_theirs_{bill.key}", code="do_not_honor")
    shop.tell(ours.charge_succeeded(), theirs.charge_failed(), ours.invoice_paid())
    assert shop.waiting() == ["charge.succeeded", "charge.failed", "invoice.paid"]
    charge_record(prepared.attempt_pk, answer, now=shop.at)
    shop.wait(minutes=1)
    shop.process()
    assert shop.waiting() == []
    assert sorted((attempt.origin, attempt.status) for attempt in shop.attempts(bill)) == [
        ("OURS", "SUCCEEDED"),
        ("PROVIDER", "DECLINED"),
        ("PROVIDER", "DECLINED"),
    ]
    assert (shop.invoice(bill).status, shop.invoice(bill).paid_minor) == ("SETTLED", 2500)
    assert shop.reviews(bill) == []
