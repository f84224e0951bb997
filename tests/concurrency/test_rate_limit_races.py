"""A connection's rate limit is exact however many workers ask at once; the race is shown first."""

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection

from invoices.models import Connection
from recovery_site.common.clock import database_now
from retries.models import ProviderGate
from retries.services import gates
from retries.services.gates import Passage, gate_enter
from tests.support.shop import Shop

pytestmark = pytest.mark.django_db(transaction=True)
THREADS = 8
# One call in 200 seconds: no second one comes free while the test runs, however slow the machine is.
SLOW = 0.005


def fresh(shop: Shop) -> Connection:
    return Connection.objects.select_related("gate").get(pk=shop.connection.pk)


def ask_at_once(ask: Callable[[], Any]) -> list[Any]:
    """The answers that as many threads get when they all ask in the same moment."""
    barrier, answers = threading.Barrier(THREADS), []

    def run() -> None:
        try:
            barrier.wait(60)
            answers.append(ask())
        finally:
            connection.close()

    crowd = [threading.Thread(target=run) for _ in range(THREADS)]
    for thread in crowd:
        thread.start()
    for thread in crowd:
        thread.join(120)
    assert len(answers) == THREADS
    return answers


@pytest.fixture
def limited(new_shop: Callable[..., Shop]) -> Shop:
    shop = new_shop(max_per_second=0.01)
    type(shop.connection).objects.filter(pk=shop.connection.pk).update(settings={"max_per_second": SLOW})
    ProviderGate.objects.create(connection=shop.connection, merchant=shop.merchant)
    return shop


def test_reading_and_then_writing_the_bucket_lets_everybody_through(limited: Shop) -> None:
    meeting = threading.Barrier(THREADS)

    def naive() -> bool:
        gate = ProviderGate.objects.get(pk=limited.connection.pk)
        free = gate.next_free_at is None or gate.next_free_at <= database_now()
        meeting.wait(60)
        if free:
            ProviderGate.objects.filter(pk=gate.pk).update(next_free_at=database_now() + timedelta(seconds=1 / SLOW))
        return free

    assert ask_at_once(naive) == [True] * THREADS


@pytest.mark.parametrize("known", [True, False], ids=["with a gate", "before the first call"])
def test_one_statement_lets_exactly_one_through(limited: Shop, known: bool) -> None:
    if not known:
        ProviderGate.objects.all().delete()
    answers = ask_at_once(lambda: gate_enter(fresh(limited), now=limited.at))
    assert sum(isinstance(answer, Passage) for answer in answers) == 1


def test_a_full_bucket_gives_exactly_what_is_in_it(limited: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five calls fit: with a step of 200 s and room for four more, none comes back meanwhile."""
    monkeypatch.setattr(gates, "_TAKE", gates._TAKE.replace("%(room)s", "4 * %(step)s"))
    answers = [answer for _ in range(2) for answer in ask_at_once(lambda: gate_enter(fresh(limited), now=limited.at))]
    assert sum(isinstance(answer, Passage) for answer in answers) == 5


def test_one_worker_at_a_time_tries_a_provider_that_was_down(limited: Shop) -> None:
    ProviderGate.objects.filter(pk=limited.connection.pk).update(shut_until=limited.at, shut_times=1, strain=20)
    answers = ask_at_once(lambda: gate_enter(fresh(limited), now=limited.at))
    assert [answer.probe for answer in answers if isinstance(answer, Passage)] == [True]
