"""Providers are protected: their rate limit, their Retry-After, and a breaker that burns nobody's tries."""

from collections.abc import Callable
from datetime import timedelta

import pytest

from invoices.models import Connection
from recovery_site.common.errors import InvalidInput
from retries.breaker import COOL_OFF
from retries.engine import drain
from retries.engine.claim import jobs_due
from retries.engine.drain import job_work
from retries.models import Outage, ProviderGate, RetryJob
from retries.services.gates import Barred, Passage, gate_enter
from tests.support.books import assert_promises
from tests.support.shop import Shop
from tests.support.stripe import Bill

pytestmark = pytest.mark.django_db(transaction=True)
NOWHERE = "http://127.0.0.1:9"


def fresh(shop: Shop) -> Connection:
    return Connection.objects.select_related("gate").get(pk=shop.connection.pk)


def unplug(shop: Shop, url: str = NOWHERE) -> None:
    Connection.objects.filter(pk=shop.connection.pk).update(base_url=url)


def tries(shop: Shop, bill: Bill) -> list[str]:
    return [attempt.status for attempt in shop.attempts(bill) if attempt.origin == "OURS"]


# --- down ---------------------------------------------------------------------------------------------------------


def test_while_a_provider_is_down_jobs_move_later_and_nobodys_tries_are_used_up(shop: Shop) -> None:
    """Without the breaker the three tries at once after a network error are gone within seconds, and the case with
    them."""
    bills = [shop.failed_bill() for _ in range(6)]
    shop.wait(days=1)
    unplug(shop)
    began = shop.at
    for _ in range(5):
        shop.drain()
    gate, outage = ProviderGate.objects.get(pk=shop.connection.pk), Outage.objects.get(connection=shop.connection)
    assert (gate.shut_times, gate.shut_until, outage.began_at, outage.ended_at) == (1, began + COOL_OFF, began, None)
    sent = sum(len(tries(shop, bill)) for bill in bills)
    assert 3 <= sent <= 6, "what was in flight when it was shut may still fail, nothing after that is sent"
    assert {shop.case(bill).next_step for bill in bills} == {"booked"}
    assert jobs_due(now=shop.at, limit=10) == []

    # One call at a time tries it; each failure keeps it shut for longer, and still no case loses a try.
    for times in (2, 3, 4):
        shop.wait_until(ProviderGate.objects.get(pk=shop.connection.pk).shut_until or shop.at)
        assert shop.drain().claimed >= 1
        assert ProviderGate.objects.get(pk=shop.connection.pk).shut_times == times
        assert sum(len(tries(shop, bill)) for bill in bills) == sent + times - 1

    unplug(shop, shop.sandbox.url)
    shop.wait(minutes=15)
    while jobs_due(now=shop.at, limit=10):
        shop.drain()
    assert Outage.objects.get(connection=shop.connection).ended_at == shop.at
    assert {shop.invoice(bill).status for bill in bills} == {"SETTLED"}
    assert [shop.charged(bill) for bill in bills] == [2500] * 6
    assert_promises(shop)


def test_what_was_claimed_before_the_breaker_shut_is_moved_with_its_reason_and_keeps_its_trigger(shop: Shop) -> None:
    bill = shop.failed_bill()
    job = shop.retry_now(bill)
    until = shop.at + timedelta(minutes=4)
    ProviderGate.objects.create(connection=shop.connection, merchant=shop.merchant, asked_until=until)
    assert shop.drain().claimed == 0, "its lane is closed"
    assert job_work(job.pk, now=shop.at) == "rescheduled"
    job.refresh_from_db(fields=["due_at", "trigger"])
    assert (job.due_at, job.trigger, shop.job(bill).status) == (until, "staff", "SCHEDULED")
    case = shop.case(bill)
    assert (case.next_step, case.next_step_at) == ("booked", until)
    assert case.why == "Waits because the provider has had enough requests for now; no try is used up by that."
    assert shop.attempts(bill)[-1].origin == "PROVIDER"
    assert_promises(shop)


def test_a_failing_answer_now_and_then_does_not_shut_a_provider(new_shop: Callable[..., Shop]) -> None:
    shop = new_shop(timeout_seconds=0.5)
    for step in ("http500_before", "ok") * 6:
        bill = shop.failed_bill()
        shop.sandbox.script(bill.token, step)
        shop.retry(bill)
    assert not Outage.objects.filter(connection=shop.connection).exists()
    assert set(ProviderGate.objects.filter(pk=shop.connection.pk).values_list("strain", flat=True)) == {0}


