"""Down, slow, back again: Redis may cost a tenth of a second a few times, and then nothing."""

import socket
import threading
from collections.abc import Iterator

import pytest
import redis

from tests.support.ports import free_port
from tests.tokens.history import Book, ask, plain
from tokens.mirror import (
    Answer,
    client,
    mirror_counters,
    mirror_customer,
    mirror_rebuild,
    selection_read,
    tokens_select,
)
from tokens.mirror.breaker import FAILURES_TO_OPEN, SLOW_SECONDS, Breaker


class Time:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Time:
    return Time()


@pytest.fixture
def breaker(clock: Time) -> Breaker:
    return Breaker(clock=clock)


def fail(breaker: Breaker, times: int = FAILURES_TO_OPEN) -> None:
    for _ in range(times):
        assert breaker.allows()
        breaker.failed()


def test_single_failures_do_not_open_it(breaker: Breaker):
    for _ in range(10):
        fail(breaker, FAILURES_TO_OPEN - 1)
        breaker.succeeded(0.001)
    assert not breaker.open
    assert breaker.opened == 0


def test_three_failures_in_a_row_open_it_for_a_second(breaker: Breaker, clock: Time):
    fail(breaker)
    assert (breaker.open, breaker.opened, breaker.allows()) == (True, 1, False)
    clock.now += 0.999
    assert not breaker.allows()
    clock.now += 0.001
    assert breaker.allows()
    assert not breaker.allows(), "one probe per pause"
    breaker.succeeded(0.001)
    assert not breaker.open
    assert breaker.allows()


def test_a_probe_that_fails_doubles_the_pause_up_to_half_a_minute(breaker: Breaker, clock: Time):
    fail(breaker)
    pauses = []
    for _ in range(8):
        waited = 0.0
        while not breaker.allows():
            clock.now += 0.5
            waited += 0.5
        pauses.append(waited)
        breaker.failed()
    assert pauses == [1, 2, 4, 8, 16, 30, 30, 30]
    assert breaker.opened == 1
    clock.now += 30
    assert breaker.allows()
    breaker.succeeded(0.001)
    fail(breaker)
    clock.now += 1
    assert breaker.allows(), "after a return the pause is short again"


def test_a_probe_that_never_reports_does_not_block_the_next(breaker: Breaker, clock: Time):
    fail(breaker)
    clock.now += 1
    assert breaker.allows()
    clock.now += 1
    assert breaker.allows()


def test_slow_answers_count_as_failures(breaker: Breaker):
    for _ in range(FAILURES_TO_OPEN):
        breaker.succeeded(SLOW_SECONDS + 0.001)
    assert breaker.open


# --- with a real customer -------------------------------------------------------------------------------------------


@pytest.fixture
def book(db: None, redis_client: redis.Redis, clock: Time, monkeypatch: pytest.MonkeyPatch) -> Book:
    monkeypatch.setattr(client, "breaker", Breaker(clock=clock))
    return Book()


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A server that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        stop = threading.Event()
        held: list[socket.socket] = []

        def listen() -> None:
            server.settimeout(0.05)
            while not stop.is_set():
                try:
                    held.append(server.accept()[0])
                except TimeoutError:
                    continue

        thread = threading.Thread(target=listen)
        thread.start()
        yield server.getsockname()[1]
        stop.set()
        thread.join()
        for connection in held:
            connection.close()


@pytest.mark.parametrize("fault", ["down", "silent"])
def test_without_redis_postgresql_ranks_and_redis_is_soon_left_alone(
    book: Book, settings, clock: Time, silent_port: int, fault: str
):
    customer = book.customer()
    token, invoice = book.token(customer), book.invoice(customer)
    working = settings.REDIS_URL
    settings.REDIS_URL = f"redis://127.0.0.1:{free_port() if fault == 'down' else silent_port}/0"
    before = mirror_counters()
    for _ in range(10):
        answer = ask(tokens_select, invoice)
        assert plain(answer) == plain(ask(selection_read, invoice))
        assert ([one.pk for one in answer.tokens], answer.warm) == ([token.pk], False)
    assert mirror_customer(customer.pk) is False
    after = mirror_counters()
    assert after["failed"] - before["failed"] == FAILURES_TO_OPEN
    assert after["skipped"] - before["skipped"] == 10 - FAILURES_TO_OPEN + 1
    assert (after["opened"], after["open"]) == (1, 1)

    settings.REDIS_URL = working
    assert ask(tokens_select, invoice).warm is False, "the breaker is still open"
    clock.now += 1
    assert ask(tokens_select, invoice).warm is False, "the probe is answered, but Redis holds nothing yet"
    assert mirror_counters()["open"] == 0
    assert ask(tokens_select, invoice).warm is True
    assert mirror_counters()["cold"] == before["cold"] + 1


def test_a_value_that_redis_cannot_work_with_is_no_outage(book: Book, redis_client: redis.Redis):
    customer = book.customer()
    book.token(customer)
    invoice = book.invoice(customer)
    assert mirror_customer(customer.pk)
    stored = redis_client.get(book.keys(customer).budget)
    for _ in range(FAILURES_TO_OPEN + 2):
        # The head promises 200 tokens that are not there: the script fails on reading past the end.
        redis_client.set(book.keys(customer).budget, stored[:16] + b"\xc8\x00" + stored[18:])
        assert ask(tokens_select, invoice).answer is Answer.RANKED
    assert not client.breaker.open
    assert ask(tokens_select, invoice).warm


def test_a_process_that_only_mirrors_finds_redis_again(book: Book, clock: Time) -> None:
    customer = book.customer()
    book.token(customer)
    fail(client.breaker)
    for _ in range(60):  # an hour with a healthy Redis
        clock.now += 60
        mirror_customer(customer.pk)
    assert not client.breaker.open


def test_a_person_who_looks_finds_redis_again(book: Book, clock: Time) -> None:
    customer = book.customer()
    fail(client.breaker)
    clock.now += 60
    assert client.read(book.keys(customer)) is not None
    assert not client.breaker.open


def test_rebuild_after_an_outage_writes_what_it_deleted(book: Book, clock: Time) -> None:
    customer = book.customer()
    book.token(customer)
    fail(client.breaker)
    clock.now += 60
    assert mirror_rebuild().written == 1
