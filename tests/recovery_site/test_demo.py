"""The demo: a history that holds together, traffic through the front door, a command that cleans up after itself."""

import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count, islice
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from django.conf import settings
from django.core.management import CommandError, call_command
from django.db.models import Count
from pytest_django.live_server_helper import LiveServer

from accounts.models import Membership, Merchant, User
from invoices.models import Attempt, Customer, Event, Invoice, OutboxMessage, Transaction
from invoices.services.outbox import outbox_drain
from notifications.models import Alert
from recovery_site.common import ids
from recovery_site.demo import history
from recovery_site.demo.cast import Cast, cast_ensure, onlooker_admit
from recovery_site.demo.delivery import DAY, deliveries_of
from recovery_site.demo.history import history_fill, newest_instant
from recovery_site.demo.staff import staff_day
from recovery_site.demo.traffic import Traffic
from retries.models import Case
from tests.durability.worker_process import eventually
from tests.support.ports import free_port
from tests.support.quiet import quiet
from webhooks.models import InboxEvent
from webhooks.states import InboxStatus

ROOT = Path(__file__).resolve().parents[2]
SINCE = datetime(2026, 5, 4, 9, tzinfo=UTC)
pytestmark = pytest.mark.django_db(transaction=True)


def cast_of(days: int, folder: Path) -> Cast:
    cast = cast_ensure(config={"ledger": str(folder / "simulator.sqlite3")})
    return replace(cast, since=SINCE, until=SINCE + days * DAY)


def test_history_goes_through_the_services_and_holds_together(tmp_path: Path) -> None:
    cast, days = cast_of(9, tmp_path), count()
    history_fill(cast, processes=2, cases_per_day=1.5, progress=lambda: next(days))
    assert next(days) == 9
    told = list(deliveries_of(cast, start=cast.since, end=cast.until, cases_per_day=1.5))
    assert set(InboxEvent.objects.values_list("provider_event_id", flat=True)) == {each.event_id for each in told}
    assert set(InboxEvent.objects.values_list("status", flat=True)) <= {InboxStatus.PROCESSED, InboxStatus.IGNORED}
    assert dict(InboxEvent.objects.values_list("provider_event_id", "received_at")) == {
        each.event_id: each.at for each in told
    }
    closed = Counter(Case.objects.values_list("status", flat=True))
    assert min(closed["RECOVERED"], closed["LOST"], closed["OPEN"]) >= 1
    assert set(Merchant.objects.values_list("name", flat=True)) == {"Alpenglow Software", "Northwind Media"}
    for merchant in cast.players.values():
        assert Case.objects.filter(merchant=merchant.merchant, recovered_by="retry").exists()
    call_command("verify_ledger", "--json")  # raises if a promise is broken, such as an invoice without a next step
    newest = newest_instant(cast)
    assert cast.until - DAY < newest <= cast.until
    assert not Event.objects.exclude(occurred_at__range=(cast.since, cast.until)).exists()
    eventually(lambda: outbox_drain(now=cast.until) and not OutboxMessage.objects.filter(done_at=None).exists(), 120)
    staff_day(cast, cast.until)
    seen = Alert.objects.exclude(acknowledged_at=None)
    assert set(seen.values_list("acknowledged_by", flat=True)) == {"maya"}
    assert Alert.objects.filter(acknowledged_at=None, raised_at__lte=cast.until - 2 * DAY).count() == 0


