"""System checks of the settings themselves; `manage.py check` runs them before every command."""

from collections.abc import Mapping, Sequence
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, register


@register(Tags.security)
def queue_hands_out_once(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """django-q2 hands a task out again after `retry` seconds, even while it waits in a worker's own queue.

    So `retry` must outlast that queue's worst wait plus the task itself (DESIGN section 10).
    """
    main = settings.Q_CLUSTER
    clusters = {main["name"]: main}
    clusters |= {name: {**main, **changes} for name, changes in main.get("ALT_CLUSTERS", {}).items()}
    return [error for name, cluster in clusters.items() if (error := _retry_error(name, cluster))]


def _retry_error(name: str, cluster: Mapping[str, Any]) -> Error | None:
    slack = settings.QUEUE_RETRY_SLACK.total_seconds()
    least = cluster["timeout"] * (cluster["queue_limit"] / cluster["workers"] + 1) + slack
    if cluster["retry"] > least:
        return None
    return Error(
        f"Cluster {name!r} would hand out a waiting task twice: retry is {cluster['retry']} s and must be"
        f" above {least:.0f} s, which is timeout * (queue_limit / workers + 1) + slack.",
        hint="Raise retry, or lower timeout or queue_limit, in Q_CLUSTER.",
        id="recovery_site.E001",
    )


@register(Tags.security)
def production_clock_is_real(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """The accelerated demo clock would break every network rule's window."""
    if not settings.PRODUCTION or (settings.CLOCK_SPEED == 1 and settings.CLOCK_ANCHOR is None):
        return []
    return [
        Error(
            "The demo clock is set in production, where every retry window must run in real time.",
            hint="Unset CLOCK_SPEED and CLOCK_ANCHOR.",
            id="recovery_site.E002",
        )
    ]


@register(Tags.security)
def lease_outlasts_task(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """A drain that runs longer than the job lease works on rows another worker may claim meanwhile.

    Only in production: tests and chaos runs shorten the lease to seconds on purpose, and the send guard of
    the charge protocol still holds there.
    """
    if not settings.PRODUCTION or settings.QUEUE_TASK_TIMEOUT < settings.RETRY_LOCK_TIMEOUT:
        return []
    return [
        Error(
            "QUEUE_TASK_TIMEOUT is not below RETRY_LOCK_TIMEOUT: a task could outlive the lease on its jobs.",
            hint="Lower QUEUE_TASK_TIMEOUT or raise RETRY_LOCK_TIMEOUT.",
            id="recovery_site.E003",
        )
    ]