def test_a_retry_that_never_happened_gives_its_try_back(shop: Shop) -> None:
    """One refused connection is no outage, and no answer about the customer's money either."""
    bill = shop.failed_bill("tok_decline_insufficient_funds")
    unplug(shop)
    shop.retry(bill)
    unplug(shop, shop.sandbox.url)
    assert (shop.drain().declined, shop.retry(bill).declined) == (1, 1)
    assert tries(shop, bill) == ["ERRORED", "DECLINED", "DECLINED"]
    assert shop.case(bill).next_step == "customer"


# --- asked to wait ------------------------------------------------------------------------------------------------


def test_too_many_requests_hold_the_whole_connection_back_and_no_other(
    shop: Shop, new_shop: Callable[..., Shop]
) -> None:
    first, second, other = shop.failed_bill(), shop.failed_bill(), new_shop()
    elsewhere = other.failed_bill()
    shop.sandbox.script(first.token, "http429:600", "ok")
    shop.wait_for(first)
    with pytest.MonkeyPatch.context() as one_at_a_time:
        one_at_a_time.setattr("django.conf.settings.RETRY_THREADS", 1)
        RetryJob.objects.filter(pk=shop.job(first).pk).update(band=0)
        counts = shop.drain()
    assert counts.succeeded == 1, "the other merchant's"
    assert (tries(shop, first), tries(shop, second)) == (["ERRORED"], [])
    assert tries(other, elsewhere) == ["SUCCEEDED"]
    gate = ProviderGate.objects.get(pk=shop.connection.pk)
    assert (gate.asked_until, gate.shut_times) == (shop.at + timedelta(minutes=10), 0)
    shop.wait(minutes=9)
    assert shop.drain().claimed == 0
    shop.wait(minutes=1)
    assert shop.drain().succeeded == 1
    assert tries(shop, second) == ["SUCCEEDED"]
    assert shop.retry(first).succeeded == 1
    assert_promises(shop)


@pytest.mark.parametrize("looks", [False, True], ids=["without another look", "with it"])
def test_a_charge_that_waited_for_its_thread_is_not_sent_through_a_gate_that_has_shut(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, looks: bool
) -> None:
    first, second = shop.failed_bill(), shop.failed_bill()
    shop.sandbox.script(first.token, "http429:600", "ok")
    shop.wait(days=2)
    RetryJob.objects.filter(pk=shop.job(first).pk).update(band=0)
    monkeypatch.setattr("django.conf.settings.RETRY_THREADS", 1)
    if not looks:
        send = drain.charge_send
        monkeypatch.setattr(drain, "charge_send", lambda prepared, gate_at: send(prepared))
    assert shop.drain().claimed == 2
    if not looks:
        assert tries(shop, second) == ["SUCCEEDED"]
        return
    assert (tries(shop, first), tries(shop, second)) == (["ERRORED"], ["ERRORED"])
    assert (shop.attempts(second)[-1].raw_code, shop.sandbox.charges(second.customer)) == ("unsent", [])
    assert shop.case(second).next_step_at == shop.at + timedelta(minutes=10)
    assert shop.case(second).why.startswith("Waits because the provider has had enough requests for now")
    assert shop.retry(second).succeeded == 1
    assert shop.retry(first).succeeded == 1
    assert_promises(shop)


# --- rate limit ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [0, -1, "10", True, 20_000])
def test_a_rate_that_is_none_is_refused(new_shop: Callable[..., Shop], value: object) -> None:
    with pytest.raises(InvalidInput, match="max_per_second must be a number of calls"):
        new_shop(max_per_second=value)


def test_a_limited_connection_is_drained_completely_and_others_do_not_wait_for_it(
    new_shop: Callable[..., Shop],
) -> None:
    slow, fast = new_shop(max_per_second=4), new_shop()
    bills = [slow.failed_bill() for _ in range(9)]
    others = [fast.failed_bill() for _ in range(3)]
    slow.wait(days=1)
    assert slow.drain().succeeded == 12
    assert {slow.invoice(bill).status for bill in bills} | {fast.invoice(bill).status for bill in others} == {"SETTLED"}
    assert_promises(slow)


def test_an_empty_bucket_says_when_the_next_call_may_go(new_shop: Callable[..., Shop]) -> None:
    shop = new_shop(max_per_second=0.01)
    assert gate_enter(fresh(shop), now=shop.at) == Passage(shop.connection.pk)
    barred = gate_enter(fresh(shop), now=shop.at)
    assert isinstance(barred, Barred)
    assert barred.brief
    left: timedelta = barred.until - shop.at
    assert timedelta(seconds=30) < left <= timedelta(seconds=100)


def test_a_wrong_rate_in_the_database_stops_nobody(shop: Shop) -> None:
    bill = shop.failed_bill()
    Connection.objects.filter(pk=shop.connection.pk).update(settings={"max_per_second": "many", "timeout_seconds": 1})
    assert shop.retry(bill).succeeded == 1
