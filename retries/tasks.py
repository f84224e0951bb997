"""What the main cluster runs: sweeps that drain rows. Losing a task loses nothing, running two at once is safe."""

from typing import Any

from django.conf import settings

from invoices.services.outbox import outbox_drain
from recovery_site.common import clock
from retries.engine.drain import retries_drain
from retries.reconciliation import reconcile
from retries.services.bulk import bulk_drain
from retries.services.sweeps import KeepGoing, sweep_run


def drain_retries(*, tick: str = "", fallback: bool = False) -> dict[str, Any]:
    """Send the retries that are due."""

    def work(keep_going: KeepGoing) -> dict[str, int]:
        now = clock.now()
        return retries_drain(now=now, clock=clock.now, ongoing=True, keep_going=keep_going).as_dict()

    return sweep_run("drain_retries", work, timeout=settings.QUEUE_TASK_TIMEOUT, tick=tick, fallback=fallback)


def drain_outbox(*, tick: str = "", fallback: bool = False) -> dict[str, Any]:
    """Give events to those who want them."""

    def work(keep_going: KeepGoing) -> dict[str, int]:
        return outbox_drain(now=clock.now(), keep_going=keep_going).as_dict()

    return sweep_run("drain_outbox", work, timeout=settings.QUEUE_TASK_TIMEOUT, tick=tick, fallback=fallback)


def drain_bulk(*, tick: str = "", fallback: bool = False) -> dict[str, Any]:
    """Go on with what people have ordered for many invoices at once."""

    def work(keep_going: KeepGoing) -> dict[str, int]:
        return bulk_drain(now=clock.now(), keep_going=keep_going).as_dict()

    return sweep_run("drain_bulk", work, timeout=settings.QUEUE_TASK_TIMEOUT, tick=tick, fallback=fallback)


def reconcile_sweep(*, tick: str = "", fallback: bool = False) -> dict[str, Any]:
    """Find and end what got stuck."""

    def work(keep_going: KeepGoing) -> dict[str, object]:
        return reconcile(now=clock.now(), keep_going=keep_going).as_dict()

    return sweep_run("reconcile_sweep", work, timeout=settings.QUEUE_TASK_TIMEOUT, tick=tick, fallback=fallback)
