"""The loop behind `run_worker`: keeps the clusters alive, orders sweeps when there is work, and says so."""

import os
import signal
import socket
import time
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from types import FrameType

import psutil
import structlog
from django.conf import settings
from django.db import Error as DatabaseFailure
from django.db import connection

from recovery_site.common import clock
from recovery_site.common.errors import RecoveryError
from recovery_site.worker.due import sweeps_due
from recovery_site.worker.process import ClusterProcess
from recovery_site.worker.ticks import (
    Life,
    Sweep,
    Tick,
    lives,
    tick_forget,
    tick_order,
    ticks_forget,
    ticks_waiting,
)
from retries.services.sweeps import WORKER_PREFIX, beat, beats_forget

log = structlog.get_logger()
# A webhook is begun within a second: a look, the gap after the order before it, and q2's own look (0.2 s).
POLL_SECONDS = 0.25
BEAT_SECONDS = 5.0
# Two orders of one kind are at least this far apart, so that work which stays due cannot keep a core busy.
LEAST_GAP_SECONDS = 0.5
# A cluster that ends this often within the time cannot be run here: somebody has to look.
RESTARTS, RESTARTS_WITHIN_SECONDS = 5, 120.0
# A cluster that has not done anything since its start may still be starting, on a slow or busy machine.
START_SECONDS = 60.0
# An idle cluster that was told to stop has this long; one that is wedged never would.
IDLE_STOP_SECONDS = 5.0
# Dashboards read what the rollups do not tell yet from the ledger: this is about their speed, not about their truth.
ROLLUPS_EVERY = timedelta(seconds=15)
PURGE_EVERY = timedelta(hours=1)
MAIN, INBOX = "recovery", "inbox"


class ClusterBroken(RecoveryError):
    """A cluster ends again and again; the supervisor gives up."""

    code = "cluster_broken"


def all_sweeps() -> tuple[Sweep, ...]:
    """What there is to run. `every` is real time; spikes and reconciliation follow the service's clock."""
    interval = settings.RETRY_PROCESSING_INTERVAL
    sweeps = [
        Sweep("drain_inbox", "webhooks.tasks.drain_inbox", INBOX, interval),
        Sweep("drain_retries", "retries.tasks.drain_retries", MAIN, interval),
        Sweep("drain_outbox", "retries.tasks.drain_outbox", MAIN, interval),
        Sweep("drain_bulk", "retries.tasks.drain_bulk", MAIN, interval),
        Sweep("drain_messages", "notifications.tasks.drain_messages", MAIN, interval),
        Sweep("advance_rollups", "analytics.tasks.advance_rollups", MAIN, ROLLUPS_EVERY),
        Sweep("drain_deliveries", "webhooks.tasks.drain_deliveries", MAIN, interval),
        Sweep("purge", "webhooks.tasks.purge", MAIN, PURGE_EVERY),
    ]
    if settings.SPIKE_ALERTS_ENABLED:
        sweeps.append(Sweep("find_spikes", "analytics.tasks.find_spikes", MAIN, _real(settings.SPIKE_INTERVAL)))
    if settings.RECONCILE_WORKER_ENABLED:
        every = _real(settings.RECONCILE_INTERVAL)
        sweeps.append(Sweep("reconcile_sweep", "retries.tasks.reconcile_sweep", MAIN, every))
    return tuple(sweeps)


def _real(virtual: timedelta) -> timedelta:
    """An interval of the service's clock in real time, at least five seconds."""
    return max(timedelta(seconds=clock.to_real_seconds(virtual)), timedelta(seconds=5))


