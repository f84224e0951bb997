"""Orders to run a sweep, as tasks in q2's queue: at most one of each kind is out at a time.

A tick carries no work. Losing, repeating or deleting one harms nothing: the rows that are due are the queue.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import uuid4

from django_q.models import OrmQ
from django_q.tasks import async_task

from retries.models import Beat


@dataclass(frozen=True, slots=True)
class Sweep:
    """A kind of work: the task that does it, the cluster that runs it, and how often even if nothing seems due."""

    name: str
    function: str
    cluster: str
    every: timedelta


@dataclass(frozen=True, slots=True)
class Tick:
    """One order: `token` comes back in the sweep's sign of life, `ordered` is on the monotonic clock."""

    sweep: Sweep
    token: str
    ordered: float


@dataclass(frozen=True, slots=True)
class Life:
    """The newest sign of life of a sweep."""

    state: str
    host: str
    pid: int
    tick: str


def tick_order(sweep: Sweep, *, now: float) -> Tick:
    """Put one order into the sweep's queue."""
    token = uuid4().hex
    async_task(sweep.function, tick=token, cluster=sweep.cluster, task_name=f"{sweep.name}-{token[:8]}")
    return Tick(sweep, token, now)


def ticks_waiting(sweeps: tuple[Sweep, ...]) -> set[str]:
    """Tokens of the orders that are in the queue, handed out or not."""
    return {token for _, token in _rows(sweeps)}


def ticks_forget(sweeps: tuple[Sweep, ...]) -> int:
    """Delete every order for these sweeps: those of a worker that is gone would block new ones for minutes."""
    return OrmQ.objects.filter(pk__in=[pk for pk, _ in _rows(sweeps)]).delete()[0]


def tick_forget(tick: Tick) -> None:
    OrmQ.objects.filter(pk__in=[pk for pk, token in _rows((tick.sweep,)) if token == tick.token]).delete()


def _rows(sweeps: tuple[Sweep, ...]) -> Iterator[tuple[int, str]]:
    functions = {sweep.function for sweep in sweeps}
    for row in OrmQ.objects.filter(key__in={sweep.cluster for sweep in sweeps}):
        task: dict[str, Any] = row.task
        if task.get("func") in functions:
            yield row.pk, str(task.get("kwargs", {}).get("tick", ""))


def lives(sweeps: tuple[Sweep, ...]) -> dict[str, Life]:
    """The newest sign of life of each sweep that ever ran."""
    found = Beat.objects.filter(name__in=[sweep.name for sweep in sweeps]).values_list("name", "data")
    return {
        name: Life(
            state=str(data.get("state", "")),
            host=str(data.get("host", "")),
            pid=int(data.get("pid", 0)),
            tick=str(data.get("tick", "")),
        )
        for name, data in found
    }
