"""Answers that have come and are not recorded, charges that are written down and never sent."""

import threading
import time
from typing import Any

import pytest
from django.db import OperationalError, connection, transaction

from accounts.models import Merchant
from invoices.models import Attempt, Customer
from recovery_site.common.in_step import in_step
from retries.engine import drain
from retries.engine.crew import Crew
from retries.engine.drain import retries_drain
from retries.models import RetryJob
from tests.support.shop import Shop
from tests.support.stripe import Bill

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(params=[False, True], ids=["in step", "alone"])
def alone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    if request.param:
        monkeypatch.setattr(drain, "_is_only_sent", lambda claim, owner, now: False)
    return bool(request.param)


def due(shop: Shop, number: int) -> list[Bill]:
    bills = [shop.failed_bill() for _ in range(number)]
    shop.wait(days=1)
    return bills


def test_take_all_keeps_the_results_that_it_has_when_another_one_raised() -> None:
    kept: list[int] = []

    def work(number: int) -> int:
        if number == 1:
            raise ZeroDivisionError
        return number

    with Crew[int, int](1, work, "one") as crew:
        for number in range(3):
            crew.give(number)
        time.sleep(0.5)
        raised = 0
        while crew.open:
            try:
                kept += crew.take_all()
            except ZeroDivisionError:
                raised += 1
    assert (sorted(kept), raised) == ([0, 2], 1)


def test_answers_are_recorded_though_another_thread_has_failed(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, alone: bool
) -> None:
    """One thread's database connection breaks; the answers of the others have come and are in the queue beside it."""
    one, good, bad = due(shop, 3)
    arrived = {bill.customer: threading.Event() for bill in (one, good, bad)}
    send, record, seen = drain.charge_send, drain.charges_record, []

    def charge_send(prepared: Any, **known: Any) -> Any:
        customer = prepared.request.customer
        before = {good.customer: one.customer, bad.customer: good.customer}.get(customer)
        if before:
            arrived[before].wait(30)
            time.sleep(0.3)
        arrived[customer].set()
        if customer == bad.customer:
            raise OperationalError("server closed the connection unexpectedly")
        return send(prepared, **known)

    def slowly(answers: Any) -> Any:
        """The first one's answer is being recorded while the others come."""
        if not seen:
            seen.append(1)
            arrived[bad.customer].wait(30)
            time.sleep(1)
        return record(answers)

    def gone(*given: Any, **known: Any) -> str:
        raise OperationalError("connection is closed")

    monkeypatch.setattr(drain, "charge_send", charge_send)
    monkeypatch.setattr(drain, "charges_record", slowly)
    monkeypatch.setattr(drain, "job_poisoned", gone)
    with pytest.raises(OperationalError):
        retries_drain(now=shop.at, threads=3)
    assert (shop.charged(good), shop.attempt(good).status) == (2500, "SUCCEEDED")


def test_answers_in_hand_are_recorded_though_the_drain_is_stopped(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, alone: bool
) -> None:
    """q2 ends a task that takes too long by an exception in the main thread (TimeoutException, a SystemExit)."""
    bills = due(shop, 2)
    for name in ("charges_record",) if not alone else ("_ended",):
        real, once = getattr(drain, name), []

        def stopped(*given: Any, real: Any = real, once: list[int] = once) -> Any:
            if not once and threading.current_thread() is threading.main_thread() and given[0]:
                once.append(1)
                raise SystemExit("the task's time is over")
            return real(*given)

        monkeypatch.setattr(drain, name, stopped)
    if alone:
        retries_drain(now=shop.at)
    else:
        with pytest.raises(SystemExit):
            retries_drain(now=shop.at)
    assert [shop.charged(bill) for bill in bills] == [2500, 2500]
    assert [shop.attempt(bill).status for bill in bills] == ["SUCCEEDED", "SUCCEEDED"]


