"""`run_worker` with real processes: it charges, it stops cleanly, and it survives the death of any of its parts."""

import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import psutil
import pytest
from django.conf import settings
from django_q.models import OrmQ, Schedule

from invoices.models import Attempt
from invoices.states import AttemptStatus, InvoiceStatus
from recovery_site.common.clock import database_now
from recovery_site.worker import supervisor as supervisor_module
from recovery_site.worker.process import ClusterProcess
from recovery_site.worker.schedules import schedules_ensure
from recovery_site.worker.supervisor import INBOX, MAIN, START_SECONDS, ClusterBroken, Supervisor
from retries.models import Beat
from retries.services.sweeps import beat, sweep_run
from retries.tasks import drain_retries
from tests.contract.sandbox_process import Psp, servers
from tests.durability.worker_process import Biller, Worker, eventually, workers
from webhooks.tasks import drain_inbox

# Real processes on a machine that may be busy: every wait polls, and the whole of a test may take its time.
pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(420)]
FAST = {"QUEUE_WORKERS": "1", "RETRY_PROCESSING_INTERVAL": "1s", "QUEUE_WEDGED_AFTER": "2s"}


@pytest.fixture
def psp(tmp_path: Path) -> Iterator[Psp]:
    with servers(tmp_path) as make:
        yield make()


@pytest.fixture
def worker(process_environment: dict[str, str], tmp_path: Path) -> Iterator[Callable[..., Worker]]:
    with workers(process_environment, tmp_path) as make:
        yield make


def charged(psp: Psp) -> list[int]:
    return [charge["amount"] for charge in psp.get("/ledger")["charges"] if charge["status"] == "succeeded"]


def settles(biller: Biller, invoice: str) -> None:
    eventually(lambda: biller.status(invoice) == InvoiceStatus.SETTLED)


def test_webhooks_become_charges_and_orders_do_not_pile_up(psp: Psp, worker: Callable[..., Worker]) -> None:
    """No sweep's interval ever passes here: what came is worked off because it came, many by one order."""
    running = worker(RETRY_PROCESSING_INTERVAL="10h")
    biller = Biller(psp.url)
    sweeps = ("drain_inbox", "drain_retries", "drain_outbox")
    eventually(lambda: Beat.objects.filter(name__in=sweeps, data__state="done").count() == len(sweeps))
    invoices = [biller.fails() for _ in range(5)]
    for invoice in invoices:
        settles(biller, invoice)
    assert charged(psp) == [4900] * 5
    names = set(Beat.objects.values_list("name", flat=True))
    assert {"drain_inbox", "drain_retries", "drain_outbox", "reconcile_sweep"} <= names
    assert len([name for name in names if name.startswith("worker:")]) == 1
    assert OrmQ.objects.count() <= 6
    assert running.end() == 0
    assert running.left_over() == []
    assert not Beat.objects.filter(name__startswith="worker:").exists()


def test_sigterm_lets_the_charge_that_is_being_sent_finish(psp: Psp, worker: Callable[..., Worker]) -> None:
    biller = Biller(psp.url)
    invoice = biller.fails("tok_slow")
    psp.put("/script", token=f"tok_slow__{invoice.removeprefix('in_')}", steps=["slow:3"])
    running = worker(**FAST)
    eventually(lambda: Attempt.objects.filter(status=AttemptStatus.SENDING).exists())
    later = biller.fails()
    assert running.end() == 0
    attempt = Attempt.objects.get(invoice__provider_invoice_id=invoice, origin="OURS")
    assert (attempt.status, biller.status(invoice)) == (AttemptStatus.SUCCEEDED, InvoiceStatus.SETTLED)
    # The other one was not begun, or (where the signal took its time) finished as well: nothing hangs in between.
    finished = biller.status(later) == InvoiceStatus.SETTLED
    assert charged(psp) == [4900] * (2 if finished else 1)
    assert not Attempt.objects.filter(status=AttemptStatus.SENDING).exists()
    assert running.left_over() == []


