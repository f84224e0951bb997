"""What the clusters run of webhooks, in and out."""

import time
from typing import Any

from django.conf import settings

from recovery_site.common import clock
from retries.services.sweeps import KeepGoing, sweep_run
from webhooks.outbound.sending import deliveries_drain
from webhooks.purging import purge_all
from webhooks.services import inbox_drain

# A drain has one `now`; under steady traffic it ends after this long, so that the next one has a newer.
_FRESH_SECONDS = 5.0
# Slow receivers must not keep a worker of the main cluster from charging.
_DELIVERY_SECONDS = 20.0


def drain_inbox(*, tick: str = "", fallback: bool = False) -> dict[str, Any]:
    """Process the inbound webhooks that wait."""

    def work(keep_going: KeepGoing) -> dict[str, int]:
        return inbox_drain(now=clock.now(), keep_going=_for_seconds(_FRESH_SECONDS, keep_going)).as_dict()

    return sweep_run("drain_inbox", work, timeout=settings.INBOX_TASK_TIMEOUT, tick=tick, fallback=fallback)


def drain_deliveries(*, tick: str = "", fallback: bool = False) -> dict[str, Any]:
    """Send the outbound webhooks that are due."""

    def work(keep_going: KeepGoing) -> dict[str, int]:
        return deliveries_drain(now=clock.now(), keep_going=_for_seconds(_DELIVERY_SECONDS, keep_going)).as_dict()

    return sweep_run("drain_deliveries", work, timeout=settings.QUEUE_TASK_TIMEOUT, tick=tick, fallback=fallback)


def purge(*, tick: str = "", fallback: bool = False) -> dict[str, Any]:
    """Delete what is older than the settings say."""

    def work(keep_going: KeepGoing) -> dict[str, int]:
        return purge_all(now=clock.now(), keep_going=keep_going)

    return sweep_run("purge", work, timeout=settings.QUEUE_TASK_TIMEOUT, tick=tick, fallback=fallback)


def _for_seconds(seconds: float, keep_going: KeepGoing) -> KeepGoing:
    until = time.monotonic() + seconds
    return lambda: keep_going() and time.monotonic() < until
