"""What every sweep that runs as a task has in common: a sign of life, a time to stop, one log line."""

import os
import socket
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

import structlog
from django.db.models import Q

from recovery_site.common import clock
from recovery_site.common.db import DatabaseClock
from recovery_site.common.stopping import stop_requested
from retries.engine.drain import PROVIDER_TIMEOUT
from retries.models import Beat
from tokens.mirror import mirror_counters

log = structlog.get_logger()
KeepGoing = Callable[[], bool]
WORKER_PREFIX = "worker:"
# Without a supervisor's sign of life for this long, q2's own schedule takes over.
SUPERVISOR_GONE_AFTER = timedelta(minutes=1)
_BEAT_EVERY_SECONDS = 5.0
_DEAD_AFTER = timedelta(days=1)


def beat(name: str, **data: Any) -> None:
    """A sign of life on the database clock, with what it is a sign of."""
    Beat.objects.update_or_create(name=name[:60], defaults={"at": DatabaseClock(), "data": data})


def beats_forget(name: str = "") -> None:
    """Forget a supervisor that has ended, and those that were killed more than a day ago."""
    dead = Q(name__startswith=WORKER_PREFIX, at__lt=clock.database_now() - _DEAD_AFTER)
    Beat.objects.filter(dead | Q(name=name) if name else dead).delete()


def process_name() -> dict[str, str | int]:
    """Which process a sign of life comes from."""
    return {"host": socket.gethostname(), "pid": os.getpid()}


def supervisor_lives() -> bool:
    """True while some `run_worker` has beaten within the last minute."""
    since = clock.database_now() - SUPERVISOR_GONE_AFTER
    return Beat.objects.filter(name__startswith=WORKER_PREFIX, at__gt=since).exists()


def sweep_run(
    name: str,
    work: Callable[[KeepGoing], Mapping[str, Any]],
    *,
    timeout: timedelta,
    tick: str = "",
    fallback: bool = False,
) -> dict[str, Any]:
    """Run one sweep inside a task whose cluster kills it after `timeout`; returns its counts.

    `work` gets a function to ask before it begins anything new: False one provider time-out before the end (half the
    time if that is longer) and once the cluster is to stop. `tick` names the supervisor's order in the sign of life;
    a `fallback` run does nothing while a supervisor lives. An error is written down and raised: the queue forgets the
    task, the rows are the queue.
    """
    if fallback and supervisor_lives():
        return {"skipped": 1}
    own = {**process_name(), "tick": tick}
    started, last_beat = time.monotonic(), time.monotonic()
    until = started + (timeout - min(PROVIDER_TIMEOUT, timeout / 2)).total_seconds()
    beat(name, state="running", **own)

    def keep_going() -> bool:
        nonlocal last_beat
        if time.monotonic() - last_beat > _BEAT_EVERY_SECONDS:
            last_beat = time.monotonic()
            beat(name, state="running", **own)
        return time.monotonic() < until and not stop_requested()

    try:
        counts = dict(work(keep_going))
    except Exception as error:  # the task wrapper: written down for people, then told to the queue
        log.exception("sweep_failed", sweep=name)
        beat(name, state="failed", error=type(error).__name__, **own)
        raise
    seconds = round(time.monotonic() - started, 3)
    # A worker serves no metrics of its own, so what Redis did to it travels with its sign of life.
    beat(name, state="done", counts=counts, seconds=seconds, mirror=dict(mirror_counters()), **own)
    log.info("sweep", sweep=name, seconds=seconds, **counts)
    return counts