def test_death_of_an_idle_process_or_of_the_guard_costs_seconds_not_the_work(
    psp: Psp, worker: Callable[..., Worker]
) -> None:
    running = worker(**FAST)
    biller = Biller(psp.url)
    settles(biller, biller.fails())

    # Mostly the one idle worker dies holding the lock of q2's task queue, so that its successor waits for ever.
    (idle,) = running.workers(MAIN, 1)
    eventually(lambda: not OrmQ.objects.filter(key=MAIN).exists())
    with suppress(psutil.NoSuchProcess):
        idle.kill()
    settles(biller, biller.fails())

    guard, before = running.guard(MAIN), len(running.restarts(MAIN))
    with suppress(psutil.NoSuchProcess):
        guard.kill()
    settles(biller, biller.fails())
    eventually(lambda: len(running.restarts(MAIN)) > before)

    before = len(running.restarts(INBOX))
    running.cluster(INBOX).kill()
    settles(biller, biller.fails())
    assert len(running.restarts(INBOX)) > before
    assert charged(psp) == [4900] * 4
    assert running.end() == 0
    assert running.left_over() == []


def test_cluster_without_its_guard_ends_with_an_error(process_environment: dict[str, str]) -> None:
    cluster = ClusterProcess(MAIN, 1, environment={**process_environment, "QUEUE_WORKERS": "1"})
    cluster.start()
    try:
        assert cluster.pid is not None
        main = psutil.Process(cluster.pid)
        (guard,) = eventually(lambda: [one for one in main.children() if len(one.children()) >= 3])
        guard.kill()
        assert cluster.wait(60)
        assert cluster.exit_code() == 1
    finally:
        cluster.kill()


def test_nothing_goes_on_unsupervised_and_the_next_worker_takes_over_at_once(
    psp: Psp, worker: Callable[..., Worker]
) -> None:
    biller = Biller(psp.url, timeout_seconds=90)
    invoice = biller.fails("tok_slow")
    # Longer than the kills can take, however busy the machine: nobody waits for this answer.
    psp.put("/script", token=f"tok_slow__{invoice.removeprefix('in_')}", steps=["slow:60"])
    killed = worker(**FAST)
    killed.cluster(MAIN), killed.cluster(INBOX)
    eventually(lambda: Attempt.objects.filter(status=AttemptStatus.SENDING).exists())
    for process in (killed.guard(MAIN), killed.cluster(MAIN)):
        process.kill()
    killed.end(signal.SIGKILL)
    eventually(lambda: killed.left_over() == [])
    # Whoever sent it is dead: the attempt stays SENDING for the resolution, and nobody sends another one.
    assert Attempt.objects.get(origin="OURS").status == AttemptStatus.SENDING
    assert OrmQ.objects.exists(), "the dead worker's orders are still in the queue"
    worker(**FAST)
    settles(biller, biller.fails())
    assert Attempt.objects.filter(origin="OURS", invoice__provider_invoice_id=invoice).count() == 1


@pytest.fixture
def _own_signals() -> Iterator[None]:
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("_own_signals")
def test_cluster_that_cannot_be_started_ends_the_worker(
    process_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor_module, "RESTARTS", 2)
    monkeypatch.setattr(supervisor_module, "POLL_SECONDS", 0.05)
    broken = Supervisor()
    for cluster in broken.clusters.values():
        cluster.environment = {**process_environment, "QUEUE_WORKERS": "none"}
    with pytest.raises(ClusterBroken) as refused:
        broken.run()
    assert re.fullmatch(
        "The (recovery|inbox) cluster ended 3 times within 120 s: the lines above say why; repair that and start"
        " the worker again.",
        refused.value.message,
    )
    assert not any(cluster.running() for cluster in broken.clusters.values())


def test_one_order_of_each_kind_is_out_however_often_one_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    supervisor = Supervisor()
    for cluster in supervisor.clusters.values():
        monkeypatch.setattr(cluster, "running", lambda: True)
    Biller("http://127.0.0.1:9").fails()
    for second in range(10):
        supervisor.step(float(second))
    orders = sorted(OrmQ.objects.all(), key=lambda row: str(row.func()))
    assert [(row.key, row.func()) for row in orders] == [
        ("recovery", "analytics.tasks.advance_rollups"),
        ("recovery", "analytics.tasks.find_spikes"),
        ("recovery", "notifications.tasks.drain_messages"),
        ("recovery", "retries.tasks.drain_bulk"),
        ("recovery", "retries.tasks.drain_outbox"),
        ("recovery", "retries.tasks.drain_retries"),
        ("recovery", "retries.tasks.reconcile_sweep"),
        ("recovery", "webhooks.tasks.drain_deliveries"),
        ("inbox", "webhooks.tasks.drain_inbox"),
        ("recovery", "webhooks.tasks.purge"),
    ]
    # Done, hence gone from the queue: the inbox still waits and is ordered again, the others are not due yet.
    OrmQ.objects.all().delete()
    supervisor.step(11.0)
    assert [row.func() for row in OrmQ.objects.all()] == ["webhooks.tasks.drain_inbox"]


