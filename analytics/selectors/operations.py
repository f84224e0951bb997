"""Does the machinery work: workers, late retries, the inbox, deliveries. Used by the dashboard and by
/health/ready.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from django.conf import settings
from django.db.models import QuerySet

from accounts.models import Merchant
from invoices.models import OutboxMessage
from invoices.states import ConnectionMode
from recovery_site.common import clock
from retries.models import Beat, RetryJob
from retries.services.sweeps import WORKER_PREFIX
from retries.states import JobStatus
from webhooks.models import InboxEvent
from webhooks.states import InboxStatus

State = Literal["ok", "degraded", "failed"]

# A worker that missed this many sweeps is dead; never less than a minute, sweeps may be long.
_BEATS_MISSED = 3
_BEAT_MINIMUM = timedelta(minutes=1)
# Due work this late, in real time, means that the worker does not keep up.
LATE_AFTER = timedelta(minutes=10)
COUNT_LIMIT = 1000


@dataclass(frozen=True, slots=True)
class Check:
    """One part's state and one sentence. `seconds` is its age or lateness in real time, where it has one."""

    name: str
    state: State
    text: str
    seconds: int | None = None

    @property
    def tone(self) -> str:
        return {"ok": "success", "degraded": "warning", "failed": "danger"}[self.state]


def worker_check(database_now: datetime) -> Check:
    """The newest sign of life of any supervisor (a stopped one takes its own away); beats are on the database clock."""
    newest = Beat.objects.filter(name__startswith=WORKER_PREFIX).order_by("-at").values_list("at", flat=True).first()
    if newest is None:
        return Check("worker", "failed", "No worker is running; start one with manage.py run_worker.")
    age = database_now - newest
    limit = max(_BEAT_MINIMUM, settings.RETRY_PROCESSING_INTERVAL * _BEATS_MISSED)
    seconds = max(0, int(age.total_seconds()))
    if age > limit:
        text = f"The last worker was seen {duration_text(seconds)} ago; start one with manage.py run_worker."
        return Check("worker", "failed", text, seconds)
    return Check("worker", "ok", "A worker is running.", seconds)


def retries_check(now: datetime, merchant: Merchant | None = None) -> Check:
    """How late the oldest due retry is; `now` is the service's clock, by which retries are due."""
    due = _ours(RetryJob.objects.filter(status=JobStatus.SCHEDULED, due_at__lte=now))
    oldest = _of(due, merchant).order_by("due_at").values_list("due_at", flat=True).first()
    late = clock.to_real_seconds(now - oldest) if oldest else 0.0
    return _lateness("retries", "retry", late)


def inbox_check(database_now: datetime, merchant: Merchant | None = None) -> Check:
    """How late the oldest waiting webhook is; the inbox lives on the database clock."""
    due = InboxEvent.objects.filter(status=InboxStatus.RECEIVED, due_at__lte=database_now)
    oldest = _of(due, merchant).order_by("due_at").values_list("due_at", flat=True).first()
    return _lateness("inbox", "webhook", (database_now - oldest).total_seconds() if oldest else 0.0)


def _ours(jobs: QuerySet[RetryJob]) -> QuerySet[RetryJob]:
    """Not those that the merchant charges itself: they are late when the merchant is."""
    return jobs.exclude(connection__mode=ConnectionMode.SCHEDULE)


def _of(rows: QuerySet[Any], merchant: Merchant | None) -> QuerySet[Any]:
    return rows if merchant is None else rows.filter(merchant=merchant)


def _lateness(name: str, what: str, seconds: float) -> Check:
    whole = max(0, int(seconds))
    if whole > LATE_AFTER.total_seconds():
        return Check(name, "failed", f"The oldest due {what} is {duration_text(whole)} late.", whole)
    return Check(name, "ok", f"No {what} is late." if whole < 60 else f"The oldest due {what} waits.", whole)


def duration_text(seconds: int) -> str:
    """`45 s`, `12 min`, `3 h` or `4 days`: the largest unit, rounded down."""
    for unit, name in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * unit or (seconds >= unit and unit < 86400):
            return f"{seconds // unit} {name}"
    return f"{seconds} s"


@dataclass(frozen=True, slots=True)
class QueueFigure:
    """A count up to COUNT_LIMIT; one more means "more than that"."""

    key: str
    label: str
    count: int
    tone: str

    @property
    def text(self) -> str:
        return str(self.count) if self.count <= COUNT_LIMIT else f"over {COUNT_LIMIT}"


@dataclass(frozen=True, slots=True)
class QueueHealth:
    """The checks that concern a merchant's payments, and how much waits where."""

    checks: tuple[Check, ...]
    figures: tuple[QueueFigure, ...]


def queue_health(merchant: Merchant, now: datetime) -> QueueHealth:
    """Bounded counts on partial indexes; a fixed number of queries."""
    database_now = clock.database_now()
    jobs = RetryJob.objects.filter(merchant=merchant)
    inbox = InboxEvent.objects.filter(merchant=merchant)
    outbox = OutboxMessage.objects.filter(merchant=merchant, done_at__isnull=True)
    counted = (
        ("due", "Retries due now", _ours(jobs.filter(status=JobStatus.SCHEDULED, due_at__lte=now)), ""),
        ("queued", "Queued behind another invoice", jobs.filter(status=JobStatus.QUEUED), ""),
        ("running", "Being sent", jobs.filter(status=JobStatus.RUNNING), ""),
        ("inbox", "Webhooks waiting", inbox.filter(status=InboxStatus.RECEIVED), ""),
        ("inbox_failed", "Webhooks failed", inbox.filter(status=InboxStatus.FAILED), "danger"),
        ("dead", "Deliveries given up", outbox.filter(dead_at__isnull=False), "danger"),
    )
    figures = []
    for key, label, rows, bad in counted:
        count = rows.order_by().values("pk")[: COUNT_LIMIT + 1].count()
        figures.append(QueueFigure(key, label, count, bad if count and bad else "neutral"))
    checks = (worker_check(database_now), retries_check(now, merchant), inbox_check(database_now, merchant))
    return QueueHealth(checks, tuple(figures))