def test_an_error_after_one_answer_does_not_lose_those_behind_it(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, alone: bool
) -> None:
    """They go one by one (somebody held a lock for half a second), and what is asked after the first one raises."""
    bills = due(shop, 2)
    both = threading.Barrier(2)
    send, due_again, raised = drain.charge_send, drain.case_due_again, []

    def together(prepared: Any, **known: Any) -> Any:
        answer = send(prepared, **known)
        both.wait(30)
        return answer

    def slowly(answers: Any) -> Any:
        return [None] * len(answers)

    def breaks(claim: Any, *, now: Any) -> Any:
        if not raised:
            raised.append(claim)
            raise OperationalError("server closed the connection unexpectedly")
        return due_again(claim, now=now)

    take_all = Crew.take_all

    def when_both_have_come(self: Any) -> Any:
        time.sleep(1)
        return take_all(self)

    for bill in bills:  # a partial capture is worth another look for something due
        shop.sandbox.script(bill.token, "decline:insufficient_funds")
    monkeypatch.setattr(drain, "charge_send", together)
    monkeypatch.setattr(drain, "charges_record", slowly)
    monkeypatch.setattr(drain, "case_due_again", breaks)
    monkeypatch.setattr(Crew, "take_all", when_both_have_come)
    with pytest.raises(OperationalError):
        retries_drain(now=shop.at, threads=2)
    assert [shop.attempt(bill).status for bill in bills] == ["DECLINED", "DECLINED"]


def test_charges_that_are_written_down_are_sent_though_an_error_stops_the_drain(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, alone: bool
) -> None:
    refused, good = due(shop, 2)
    # The refused one first: its amount has changed meanwhile, so it is planned anew.
    RetryJob.objects.filter(pk=shop.job(refused).pk).update(band=0, status="SCHEDULED")
    shop.token(refused)
    type(shop.token(refused)).objects.filter(pk=shop.token(refused).pk).update(status="removed")
    ended = drain.case_due_again

    def breaks(claim: Any, *, now: Any) -> Any:
        if claim.invoice_pk == shop.invoice(refused).pk:
            raise OperationalError("server closed the connection unexpectedly")
        return ended(claim, now=now)

    claimed = drain.jobs_claim

    def in_order(**known: Any) -> Any:
        return sorted(claimed(**known), key=lambda claim: claim.invoice_pk != shop.invoice(refused).pk)

    monkeypatch.setattr(drain, "jobs_claim", in_order)
    monkeypatch.setattr(drain, "case_due_again", breaks)
    with pytest.raises(OperationalError):
        retries_drain(now=shop.at)
    assert (shop.charged(good), shop.attempt(good).status) == (2500, "SUCCEEDED")


def test_a_lock_on_one_customer_does_not_keep_the_answers_of_others(shop: Shop, alone: bool) -> None:
    """Somebody's transaction holds one customer for a while, as a person's action or another worker may."""
    locked, other = due(shop, 2)
    for bill in (locked, other):
        shop.sandbox.script(bill.token, "slow:0.5")
    pk, started, status = shop.customer(locked).pk, threading.Event(), []

    def hold() -> None:
        try:
            while not Attempt.objects.filter(status="SENDING", customer_id=pk).exists():
                time.sleep(0.01)
            with transaction.atomic():
                Customer.objects.select_for_update(no_key=True).get(pk=pk)
                started.set()
                time.sleep(4)
                status.append(shop.attempt(other).status)
        finally:
            connection.close()

    holder = threading.Thread(target=hold)
    holder.start()
    # whichever of the two is recorded first, the locked one is given the first place
    real = drain.charges_record
    drain_together = Crew.take_all

    with pytest.MonkeyPatch.context() as patch:

        def both(self: Any) -> Any:
            time.sleep(1.5)
            results = drain_together(self)
            return sorted(
                results,
                key=lambda one: (
                    getattr(getattr(one, "ready", None), "prepared", None) is not None
                    and one.ready.prepared.request.customer != locked.customer
                ),
            )

        patch.setattr(Crew, "take_all", both)
        retries_drain(now=shop.at)
    holder.join()
    assert real is drain.charges_record
    assert status == ["SUCCEEDED"]


def test_done_means_committed() -> None:
    """A piece raises within a block of Django's that marks the transaction for a rollback, having written nothing."""
    first, second = (Merchant.objects.create(name=f"Shop {n}") for n in range(2))

    def renames() -> str:
        Merchant.objects.filter(pk=first.pk).update(name="New")
        return "renamed"

    def raises() -> None:
        Merchant.objects.filter(pk=second.pk).update(charging_enabled="nonsense")

    done = in_step([renames, raises])
    assert done[1] is None
    kept = Merchant.objects.get(pk=first.pk).name
    assert (done[0] is None and kept == "Shop 0") or (done[0] is not None and kept == "New"), (done, kept)