def test_cluster_that_leaves_its_orders_lying_is_restarted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its idle workers wait for a lock that a dead one holds: nobody begins what was ordered."""
    supervisor = Supervisor()
    supervisor.sweeps = tuple(sweep for sweep in supervisor.sweeps if sweep.name == "drain_retries")
    for cluster in supervisor.clusters.values():
        monkeypatch.setattr(cluster, "running", lambda: True)
    restarted: list[tuple[str, str]] = []
    monkeypatch.setattr(supervisor, "_ended", lambda cluster, why, now: restarted.append((cluster.name, why)))
    wedged = settings.QUEUE_WEDGED_AFTER.total_seconds()
    supervisor.step(0.0)
    supervisor.step(START_SECONDS + wedged - 1)
    assert restarted == []
    supervisor.step(START_SECONDS + wedged + 1)
    assert restarted == [(MAIN, "left drain_retries lying")]
    # A cluster that has worked since its start gets no such patience.
    supervisor._working.add(MAIN)
    supervisor._out.clear()
    supervisor.step(200.0)
    supervisor.step(200.0 + wedged + 1)
    assert restarted == [(MAIN, "left drain_retries lying")] * 2


def test_order_whose_worker_was_killed_is_given_again(monkeypatch: pytest.MonkeyPatch) -> None:
    supervisor = Supervisor()
    supervisor.sweeps = tuple(sweep for sweep in supervisor.sweeps if sweep.name == "drain_retries")
    for cluster in supervisor.clusters.values():
        monkeypatch.setattr(cluster, "running", lambda: True)
    supervisor.step(0.0)
    order = OrmQ.objects.get()
    token = order.kwargs()["tick"]
    alive = {"host": os.uname().nodename, "pid": os.getpid(), "tick": token}
    beat("drain_retries", state="running", **alive)
    supervisor.step(10.0)
    assert OrmQ.objects.get() == order
    gone = subprocess.Popen(["true"])
    gone.wait(20)
    beat("drain_retries", state="running", **{**alive, "pid": gone.pid})
    supervisor.step(11.0)
    assert not OrmQ.objects.exists()
    supervisor.step(31.0)
    assert OrmQ.objects.get().kwargs()["tick"] != token


def test_fallback_drives_only_while_no_supervisor_lives(psp: Psp) -> None:
    schedules_ensure()
    schedules_ensure()
    planned = Schedule.objects.order_by("name").values_list("func", "minutes", "kwargs")
    assert list(planned) == [
        ("retries.tasks.reconcile_sweep", 5, "{'fallback': True}"),
        ("retries.tasks.drain_retries", 5, "{'fallback': True}"),
    ]
    beat("worker:here:1")
    assert drain_retries(fallback=True) == {"skipped": 1}
    Beat.objects.update(at=database_now() - timedelta(seconds=61))
    assert drain_retries(fallback=True)["claimed"] == 0
    assert Beat.objects.get(name="drain_retries").data["state"] == "done"


def test_sweep_begins_nothing_new_near_its_end_or_when_told_to_stop(psp: Psp, monkeypatch: pytest.MonkeyPatch) -> None:
    biller = Biller(psp.url)
    invoice = biller.fails()
    assert drain_inbox() == {"processed": 1, "failed": 0, "ignored": 0}
    monkeypatch.setattr(settings, "QUEUE_TASK_TIMEOUT", timedelta(0))
    assert drain_retries()["claimed"] == 0
    monkeypatch.undo()
    with monkeypatch.context() as stopping:
        stopping.setattr("retries.services.sweeps.stop_requested", lambda: True)
        assert drain_retries()["claimed"] == 0
    assert charged(psp) == []
    assert drain_retries()["succeeded"] == 1
    assert (charged(psp), biller.status(invoice)) == ([4900], InvoiceStatus.SETTLED)


def test_sweep_that_fails_says_so_and_raises() -> None:
    def broken(keep_going: object) -> dict[str, int]:
        raise ZeroDivisionError("no luck")

    with pytest.raises(ZeroDivisionError):
        sweep_run("probe", broken, timeout=timedelta(minutes=1))
    data = Beat.objects.get(name="probe").data
    assert (data["state"], data["error"], data["pid"]) == ("failed", "ZeroDivisionError", os.getpid())
