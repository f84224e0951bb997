"""Real threads on real connections. Each race is first shown to happen with its guard taken away."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction

from invoices.models import Attempt, Invoice
from invoices.services.parties import customer_lock
from providers.base import ChargeResult
from recovery_site.common.errors import Conflict
from retries.engine import claim as claiming
from retries.engine import prepare as preparing
from retries.engine.claim import Claim, jobs_claim
from retries.engine.prepare import Prepared, Refused, attempt_prepare
from retries.engine.send import charge_record, charge_send
from retries.models import RetryJob
from retries.reconciliation import reconcile
from retries.services import booking, outcomes
from tests.support.books import assert_promises, assert_rules_kept, assert_slots
from tests.support.locks import no_locks
from tests.support.sandbox import Sandbox, sandbox_running
from tests.support.shop import Shop
from tests.support.stripe import BASIL, OLD, Bill
from tokens import services as methods
from tokens.models import Card
from webhooks.models import InboxEvent
from webhooks.services import inbox_drain

pytestmark = pytest.mark.django_db(transaction=True)
LEASE = timedelta(minutes=5)
TIMEOUT = timedelta(seconds=5)
MINUTE = timedelta(minutes=1)


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[Sandbox]:
    """A provider of the test's own: the reverse scan reads everything that its server has ever charged."""
    with sandbox_running(tmp_path) as running:
        yield running


def together(*works: Callable[[], Any]) -> list[Any]:
    """Run at the same time, each in a thread with a connection of its own; results in order, errors as values."""
    start, results = threading.Barrier(len(works)), [None] * len(works)

    def run(index: int, work: Callable[[], Any]) -> None:
        try:
            start.wait()
            results[index] = work()
        except Exception as error:  # noqa: BLE001  (handed to the test, which looks at it)
            results[index] = error
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=item) for item in enumerate(works)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def errors(results: Sequence[Any]) -> list[str]:
    return [f"{type(result).__name__}: {result}" for result in results if isinstance(result, Exception)]


def meeting(parties: int, *, guarded: bool = False) -> Callable[[], None]:
    """A point that all threads reach once before any goes on.

    With a guard in the way they never meet, and the waiting gives up soon; without one they surely do, however busy
    the machine is.
    """
    barrier, met = threading.Barrier(parties), threading.Event()

    def meet() -> None:
        if not met.is_set():
            with suppress(threading.BrokenBarrierError):
                barrier.wait(timeout=1 if guarded else 60)
            met.set()

    return meet


# --- one job, two workers -----------------------------------------------------------------------------------------


def claimed(shop: Shop) -> tuple[Bill, Claim]:
    bill = shop.failed_bill()
    shop.wait_for(bill)
    (claim,) = jobs_claim(now=shop.at, lease=LEASE, limit=1)
    return bill, claim


def prepared_twice(shop: Shop, claim: Claim) -> list[Any]:
    def work() -> Prepared | Refused:
        return attempt_prepare(claim, now=shop.at, lease=LEASE, timeout=TIMEOUT)

    return together(work, work)


def meet_in_step_two(monkeypatch: pytest.MonkeyPatch, *, guarded: bool = False) -> None:
    """Both workers have answered every question of step 2 before either writes its attempt."""
    meet, commit = meeting(2, guarded=guarded), preparing._commit

    def commit_together(*known: Any) -> Prepared:
        meet()
        return commit(*known)

    monkeypatch.setattr(preparing, "_commit", commit_together)


