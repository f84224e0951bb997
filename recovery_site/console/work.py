"""The work queues: everything that waits for a person, each with a count that stops, its oldest rows, and where many of
them can be handled at once (the admin's bulk actions, which show beforehand what they will do).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from django.db.models import QuerySet
from django.urls import reverse

from accounts.models import Merchant
from invoices.models import ReviewItem
from invoices.states import ConnectionMode
from recovery_site.common import clock
from recovery_site.common.money import format_money
from recovery_site.console.words import duration_text
from retries.models import Case
from retries.states import MOVING, CaseStatus, NextStep
from webhooks.models import Delivery, InboxEvent
from webhooks.states import DeliveryStatus, InboxStatus

# Counting stops here: past it the exact number helps nobody and costs time on every page.
COUNT_LIMIT: Final = 1_000
PAGE = 50
# A step that a machine was to take is late after this; the sweeps run every few minutes.
STUCK_AFTER = timedelta(hours=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """`rows` are the merchant's rows at an instant, by `order`, which an index keeps. `model` is the admin list whose
    bulk `actions` (name and button) there are; `late` queues are by lateness and have one page only."""

    key: str
    label: str
    text: str
    tone: str
    rows: Callable[[Merchant, datetime], QuerySet[Any]]
    order: str = "pk"
    model: str = ""
    actions: Sequence[tuple[str, str]] = ()
    late: bool = False


def _cases(merchant: Merchant, **conditions: Any) -> QuerySet[Case]:
    return Case.objects.filter(merchant=merchant, status=CaseStatus.OPEN, **conditions)


_BULK = (("retry", "Retry"), ("pause", "Pause"), ("resume", "Resume"), ("cancel", "Cancel"))
QUEUES: Final[Mapping[str, Queue]] = {
    queue.key: queue
    for queue in (
        Queue(
            key="staff",
            label="Staff queue",
            text="Questions that no machine may decide.",
            tone="danger",
            rows=lambda merchant, now: ReviewItem.objects.filter(merchant=merchant, resolved_at__isnull=True),
        ),
        Queue(
            key="customer",
            label="Waiting for the customer",
            text="Cases that go on when the customer pays, confirms or gives another payment method.",
            tone="warning",
            rows=lambda merchant, now: _cases(merchant, next_step=NextStep.CUSTOMER),
            model="invoices_invoice",
            actions=_BULK,
        ),
        Queue(
            key="paused",
            label="Paused by configuration",
            text="Cases that wait until a connection or an account at the provider is repaired.",
            tone="warning",
            rows=lambda merchant, now: _cases(merchant, next_step=NextStep.PAUSED, paused_by="configuration"),
            model="invoices_invoice",
            actions=_BULK,
        ),
        Queue(
            key="held",
            label="Paused by staff",
            text="Cases that somebody has paused; they go on when somebody resumes them.",
            tone="warning",
            rows=lambda merchant, now: _cases(merchant, next_step=NextStep.PAUSED).exclude(
                paused_by__in=("", "configuration")
            ),
            model="invoices_invoice",
            actions=_BULK,
        ),
        Queue(
            key="webhooks",
            label="Failed webhooks",
            text="Reports of a provider that could not be worked; nothing is lost, they can run again.",
            tone="danger",
            rows=lambda merchant, now: InboxEvent.objects.filter(merchant=merchant, status=InboxStatus.FAILED),
            model="webhooks_inboxevent",
            actions=(("replay", "Replay"),),
        ),
        Queue(
            key="deliveries",
            label="Failed deliveries",
            text="Webhooks to your systems that were given up.",
            tone="danger",
            rows=lambda merchant, now: Delivery.objects.filter(merchant=merchant, status=DeliveryStatus.DEAD),
            order="-pk",
            model="webhooks_delivery",
            actions=(("replay", "Send again"),),
        ),
        Queue(
            key="stuck",
            label="Stuck",
            text="Cases whose next step is a machine's and over an hour late. Reconciliation looks at them, too.",
            tone="danger",
            rows=lambda merchant, now: _cases(
                merchant, next_step__in=MOVING, next_step_at__lt=now - STUCK_AFTER
            ).exclude(connection__mode=ConnectionMode.SCHEDULE),
            order="next_step_at",
            late=True,
            model="invoices_invoice",
            actions=_BULK,
        ),
    )
}


@dataclass(frozen=True, slots=True)
class Tab:
    """One queue with its count up to COUNT_LIMIT; one more means "more than that"."""

    queue: Queue
    count: int

    @property
    def count_text(self) -> str:
        return f"{self.count:,}" if self.count <= COUNT_LIMIT else f"{COUNT_LIMIT:,}+"

    @property
    def tone(self) -> str:
        return self.queue.tone if self.count else "neutral"

    @property
    def url(self) -> str:
        if not self.queue.model:
            return reverse("console:queue")
        return f"{reverse('console:work')}?queue={self.queue.key}"


def work_tabs(merchant: Merchant, now: datetime) -> list[Tab]:
    """Every queue with its count: one query each, none of which reads more than the limit."""
    return [Tab(queue, _count(queue.rows(merchant, now))) for queue in QUEUES.values()]


def _count(rows: QuerySet[Any]) -> int:
    return rows.order_by().values("pk")[: COUNT_LIMIT + 1].count()


@dataclass(frozen=True, slots=True)
class Row:
    """One thing that waits: `pk` is what a bulk action is told, `since` how long it has waited."""

    pk: int
    title: str
    url: str
    who: str
    detail: str
    amount: str
    since: str


@dataclass(frozen=True, slots=True)
class WorkPage:
    """The oldest rows of one queue after a place; `following` is the place of the next page, None on the last."""

    queue: Queue
    rows: Sequence[Row]
    following: int | None


def work_page(queue: Queue, merchant: Merchant, *, after: int | None, now: datetime) -> WorkPage:
    """One page of a queue in one or two queries, whatever its size."""
    rows = queue.rows(merchant, now)
    if after is not None and not queue.late:
        rows = rows.filter(**{"pk__lt" if queue.order == "-pk" else "pk__gt": after})
    if rows.model is Case:
        rows = rows.select_related("invoice__customer")
    found = list(rows.order_by(queue.order)[: PAGE + 1])
    shown = found[:PAGE]
    following = shown[-1].pk if len(found) > PAGE and not queue.late else None
    # The inbox and its counterpart live on the database clock.
    here = now if rows.model is Case else clock.database_now()
    return WorkPage(queue, [_row(one, queue, here) for one in shown], following)


def _row(one: Any, queue: Queue, now: datetime) -> Row:
    if isinstance(one, Case):
        since = one.next_step_at if queue.late and one.next_step_at else one.opened_at
        return Row(
            pk=one.invoice_id,
            title=str(one.invoice),
            url=reverse("console:invoice", args=[one.invoice.public_id]),
            who=str(one.invoice.customer),
            detail=f"{NextStep(one.next_step).label}: {one.why}" if queue.late else one.why,
            amount=format_money(one.invoice.due_minor, one.invoice.currency),
            since=duration_text(now - since),
        )
    is_inbox = isinstance(one, InboxEvent)
    return Row(
        pk=one.pk,
        title=one.event_type,
        url=reverse(f"admin:{queue.model}_change", args=[one.pk]),
        who=one.provider_event_id if is_inbox else one.message_id,
        detail=one.reason if is_inbox else one.last_error,
        amount="",
        since=duration_text(now - (one.received_at if is_inbox else one.created_at)),
    )