@pytest.fixture
def same_ids(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Begins public ids that only depend on how many there were before: the simulated issuer looks at them."""

    def restart() -> None:
        ticks = count(1_700_000_000_000_000_000, 1_000_000)
        monkeypatch.setattr(ids, "secrets", SimpleNamespace(randbits=Random(7).getrandbits))
        monkeypatch.setattr(ids, "time", SimpleNamespace(time_ns=lambda: next(ticks)))

    return restart


def ledger() -> dict[str, Any]:
    """What a history amounts to."""
    counted: dict[str, Any] = {
        model.__name__: Counter(model._default_manager.values_list("status", flat=True))
        for model in (Invoice, Transaction, Attempt, Case)
    }
    counted["customers"] = Customer.objects.count()
    counted["events"] = Counter(
        dict(Event.objects.order_by().values_list("kind").annotate(number=Count("id")).values_list("kind", "number"))
    )
    counted["codes"] = Counter(Attempt.objects.values_list("origin", "raw_code", "attempted_at"))
    return counted


def test_same_seed_lives_the_same_history_also_after_an_interruption(
    tmp_path: Path, same_ids: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def drained(**known: Any) -> Any:
        quiet()  # what the outbox sees must not depend on the transactions of tests beside this one
        return outbox_drain(**known)

    monkeypatch.setattr(history, "outbox_drain", drained)
    same_ids()
    cast, days = cast_of(3, tmp_path / "first"), count()
    history_fill(cast, processes=1, cases_per_day=2)
    whole = ledger()
    assert whole["Case"]["RECOVERED"] >= 1
    call_command("flush", interactive=False, verbosity=0)

    def interrupt() -> None:
        if next(days) == 1:
            raise KeyboardInterrupt

    same_ids()
    cast = cast_of(3, tmp_path / "second")
    with pytest.raises(KeyboardInterrupt):
        history_fill(cast, processes=1, cases_per_day=2, progress=interrupt)
    assert newest_instant(cast) <= cast.since + 2 * DAY
    history_fill(cast, processes=1, cases_per_day=2, progress=lambda: next(days))
    assert next(days) in (3, 4)
    assert ledger() == whole


def test_future_joins_the_history_without_a_seam(tmp_path: Path) -> None:
    cast = cast_of(4, tmp_path)
    whole = list(deliveries_of(cast, start=cast.since, end=cast.until + 60 * DAY))
    cut = cast.until + timedelta(days=20, hours=7)
    later = list(deliveries_of(cast, start=cut, end=cast.until + 60 * DAY))
    assert later == [delivery for delivery in whole if delivery.at >= cut]
    assert [delivery.at for delivery in whole] == sorted(delivery.at for delivery in whole)
    assert len({delivery.event_id for delivery in whole}) == len(whole) > 300


def test_a_history_that_goes_on_knows_the_customers_of_earlier_charges(tmp_path: Path) -> None:
    """Refunds and disputes name the charge alone, which was told before the fill was interrupted."""
    cast = cast_of(60, tmp_path)
    whole = {told.event_id: group for group, told in history._by_group(cast, cast.since, 2.0)}
    rest = {told.event_id: group for group, told in history._by_group(cast, cast.since + 40 * DAY, 2.0)}
    assert 0 < len(rest) < len(whole)
    assert rest == {event: group for event, group in whole.items() if event in rest}


def test_cast_is_made_once_and_only_the_onlookers_password_changes(tmp_path: Path) -> None:
    first, again = cast_of(1, tmp_path), cast_of(1, tmp_path)
    assert {name: player.secret for name, player in first.players.items()} == {
        name: player.secret for name, player in again.players.items()
    }
    passwords = [onlooker_admit(first), onlooker_admit(again)]
    user = User.objects.get(username="demo")
    assert [user.check_password(password) for password in passwords] == [False, True]
    assert (user.is_superuser, user.is_staff) == (True, True)
    assert sorted(Membership.objects.values_list("user__username", "role")) == [
        *[("demo", "owner")] * 2,
        *[("maya", "support")] * 2,
    ]
    assert User.objects.get(username="maya").has_usable_password() is False


def test_traffic_sends_signed_webhooks_over_http(live_server: LiveServer, tmp_path: Path) -> None:
    cast = cast_of(2, tmp_path)
    told = list(islice(deliveries_of(cast, start=cast.since, end=cast.until), 5))
    traffic = Traffic(cast, iter(told), live_server.url)
    traffic.start()
    traffic.join(30)
    assert traffic.sent == 5
    assert set(InboxEvent.objects.values_list("provider_event_id", flat=True)) == {each.event_id for each in told}


def test_traffic_waits_for_the_clock_and_stops_at_once(tmp_path: Path) -> None:
    cast = cast_of(2, tmp_path)
    (first,) = islice(deliveries_of(cast, start=cast.since, end=cast.until), 1)
    traffic = Traffic(cast, iter([replace(first, at=datetime.now(UTC) + DAY)]), "http://127.0.0.1:9")
    traffic.start()
    traffic.stop()
    assert (traffic.is_alive(), traffic.sent) == (False, 0)


def test_production_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "PRODUCTION", True)
    with pytest.raises(CommandError, match="does not run with ENVIRONMENT=production"):
        call_command("run_demo")
    assert Merchant.objects.count() == 0


def test_busy_port_is_told_before_anything_is_filled(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        monkeypatch.setattr(settings, "DEMO_PORT", port)
        with pytest.raises(CommandError) as refused:
            call_command("run_demo")
    assert str(refused.value) == (
        f"Port {port} cannot be used (Address already in use): stop what listens there, or choose another one with"
        f" the setting PORT, as in `PORT={port + 1} make run`."
    )
    assert Merchant.objects.count() == 0


@pytest.fixture
def port() -> int:
    return free_port(run=2)


class Demo:
    """A `run_demo` process with a small history."""

    def __init__(self, environment: dict[str, str], folder: Path, port: int, **variables: str) -> None:
        self.folder, self.output = folder, folder / "output"
        options = ["--days", "1", "--cases-per-day", "2", "--log-dir", str(folder)]
        with self.output.open("wb") as told:
            self.process = subprocess.Popen(
                [sys.executable, "manage.py", "run_demo", *options],
                cwd=ROOT,
                env={**environment, "PORT": str(port), **variables},
                stdin=subprocess.DEVNULL,
                stdout=told,
                stderr=told,
                start_new_session=True,
            )
        eventually(lambda: "Ctrl-C stops everything" in self.told() or self.process.poll() is not None, 120)
        assert self.process.poll() is None, self.told()
        self.family = psutil.Process(self.process.pid).children(recursive=True)

    def told(self) -> str:
        return self.output.read_text()

    def left_over(self) -> list[psutil.Process]:
        """Processes of the demo that still run some seconds after it ended."""
        return psutil.wait_procs(self.family, timeout=20)[1]

    def abandon(self) -> None:
        for process in [*self.family, psutil.Process(self.process.pid)] if self.process.poll() is None else self.family:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait(30)


@pytest.fixture
def demo(process_environment: dict[str, str], tmp_path: Path) -> Iterator[Callable[..., Demo]]:
    made: list[Demo] = []

    def make(port: int, **variables: str) -> Demo:
        made.append(Demo(process_environment, tmp_path, port, **variables))
        return made[-1]

    yield make
    for each in made:
        each.abandon()


def test_demo_serves_lives_on_and_leaves_nothing_behind(demo: Callable[..., Demo], port: int) -> None:
    running = demo(port, CLOCK_SPEED="20000")
    assert f"http://127.0.0.1:{port}/" in running.told()
    assert re.search(r"password +[0-9a-f]{4}(-[0-9a-f]{4}){2} ", running.told())
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/accounts/login/", timeout=20) as page:
        assert page.status == 200
    until = Merchant.objects.earliest("created_at").created_at.replace(minute=0, second=0, microsecond=0)
    eventually(InboxEvent.objects.filter(received_at__gte=until, status=InboxStatus.PROCESSED).exists, 60)
    eventually(Attempt.objects.filter(attempted_at__gte=until, origin="OURS").exists, 60)
    running.process.send_signal(signal.SIGTERM)
    assert running.process.wait(60) == 0
    assert running.told().endswith("Stopping ...\n")
    assert running.left_over() == []
    assert "Traceback" not in "".join(
        (running.folder / f"{name}.log").read_text() for name in ("worker", "web", "stream")
    )


def test_end_of_the_web_server_ends_the_demo_with_a_clear_line(demo: Callable[..., Demo], port: int) -> None:
    running = demo(port)
    (web,) = [
        each
        for each in psutil.Process(running.process.pid).children()
        if "recovery_site.web:application" in each.cmdline()
    ]
    web.kill()
    assert running.process.wait(60) == 1
    line = running.told().splitlines()[-1]
    assert line.startswith("CommandError: The web server has ended with code -9; the last lines of ")
    assert running.left_over() == []
