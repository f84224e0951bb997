"""What the worker runs for the dashboards."""

from typing import Any

from django.conf import settings

from analytics.rollups.advance import rollups_advance
from analytics.spikes.sweep import spikes_sweep
from recovery_site.common import clock
from retries.services.sweeps import KeepGoing, sweep_run


def advance_rollups(*, tick: str = "", fallback: bool = False) -> dict[str, Any]:
    """Bring the dashboards' rollups up to the ledger."""

    def work(keep_going: KeepGoing) -> dict[str, int]:
        return rollups_advance(keep_going=keep_going).as_dict()

    return sweep_run("advance_rollups", work, timeout=settings.QUEUE_TASK_TIMEOUT, tick=tick, fallback=fallback)


def find_spikes(*, tick: str = "", fallback: bool = False) -> dict[str, Any]:
    """Compare failure rates with their baselines; open, follow and end incidents."""

    def work(keep_going: KeepGoing) -> dict[str, int]:
        return spikes_sweep(now=clock.now(), keep_going=keep_going).as_dict()

    return sweep_run("find_spikes", work, timeout=settings.QUEUE_TASK_TIMEOUT, tick=tick, fallback=fallback)