def test_without_locks_two_workers_both_decide_to_charge(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """The race is real; only the database's constraints stop the second charge then."""
    bill, claim = claimed(shop)
    no_locks(monkeypatch)
    meet_in_step_two(monkeypatch)
    results = prepared_twice(shop, claim)
    assert sorted(type(result).__name__ for result in results) == ["IntegrityError", "Prepared"]
    assert Attempt.objects.filter(invoice=shop.invoice(bill), origin="OURS").count() == 1


def test_with_locks_one_worker_charges_and_the_other_is_refused(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    bill, claim = claimed(shop)
    meet_in_step_two(monkeypatch, guarded=True)
    results = prepared_twice(shop, claim)
    assert sorted(type(result).__name__ for result in results) == ["Prepared", "Refused"]
    assert Attempt.objects.filter(invoice=shop.invoice(bill), origin="OURS").count() == 1


def test_a_claim_without_skip_locked_gives_a_job_to_two_sweeps(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.failed_bill()
    shop.wait(days=2)
    meet, naive = meeting(2), list[list[int]]()

    def read_then_take() -> list[int]:
        due = claiming.jobs_due(now=shop.at, limit=10)
        meet()
        RetryJob.objects.filter(pk__in=due).update(status="RUNNING")
        naive.append(due)
        return due

    first, second = together(read_then_take, read_then_take)
    assert first == second
    RetryJob.objects.filter(pk__in=first).update(status="SCHEDULED")
    claims = together(*[lambda: jobs_claim(now=shop.at, lease=LEASE, limit=10)] * 2)
    assert sorted(len(found) for found in claims) == [0, 1]


def test_two_sweeps_at_once_charge_every_invoice_once(shop: Shop) -> None:
    bills = [shop.failed_bill() for _ in range(20)]
    shop.wait(days=2)
    results = together(shop.drain, shop.drain, shop.drain)
    assert errors(results) == []
    assert sum(counts.succeeded for counts in results) == 20
    assert sum(counts.claimed for counts in results) == 20
    assert [shop.charged(bill) for bill in bills] == [2500] * 20
    assert_promises(shop)


def test_a_worker_that_wakes_up_beside_the_resend_makes_it_one_charge(shop: Shop) -> None:
    """It slept past its lease after step 2; meanwhile the attempt is resolved and sent again under the same key."""
    bill, claim = claimed(shop)
    prepared = attempt_prepare(claim, now=shop.at, lease=LEASE, timeout=TIMEOUT)
    assert isinstance(prepared, Prepared)
    shop.expire_leases()
    shop.reconcile()
    shop.wait(hours=1)

    def wake_up() -> str:
        answer = charge_send(prepared)
        return str(charge_record(prepared.attempt_pk, answer, now=shop.at))

    results = together(wake_up, shop.reconcile)
    assert errors(results) == []
    shop.wait(hours=1)
    shop.expire_leases()
    shop.reconcile()
    assert len(shop.sandbox.charges(bill.customer)) == 1
    assert (shop.attempt(bill).status, shop.invoice(bill).paid_minor) == ("SUCCEEDED", 2500)
    assert_promises(shop)


# --- reply and webhook --------------------------------------------------------------------------------------------


def sent(shop: Shop) -> tuple[Bill, Prepared, ChargeResult]:
    """A charge that has happened; its reply is in hand, its webhook is in the inbox."""
    bill, claim = claimed(shop)
    prepared = attempt_prepare(claim, now=shop.at, lease=LEASE, timeout=TIMEOUT)
    assert isinstance(prepared, Prepared)
    answer = charge_send(prepared)
    assert isinstance(answer, ChargeResult)
    told = bill.attempt(shop.at, reference=shop.attempt(bill).public_id, charge=answer.provider_id)
    shop.receive(told.charge_succeeded(), told.invoice_paid())
    return bill, prepared, answer


def reply_and_webhook(shop: Shop, prepared: Prepared, answer: ChargeResult) -> list[Any]:
    return together(
        lambda: charge_record(prepared.attempt_pk, answer, now=shop.at),
        lambda: inbox_drain(now=shop.at).as_dict(),
    )


def test_without_locks_reply_and_webhook_both_book_the_payment(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    _, prepared, answer = sent(shop)
    no_locks(monkeypatch)
    meet = meeting(2)
    book = outcomes.charge_has_succeeded

    def book_together(*given: Any, **known: Any) -> Any:
        meet()
        return book(*given, **known)

    monkeypatch.setattr(outcomes, "charge_has_succeeded", book_together)
    results = reply_and_webhook(shop, prepared, answer)
    crashed = InboxEvent.objects.filter(endpoint=shop.endpoint, attempts__gt=0).exists()
    assert errors(results) or crashed, "the two were expected to collide"


def test_reply_and_webhook_at_once_are_one_payment(shop: Shop) -> None:
    for _ in range(8):
        bill, prepared, answer = sent(shop)
        results = reply_and_webhook(shop, prepared, answer)
        assert errors(results) == []
        shop.wait(minutes=1)
        shop.process()
        assert shop.refused() == []
        assert (shop.invoice(bill).status, shop.invoice(bill).paid_minor) == ("SETTLED", 2500)
        assert [attempt.status for attempt in shop.attempts(bill)] == ["DECLINED", "SUCCEEDED"]
        assert shop.reviews(bill) == []
    assert_promises(shop)


# --- events of one customer at once -------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [OLD, BASIL])
def test_events_of_one_charge_processed_at_once_are_one_attempt(shop: Shop, version: str) -> None:
    for _ in range(4):
        bill = shop.bill(version=version)
        shop.receive(*bill.attempt().failed())
        results = together(*[lambda: inbox_drain(now=shop.at).as_dict()] * 4)
        assert errors(results) == []
        assert shop.refused() == []
        shop.process()
        assert [attempt.raw_code for attempt in shop.attempts(bill)] == ["insufficient_funds"]
        assert Invoice.objects.filter(customer=shop.customer(bill)).exclude(cancel_reason="superseded").count() == 1
    assert_slots(shop)


def test_new_customers_and_cards_seen_at_once_are_made_once(shop: Shop) -> None:
    """Ten first failures of one card under ten customers: every row of the card is the same row."""
    bills = [shop.bill(fingerprint="fp_new_to_us") for _ in range(10)]
    shop.receive(*(bill.attempt().charge_failed() for bill in bills))
    results = together(*[lambda: inbox_drain(now=shop.at).as_dict()] * 5)
    assert errors(results) == []
    assert shop.refused() == []
    card = Card.objects.get(connection=shop.connection)
    assert Attempt.objects.filter(card=card, counts=True).count() == 10


# --- two invoices of one customer ---------------------------------------------------------------------------------


def retry_both(shop: Shop, first: Bill, second: Bill) -> list[Any]:
    return together(lambda: shop.retry_now(first), lambda: shop.retry_now(second))


def test_without_the_customers_lock_two_invoices_fight_for_the_slot(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = shop.failed_bill(code="lost_card")
    second = shop.failed_bill(code="lost_card", customer=first.customer)
    shop.tell(shop.bill(customer=first.customer).method_attached(shop.at))
    for bill in (first, second):
        shop.pause(bill)
    no_locks(monkeypatch)
    meet, holder = meeting(2), booking.slot_holder

    def look_together(*given: Any, **known: Any) -> Any:
        found = holder(*given, **known)
        meet()
        return found

    monkeypatch.setattr(booking, "slot_holder", look_together)
    results = retry_both(shop, first, second)
    assert [type(result) for result in results if isinstance(result, Exception)] == [IntegrityError]


def test_two_invoices_of_one_customer_share_one_slot(shop: Shop) -> None:
    for _ in range(5):
        first = shop.failed_bill()
        second = shop.failed_bill(customer=first.customer)
        results = retry_both(shop, first, second)
        assert errors(results) == []
        assert sorted(shop.job(bill).status for bill in (first, second)) == ["QUEUED", "SCHEDULED"]
    assert_slots(shop)
    shop.drain()
    shop.drain()
    assert_promises(shop)


# --- cancel -------------------------------------------------------------------------------------------------------


def test_a_cancellation_beside_a_sweep_ends_in_one_of_two_ways(shop: Shop) -> None:
    """Canceled before the charge was written down, or charged and then put before staff: nothing in between."""
    for _ in range(8):
        bill = shop.failed_bill()
        shop.wait_for(bill)
        results = together(shop.drain, lambda bill=bill: shop.cancel(bill))
        assert [error for error in errors(results) if "Conflict" not in error] == []
        invoice, charged = shop.invoice(bill), shop.charged(bill)
        if isinstance(results[1], Conflict):
            assert (invoice.status, charged) == ("SETTLED", 2500)
        else:
            assert invoice.status == "CANCELED"
            assert shop.reviews(bill) == (["paid_after_cancel"] if charged else [])
    assert_promises(shop)


# --- one card, many customers -------------------------------------------------------------------------------------


def crowd_on_one_card(shop: Shop, known: int, others: int) -> list[Bill]:
    """Customers who share a Mastercard on which `known` declines of today are known, each with a retry due now."""
    first = shop.bill("tok_decline_insufficient_funds", network="mastercard", fingerprint="fp_shared")
    shop.tell(*(first.attempt(shop.wait(minutes=1)).charge_failed() for _ in range(known)))
    bills = []
    for _ in range(others):
        bill = shop.bill("tok_decline_insufficient_funds", network="mastercard", fingerprint="fp_shared")
        shop.tell(bill.attempt(shop.wait(minutes=1)).charge_failed())
        bills.append(bill)
    shop.wait(hours=1)
    RetryJob.objects.filter(invoice__in=[shop.invoice(bill).pk for bill in bills]).update(due_at=shop.at)
    return bills


def prepare_all(shop: Shop) -> list[Any]:
    claims = jobs_claim(now=shop.at, lease=LEASE, limit=10)
    return together(
        *(lambda claim=claim: attempt_prepare(claim, now=shop.at, lease=LEASE, timeout=TIMEOUT) for claim in claims)
    )


def meet_at_the_count(monkeypatch: pytest.MonkeyPatch, number: int, *, guarded: bool = False) -> None:
    meet, options = meeting(number, guarded=guarded), preparing.token_options

    def count_together(**known: Any) -> Any:
        found = options(**known)
        meet()
        return found

    monkeypatch.setattr(preparing, "token_options", count_together)


def test_without_the_cards_lock_the_networks_limit_is_broken(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven declines and two of these customers' own: one more is allowed, but both count before either writes."""
    crowd_on_one_card(shop, 7, 2)
    no_locks(monkeypatch, "tokens_card")
    meet_at_the_count(monkeypatch, 2)
    results = prepare_all(shop)
    assert [type(result).__name__ for result in results] == ["Prepared", "Prepared"]
    with pytest.raises(AssertionError, match="broke mastercard max_retries_per_day"):
        assert_rules_kept(shop)


def test_the_cards_lock_lets_exactly_as_many_through_as_the_network_allows(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    crowd_on_one_card(shop, 7, 2)
    meet_at_the_count(monkeypatch, 2, guarded=True)
    results = prepare_all(shop)
    assert sorted(type(result).__name__ for result in results) == ["Prepared", "Refused"]
    assert_rules_kept(shop)


def test_parallel_sweeps_over_one_card_stay_within_the_day(shop: Shop) -> None:
    crowd_on_one_card(shop, 3, 5)
    results = together(shop.drain, shop.drain, shop.drain)
    assert errors(results) == []
    found = [(counts.declined, counts.refused + counts.rescheduled, counts.unknown) for counts in results]
    declined, put_off, unknown = (sum(column) for column in zip(*found, strict=True))
    # Two attempts are left for the day. A sweep that looks while another one sends may put one off, never add one.
    assert 1 <= declined <= 2, found
    assert (declined + put_off, unknown) == (5, 0), found
    assert_promises(shop)


def test_a_card_that_joins_the_group_while_somebody_waits_for_it_is_counted(shop: Shop) -> None:
    """The waiter read the group before the other card joined it; what it then locks must be the group of now."""
    mine = shop.failed_bill(network="mastercard", fingerprint="fp_shared")
    theirs = shop.failed_bill(network="mastercard", fingerprint="fp_shared")
    other = shop.failed_bill(network="mastercard", fingerprint="fp_other")
    shared, joining = shop.card(mine), shop.card(other)
    held, waiting = threading.Event(), threading.Event()
    seen: list[int] = []

    def joins() -> None:
        with transaction.atomic():
            list(Card.objects.select_for_update(no_key=True).filter(pk__in=[shared.pk, joining.pk]).order_by("pk"))
            held.set()
            waiting.wait(timeout=60)
            Card.objects.filter(pk=joining.pk).update(budget_group=shared.budget_group)

    def waits() -> None:
        held.wait(timeout=60)
        with transaction.atomic():
            customer = customer_lock(shop.customer(theirs).pk)
            threading.Timer(0.3, waiting.set).start()
            seen.extend(card.pk for card in methods.cards_lock(customer))

    assert errors(together(joins, waits)) == []
    assert seen == sorted([shared.pk, joining.pk])


# --- deadlocks ----------------------------------------------------------------------------------------------------


def test_everything_at_once_never_deadlocks(shop: Shop) -> None:
    """Two customers share two cards, each the other way round; failures, card updates, sweeps and people together."""
    first = shop.failed_bill("tok_decline_insufficient_funds", network="visa", fingerprint="fp_a")
    second = shop.failed_bill("tok_decline_insufficient_funds", network="visa", fingerprint="fp_b")
    for bill, fingerprint in ((first, "fp_b"), (second, "fp_a")):
        spare = shop.bill("tok_decline_do_not_honor", customer=bill.customer, fingerprint=fingerprint)
        shop.tell(spare.method_attached(shop.at))
    more = [
        shop.failed_bill(customer=first.customer, fingerprint="fp_b"),
        shop.failed_bill(customer=second.customer, fingerprint="fp_a"),
    ]
    shop.wait(days=1)
    events = [
        bill.attempt(shop.at + MINUTE * number).charge_failed()
        for number in range(6)
        for bill in (first, second, *more)
    ]
    swaps = [bill.method_updated(shop.at, {"card": {"exp_year": 2029}}) for bill in (first, second)]
    shop.receive(*events, *swaps)

    def press() -> None:
        for bill in (first, *more, second):
            with suppress(Conflict):
                shop.retry_now(bill)

    sweeps = [lambda: inbox_drain(now=shop.at).as_dict()] * 3
    results = together(*sweeps, shop.drain, shop.drain, press, lambda: reconcile(now=shop.at).errors)
    assert errors(results) == []
    assert results[-1] == 0
    assert [reason for _, reason in shop.refused()] == []
    shop.wait(days=1)
    shop.process()
    shop.drain()
    assert_promises(shop)
