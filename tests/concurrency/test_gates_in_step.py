"""Gates, rate limits and the crew's queue."""

import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest

from invoices.models import Connection
from retries.engine import prepare
from retries.engine.drain import retries_drain
from retries.models import ProviderGate, RetryJob
from tests.support.shop import Shop
from tests.support.stripe import Bill

pytestmark = pytest.mark.django_db(transaction=True)


def first(shop: Shop, bill: Bill, band: int = 0, ago: int = 0) -> None:
    RetryJob.objects.filter(pk=shop.job(bill).pk).update(band=band, due_at=shop.at - timedelta(minutes=ago))


def tries(shop: Shop, bill: Bill) -> list[str]:
    return [one.status for one in shop.attempts(bill) if one.origin == "OURS"]


@pytest.mark.parametrize("alone", [False, True])
def test_job_that_can_never_be_prepared_does_not_block_a_rate_limited_connection(
    new_shop: Callable[..., Shop], monkeypatch: pytest.MonkeyPatch, alone: bool
) -> None:
    if alone:
        monkeypatch.setattr("retries.engine.drain._is_only_sent", lambda claim, owner, now: False)
    shop = new_shop(max_per_second=1)
    poison, good = shop.failed_bill(), shop.failed_bill()
    shop.wait(days=1)
    first(shop, poison, 0, 60)
    first(shop, good, 1, 30)
    within, tried = prepare._prepare, list[int]()

    def prepare_or_raise(claim: Any, *given: Any) -> Any:
        if claim.invoice_pk == shop.invoice(poison).pk:
            tried.append(claim.job_pk)
            raise RuntimeError("no such thing")
        return within(claim, *given)

    monkeypatch.setattr(prepare, "_prepare", prepare_or_raise)
    until = time.monotonic() + 8
    counts = retries_drain(now=shop.at, keep_going=lambda: time.monotonic() < until)
    assert time.monotonic() < until, f"the drain does not end by itself: {counts.as_dict()}, tried {len(tried)} times"
    assert (counts.rescheduled, counts.succeeded) == (1, 1)
    assert shop.job(poison).failures == 1


@pytest.mark.parametrize("alone", [False, True])
def test_nothing_is_sent_after_the_provider_asked_to_wait(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, alone: bool
) -> None:
    if alone:
        monkeypatch.setattr("retries.engine.drain._is_only_sent", lambda claim, owner, now: False)
    one, two = shop.failed_bill(), shop.failed_bill()
    for bill in (one, two):
        shop.sandbox.script(bill.token, "http429:600", "ok")
    shop.wait(days=1)
    retries_drain(now=shop.at, threads=1)
    gate = ProviderGate.objects.get(pk=shop.connection.pk)
    assert gate.asked_until is not None
    calls = [
        attempt for bill in (one, two) for attempt in shop.attempts(bill) if attempt.raw_code == "rate_limit_exceeded"
    ]
    assert len(calls) == 1


@pytest.mark.parametrize("alone", [False, True])
def test_nothing_is_sent_after_the_breaker_has_shut(shop: Shop, monkeypatch: pytest.MonkeyPatch, alone: bool) -> None:
    if alone:
        monkeypatch.setattr("retries.engine.drain._is_only_sent", lambda claim, owner, now: False)
    monkeypatch.setattr("retries.breaker.SHUT_AT", 1)
    bills = [shop.failed_bill() for _ in range(2)]
    shop.wait(days=1)
    Connection.objects.filter(pk=shop.connection.pk).update(base_url="http://127.0.0.1:9")
    retries_drain(now=shop.at, threads=1)
    assert ProviderGate.objects.get(pk=shop.connection.pk).shut_times == 1
    calls = [attempt for bill in bills for attempt in shop.attempts(bill) if attempt.raw_code == "network_error"]
    assert len(calls) == 1


@pytest.mark.parametrize("alone", [False, True])
def test_rate_limit_holds_where_calls_wait_for_a_thread(
    new_shop: Callable[..., Shop], monkeypatch: pytest.MonkeyPatch, alone: bool
) -> None:
    if alone:
        monkeypatch.setattr("retries.engine.drain._is_only_sent", lambda claim, owner, now: False)
    slow, limited = new_shop(timeout_seconds=10), new_shop(max_per_second=0.5)
    held = slow.failed_bill()
    slow.sandbox.script(held.token, "slow:4")
    bills = [limited.failed_bill() for _ in range(2)]
    slow.wait(days=1)
    limited.wait(days=1)
    first(slow, held, 0, 60)
    first(limited, bills[0], 1, 50)
    first(limited, bills[1], 1, 40)
    assert retries_drain(now=slow.at, threads=1).succeeded == 3
    calls = limited.sandbox.charges(*(bill.customer for bill in bills))
    at = sorted(datetime.fromisoformat(call["created_at"].replace("Z", "+00:00")) for call in calls)
    gap = (at[1] - at[0]).total_seconds()
    assert gap > 1.9, f"two calls within {gap} s, at most one in two seconds is allowed"
