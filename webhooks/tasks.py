"""What the inbox cluster runs."""

import time
from typing import Any

from django.conf import settings

from recovery_site.common import clock
from retries.services.sweeps import KeepGoing, sweep_run
from webhooks.services import inbox_drain

# A drain has one `now`; under steady traffic it ends after this long, so that the next one has a newer.
_FRESH_SECONDS = 5.0


def drain_inbox(*, tick: str = "", fallback: bool = False) -> dict[str, Any]:
    """Process the inbound webhooks that wait."""

    def work(keep_going: KeepGoing) -> dict[str, int]:
        until = time.monotonic() + _FRESH_SECONDS
        return inbox_drain(now=clock.now(), keep_going=lambda: keep_going() and time.monotonic() < until).as_dict()

    return sweep_run("drain_inbox", work, timeout=settings.INBOX_TASK_TIMEOUT, tick=tick, fallback=fallback)
