"""Threads of a drain: as many as are needed, errors come out where they are waited for, connections are closed."""

import threading
from collections.abc import Callable

import pytest
from django.db import connection

from retries.engine.crew import Crew
from retries.selectors import segment_facts
from retries.services.manual import invoice_cancel
from tests.support.shop import Shop

pytestmark = pytest.mark.django_db(transaction=True)


def backend(_: int) -> int:
    """The PostgreSQL process that serves this thread."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        (pid,) = cursor.fetchone()
    return int(pid)


def alive(pids: set[int]) -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE pid = ANY(%s)", [list(pids)])
        (number,) = cursor.fetchone()
    return int(number)


def test_every_thread_closes_its_connection(eventually: Callable[[Callable[[], bool]], None]) -> None:
    """Without that each drain would leave as many connections behind as it had threads."""
    together = threading.Barrier(4)

    def work(number: int) -> int:
        together.wait(60)
        return backend(number)

    with Crew[int, int](4, work, "test") as crew:
        for number in range(4):
            crew.give(number)
        pids = {crew.take() for _ in range(4)}
        assert len(pids) == 4
        assert alive(pids) == 4
    eventually(lambda: alive(pids) == 0)


@pytest.fixture
def eventually() -> Callable[[Callable[[], bool]], None]:
    """PostgreSQL needs a moment to see that somebody has gone."""

    def wait(holds: Callable[[], bool]) -> None:
        ended = threading.Event()
        for _ in range(600):
            if holds():
                return
            ended.wait(0.1)
        raise AssertionError("it never came true")

    return wait


def test_no_more_threads_than_work_and_an_error_comes_out_where_it_is_waited_for() -> None:
    names = set()

    def work(number: int) -> int:
        names.add(threading.current_thread().name)
        if number == 1:
            raise ZeroDivisionError("no luck")
        return number

    with Crew[int, int](8, work, "one") as crew:
        crew.give(0)
        assert crew.take() == 0
        crew.give(1)
        with pytest.raises(ZeroDivisionError):
            crew.take()
        assert crew.open == 0
    assert names == {"one-0"}


def test_segments_see_how_earlier_failures_ended(shop: Shop) -> None:
    first = shop.failed_bill()
    shop.tell(*first.attempt(shop.wait(hours=1)).succeeded())
    second = shop.failed_bill(customer=first.customer)
    invoice_cancel(invoice_pk=shop.invoice(second).pk, stamp=shop.staff(), reason="x")
    third = shop.failed_bill(customer=first.customer)
    facts = segment_facts(shop.customer(third), shop.invoice(third), shop.at)
    assert (facts.failed_cases, facts.recovered_cases, facts.settled_invoices, facts.invoices) == (2, 1, 1, 3)