class Supervisor:
    """Owns the clusters' processes and the orders that are out. `run` returns when it was told to stop."""

    def __init__(self) -> None:
        self.sweeps = all_sweeps()
        self.clusters = {
            MAIN: ClusterProcess(MAIN, settings.QUEUE_WORKERS),
            INBOX: ClusterProcess(INBOX, settings.INBOX_WORKERS),
        }
        self.name = f"{WORKER_PREFIX}{socket.gethostname()[:30]}:{os.getpid()}"
        # After this long no cluster, wherever it runs, can still be working on an order.
        self._longest = settings.QUEUE_TASK_TIMEOUT.total_seconds() + 60
        self._out: dict[str, Tick] = {}
        self._ordered: dict[str, float] = {}
        # When an order that has run was first seen to be in the queue still.
        self._unacknowledged: dict[str, float] = {}
        self._working: set[str] = set()  # clusters that have begun an order since their start
        self._ends: dict[str, deque[float]] = defaultdict(deque)
        self._start_at: dict[str, float] = {}
        self._beaten = 0.0
        self._stops = 0
        self._database_lost = False

    # --- life -----------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Work until SIGTERM or SIGINT. Raises ClusterBroken; every process has ended when it returns or raises."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        try:
            ticks_forget(self.sweeps)
            beats_forget()
            for cluster in self.clusters.values():
                cluster.start()
            while not self._stops:
                self._watch()
                self._guarded_step()
                time.sleep(POLL_SECONDS)
            log.info("worker_stopping")
            self._end_clusters()
        finally:
            for cluster in self.clusters.values():
                cluster.kill()
        beats_forget(self.name)
        log.info("worker_stopped")

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._stops += 1

    def _guarded_step(self) -> None:
        """A database that is away for a while must not end the supervisor."""
        try:
            self.step(time.monotonic())
            if self._database_lost:
                log.warning("database_back")
            self._database_lost = False
        except DatabaseFailure as error:
            if not self._database_lost:
                log.warning("database_lost", error=type(error).__name__)
            self._database_lost = True
            with suppress(DatabaseFailure):
                connection.close()

    def step(self, now: float) -> None:
        """One look: sign of life, orders that are out, orders to give. `now` is monotonic."""
        if now - self._beaten >= BEAT_SECONDS:
            beat(self.name, clusters={name: cluster.pid for name, cluster in self.clusters.items()})
            self._beaten = now
        if self._out:
            self._follow(now)
        due = sweeps_due(clock.now())
        for sweep in self.sweeps:
            if self._wanted(sweep, due, now):
                self._out[sweep.name] = tick_order(sweep, now=now)
                self._ordered[sweep.name] = now

    def _wanted(self, sweep: Sweep, due: set[str], now: float) -> bool:
        if sweep.name in self._out or not self.clusters[sweep.cluster].running():
            return False
        since = now - self._ordered.get(sweep.name, float("-inf"))
        if sweep.name in due:
            return since >= LEAST_GAP_SECONDS
        return since >= sweep.every.total_seconds()

    # --- orders that are out --------------------------------------------------------------------------------------

    def _follow(self, now: float) -> None:
        """Forget orders that are done or whose worker died; find out whether a cluster leaves its orders lying."""
        waiting, seen = ticks_waiting(self.sweeps), lives(self.sweeps)
        for name, tick in list(self._out.items()):
            if tick.token not in waiting or _begun(tick, seen):
                self._working.add(tick.sweep.cluster)
            if tick.token not in waiting:
                self._done(name)
            elif self._was_killed(tick, seen) or tick.ordered < now - self._longest:
                tick_forget(tick)
                self._done(name)
            elif _ran(tick, seen):
                self._unacknowledged.setdefault(tick.token, now)
        for cluster in self.clusters.values():
            self._check(cluster, seen, now - settings.QUEUE_WEDGED_AFTER.total_seconds())

    def _done(self, name: str) -> None:
        self._unacknowledged.pop(self._out.pop(name).token, None)

    def _check(self, cluster: ClusterProcess, seen: Mapping[str, Life], before: float) -> None:
        """Restart a cluster that has an idle worker and leaves an order lying, or does not acknowledge what it did."""
        for tick in self._out.values():
            if tick.sweep.cluster != cluster.name:
                continue
            if self._unacknowledged.get(tick.token, before) < before:
                self._restart(cluster, f"did not acknowledge {tick.sweep.name}", seen)
                return
            starting = 0.0 if cluster.name in self._working else START_SECONDS
            lies = tick.ordered < before - starting and not _begun(tick, seen)
            if lies and self._busy(cluster, seen) < cluster.workers:
                self._restart(cluster, f"left {tick.sweep.name} lying", seen)
                return

    @staticmethod
    def _was_killed(tick: Tick, seen: Mapping[str, Life]) -> bool:
        life = seen.get(tick.sweep.name)
        if life is None or not _begun(tick, seen) or life.state != "running":
            return False
        return life.host == socket.gethostname() and not psutil.pid_exists(life.pid)

    def _busy(self, cluster: ClusterProcess, seen: Mapping[str, Life]) -> int:
        return sum(
            life.state == "running" and life.host == socket.gethostname() and cluster.owns(life.pid)
            for life in seen.values()
        )

    # --- clusters -------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        """Start clusters that have ended, later each time, and give up if it happens too often."""
        now = time.monotonic()
        for cluster in self.clusters.values():
            if cluster.running():
                continue
            if cluster.name not in self._start_at:
                self._ended(cluster, f"ended with code {cluster.exit_code()}", now)
            elif now >= self._start_at[cluster.name]:
                del self._start_at[cluster.name]
                cluster.start()

    def _ended(self, cluster: ClusterProcess, why: str, now: float) -> None:
        cluster.kill()
        self._working.discard(cluster.name)
        ends = self._ends[cluster.name]
        ends.append(now)
        while ends[0] < now - RESTARTS_WITHIN_SECONDS:
            ends.popleft()
        if len(ends) > RESTARTS:
            raise ClusterBroken(
                f"The {cluster.name} cluster ended {len(ends)} times within {RESTARTS_WITHIN_SECONDS:.0f} s:"
                " the lines above say why; repair that and start the worker again."
            )
        log.warning("cluster_restarts", cluster=cluster.name, why=why, times=len(ends))
        self._start_at[cluster.name] = now + 0.5 * (len(ends) - 1)
        mine = tuple(sweep for sweep in self.sweeps if sweep.cluster == cluster.name)
        with suppress(DatabaseFailure):
            ticks_forget(mine)
        for sweep in mine:
            if sweep.name in self._out:
                self._done(sweep.name)
            self._ordered.pop(sweep.name, None)

    def _restart(self, cluster: ClusterProcess, why: str, seen: Mapping[str, Life]) -> None:
        """A wedged cluster cannot end by itself; what it is sending now may finish first."""
        cluster.terminate()
        if self._busy(cluster, seen):
            self._wait_while_busy([cluster])
        self._ended(cluster, why, time.monotonic())

    def _end_clusters(self) -> None:
        for cluster in self.clusters.values():
            cluster.terminate()
        self._wait_while_busy(list(self.clusters.values()))

    def _wait_while_busy(self, clusters: Sequence[ClusterProcess]) -> None:
        """Until all have ended, or only idle (hence stuck) ones are left, or a second signal says: now."""
        told, patience = time.monotonic(), settings.QUEUE_TASK_TIMEOUT.total_seconds()
        stops = self._stops
        while any(cluster.running() for cluster in clusters) and self._stops == stops:
            passed = time.monotonic() - told
            if passed > patience or (passed > IDLE_STOP_SECONDS and not self._any_busy(clusters)):
                return
            time.sleep(0.1)

    def _any_busy(self, clusters: Sequence[ClusterProcess]) -> bool:
        try:
            seen = lives(self.sweeps)
        except DatabaseFailure:
            return False
        return any(cluster.running() and self._busy(cluster, seen) for cluster in clusters)


def _begun(tick: Tick, seen: Mapping[str, Life]) -> bool:
    """True if some worker has begun this order."""
    life = seen.get(tick.sweep.name)
    return life is not None and life.tick == tick.token


def _ran(tick: Tick, seen: Mapping[str, Life]) -> bool:
    """True if the order was carried out, with or without success."""
    return _begun(tick, seen) and seen[tick.sweep.name].state != "running"
