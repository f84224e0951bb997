"""What the main cluster runs for people: messages to customers, alerts to staff."""

from typing import Any

from django.conf import settings

from notifications.services.alert_delivery import alert_deliveries_drain
from notifications.services.notes import notes_plan
from notifications.services.work import messages_drain
from recovery_site.common import clock
from retries.services.sweeps import KeepGoing, sweep_run


def drain_messages(*, tick: str = "", fallback: bool = False) -> dict[str, Any]:
    """Send what is due to people."""

    def work(keep_going: KeepGoing) -> dict[str, int]:
        notes_plan(now=clock.now())
        sent = messages_drain(now=clock.now(), keep_going=keep_going)
        alerts = alert_deliveries_drain(now=clock.now(), keep_going=keep_going)
        return {**sent, **{f"alerts_{name}": count for name, count in alerts.as_dict().items()}}

    return sweep_run("drain_messages", work, timeout=settings.QUEUE_TASK_TIMEOUT, tick=tick, fallback=fallback)
