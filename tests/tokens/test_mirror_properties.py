"""Whatever happens to Redis: it never permits what PostgreSQL refuses, and warm and quiet both rank alike."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import SimpleNamespace

import pytest
import redis
from django.db import transaction
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from invoices.models import Attempt, Invoice
from retries.engine.claim import jobs_claim
from retries.engine.precheck import refused_early
from retries.engine.prepare import Prepared, Refused, attempt_prepare
from retries.models import RetryJob
from tests.console.world import World
from tests.tokens.history import NOW, Book, ask, plain
from tokens.mirror import mirror_customer, selection_read, tokens_select
from tokens.mirror.keys import customer_keys
from tokens.models import ImportedMark, Token
from tokens.states import TokenStatus

DAY = timedelta(days=1)
LEASE, TIMEOUT = timedelta(minutes=5), timedelta(seconds=5)
FEW = settings(
    max_examples=settings.default.max_examples // 2 if settings.default else 50,
    deadline=None,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),  # shrinking with a database takes longer than reading
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@contextmanager
def undone() -> Iterator[None]:
    """Everything inside is rolled back: examples must not see each other. Like pytest-django's own transaction, it
    lets durable ones begin inside."""
    block = transaction.atomic()
    block._from_testcase = True
    with block:
        yield
        transaction.set_rollback(True)


@pytest.fixture
def quiet_clock(db: None, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> redis.Redis:
    monkeypatch.setattr("recovery_site.common.clock.now", lambda: NOW)
    monkeypatch.setattr("tokens.mirror.selection._limits", {})
    return redis_client


# --- alike ----------------------------------------------------------------------------------------------------------

instants = st.integers(0, 45 * 86_400_000_000).map(lambda number: NOW + DAY - timedelta(microseconds=number))
statuses = st.sampled_from(["DECLINED"] * 6 + ["SUCCEEDED", "SENDING", "UNKNOWN", "AWAITING"])
tries = st.lists(st.tuples(instants, statuses, st.sampled_from([4_990, 4_990, 1_000]), st.booleans()), max_size=40)
tokens = st.lists(
    st.fixed_dictionaries(
        {
            "network": st.sampled_from(["visa", "mastercard", "amex", "elo", "maestro", "", "sepa", "ach"]),
            "expiry": st.sampled_from([None, (11, 2026), (10, 2026), (12, 2026), (3, 2027), (0, 2027)]),
            "status": st.sampled_from([TokenStatus.LIVE] * 5 + [TokenStatus.DECLINED, TokenStatus.REMOVED]),
            "succeeded": st.none() | instants,
            "waits": st.none() | instants,
            "stopped": st.integers(0, 9).map(lambda number: number == 0),
            "imported": st.lists(st.tuples(instants, st.integers(1, 20)), max_size=2),
            "joins": st.booleans(),
            "tries": tries,
        }
    ),
    max_size=4,
)


def draw_customer(book: Book, drawn: list[dict]) -> Invoice:
    customer = book.customer()
    invoice, other = book.invoice(customer), book.invoice(customer)
    made: list[Token] = []
    for values in drawn:
        bank = values["network"] in ("sepa", "ach")
        token = book.token(
            customer,
            network=values["network"],
            kind=values["network"] if bank else "card",
            expiry=None if bank else values["expiry"],
            status=values["status"],
            last_success_at=values["succeeded"],
        )
        group = {"budget_group": made[0].card.budget_group} if made and values["joins"] else {}
        stop = {"stopped_at": NOW, "stop_code": "03"} if values["stopped"] else {}
        book.card(token, wait_until=values["waits"], **group, **stop)
        for at, status, amount, here in values["tries"]:
            book.tries(token, invoice if here else other, [at], status=status, amount_minor=amount)
        for at, count in values["imported"]:
            ImportedMark.objects.get_or_create(
                merchant=book.merchant, card=token.card, token=token, at=at, source="csv", defaults={"count": count}
            )
        made.append(token)
    return invoice


@FEW
@given(drawn=tokens, ahead=st.integers(-20, 40 * 24), limit=st.sampled_from([15, 20]))
def test_warm_and_quiet_both_rank_alike(quiet_clock: redis.Redis, drawn: list[dict], ahead: int, limit: int):
    with undone(), pytest.MonkeyPatch.context() as patch:
        patch.setattr("django.conf.settings.VISA_RETRY_LIMIT", limit)
        invoice = draw_customer(Book(), drawn)
        assert mirror_customer(invoice.customer_id)
        at = NOW + timedelta(hours=ahead)
        warm = ask(tokens_select, invoice, at)
        assert plain(warm) == plain(ask(selection_read, invoice, at))
        newest = Attempt.objects.filter(customer=invoice.customer).order_by("-attempted_at").first()
        if newest is None or at >= min(newest.attempted_at, NOW):
            assert warm.warm


# --- never more -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fault:
    """What is done to Redis: `before` the last tries are known to PostgreSQL, `after` that."""

    name: str
    before: Callable[[redis.Redis, Invoice], None] = lambda server, invoice: None
    after: Callable[[redis.Redis, Invoice], None] = lambda server, invoice: None

    def __repr__(self) -> str:
        return self.name


def keys_of(invoice: Invoice) -> tuple[str, str, str]:
    found = customer_keys(invoice.connection.public_id, invoice.customer.connector_customer_id)
    return found.status, found.tokens, found.budget


def mirrored(server: redis.Redis, invoice: Invoice) -> None:
    assert mirror_customer(invoice.customer_id)


def flushed(server: redis.Redis, invoice: Invoice) -> None:
    server.flushdb()
    server.script_flush()


def lists(server: redis.Redis, invoice: Invoice) -> None:
    server.flushdb()
    for key in keys_of(invoice):
        server.rpush(key, "somebody else's")


def locked(server: redis.Redis, invoice: Invoice) -> None:
    mirrored(server, invoice)
    server.set(keys_of(invoice)[0], "txn_of_somebody_else:1")


def written(change: Callable[[bytes], bytes]) -> Callable[[redis.Redis, Invoice], None]:
    def write(server: redis.Redis, invoice: Invoice) -> None:
        mirrored(server, invoice)
        for key in (keys_of(invoice)[0], keys_of(invoice)[2]):
            server.set(key, change(server.get(key) or b"txn_x:1"))

    return write


def opened_up(server: redis.Redis, invoice: Invoice) -> None:
    """All marks gone, but the value is well formed: the worst a bug in another program could do."""
    attempts = Attempt.objects.filter(customer=invoice.customer)
    attempts.update(counts=False)
    mirrored(server, invoice)
    attempts.update(counts=True)


FAULTS = [
    Fault("fresh", after=mirrored),
    Fault("never written"),
    Fault("stale", before=mirrored),
    Fault("flushed", before=mirrored, after=flushed),
    Fault("other types", after=lists),
    Fault("locked by somebody else", after=locked),
    Fault("cut short", after=written(lambda value: value[:-3])),
    Fault("text", after=written(lambda value: b"hello")),
    Fault("zeroes", after=written(lambda value: value[:20] + bytes(len(value) - 20))),
    Fault("ones", after=written(lambda value: value[:20] + b"\xff" * (len(value) - 20))),
    Fault("turned bits", after=written(lambda value: value[:30] + bytes(255 - byte for byte in value[30:]))),
    Fault("emptied", after=opened_up),
]


@FEW
@given(
    fault=st.sampled_from(FAULTS),
    known=st.lists(st.integers(1, 40 * 24 * 60), max_size=18),
    added=st.lists(st.integers(1, 40 * 24 * 60), max_size=18),
    wait=st.none() | st.integers(-60, 60),
)
def test_redis_neither_permits_nor_delays_what_postgresql_decides(
    quiet_clock: redis.Redis, fault: Fault, known: list[int], added: list[int], wait: int | None
):
    with undone(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "retries.engine.precheck.connection_client",
            lambda connection: SimpleNamespace(traits=SimpleNamespace(bills=True)),
        )
        world = World(at=NOW - 3 * DAY)
        invoice = world.fail(network="amex", customer="cus_{a}:b")
        at = max(NOW, RetryJob.objects.get(invoice=invoice).due_at)
        token = Token.objects.get(customer=invoice.customer)
        add(world, token, invoice, known, at)
        fault.before(quiet_clock, invoice)
        add(world, token, invoice, added, at)
        if wait is not None:
            Book.card(None, token, wait_until=at + timedelta(minutes=wait))  # type: ignore[arg-type]
        fault.after(quiet_clock, invoice)

        truth = ask(selection_read, invoice, at, owner=invoice.transactions.get().public_id)
        allowed_at = {one.pk: one.allowed_at for one in truth.tokens}[token.pk]
        (claim,) = jobs_claim(now=at, lease=LEASE, limit=10)
        answer: Prepared | Refused = refused_early(claim, now=at, lease=LEASE) or attempt_prepare(
            claim, now=at, lease=LEASE, timeout=TIMEOUT
        )
        assert isinstance(answer, Prepared) == (allowed_at <= at)
        if isinstance(answer, Refused):
            job = RetryJob.objects.get(pk=claim.job_pk)
            assert (job.status, job.due_at) == ("SCHEDULED", allowed_at) or not answer.rebooked


def add(world: World, token: Token, invoice: Invoice, minutes: list[int], at: datetime) -> None:
    Book.tries(world, token, invoice, [at - timedelta(minutes=ago) for ago in minutes])  # type: ignore[arg-type]
