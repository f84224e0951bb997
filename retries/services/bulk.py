"""One decision of a person for many invoices: what it would do, the run itself, its progress, its end.

A run is rows: a request writes them down, and the worker takes them one by one, each in its own transaction and through
the same services as a single one. So a killed worker loses nothing, and what one invoice refuses stops no other.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime

import structlog
from django.db import transaction
from django.db.models import Count

from accounts.models import Merchant
from invoices.models import Invoice
from invoices.services.ledger import Stamp
from recovery_site.common.db import for_no_key_update
from recovery_site.common.errors import Conflict, InvalidInput, NotFound, RecoveryError
from retries.models import BulkItem, BulkRun, Case, RetryJob
from retries.services.manual import case_pause, case_resume, invoice_cancel, retry_now, retry_option
from retries.states import BulkAction, BulkStatus, CaseStatus, TokenRule

log = structlog.get_logger()
# So many are worked in the request that starts a run; the worker does the rest.
AT_ONCE = 25
LARGEST = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkOrder:
    """What is wanted. `due_at`: when retries are booked for (now if None); `token_rule`: with which payment method."""

    action: BulkAction
    token_rule: TokenRule = TokenRule.BEST
    due_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Foreseen:
    """What would happen to one invoice: `will` and a sentence, which says why not if it would not."""

    invoice_pk: int
    will: bool
    text: str


@dataclass(slots=True)
class BulkCounts:
    done: int = 0
    refused: int = 0

    def as_dict(self) -> dict[str, int]:
        return asdict(self)


def bulk_foresee(invoices: Iterable[Invoice], order: BulkOrder, *, stamp: Stamp) -> list[Foreseen]:
    """Do it to each and take it back: the same questions, so the same answers, as long as nothing changes meanwhile."""
    return [_foresee(invoice, order, stamp) for invoice in invoices]


def _foresee(invoice: Invoice, order: BulkOrder, stamp: Stamp) -> Foreseen:
    with transaction.atomic():
        try:
            with transaction.atomic():
                text, will = _act(invoice.pk, order, stamp, "preview"), True
        except RecoveryError as error:
            text, will = error.message, False
        transaction.set_rollback(True)
    return Foreseen(invoice.pk, will, text)


@transaction.atomic
def bulk_start(
    *, merchant: Merchant, invoice_pks: Sequence[int], order: BulkOrder, reason: str, stamp: Stamp
) -> BulkRun:
    """Write a run down; nothing has happened to any invoice yet. Raises InvalidInput.

    Invoices of other merchants are left out, whoever names them.
    """
    if not reason.strip():
        raise InvalidInput("Say why: the reason is kept in every invoice's history.")
    pks = list(
        Invoice.objects.filter(pk__in=invoice_pks, merchant=merchant)
        .order_by("customer_id", "pk")
        .values_list("pk", flat=True)
    )
    if not 0 < len(pks) <= LARGEST:
        raise InvalidInput(f"A bulk action is for 1 to {LARGEST} invoices of one merchant, not {len(pks)}.")
    run = BulkRun.objects.create(
        merchant=merchant,
        action=order.action,
        token_rule=order.token_rule,
        due_at=order.due_at,
        reason=reason.strip()[:180],
        actor=stamp.actor[:100],
        total=len(pks),
        created_at=stamp.now,
    )
    BulkItem.objects.bulk_create([BulkItem(merchant=merchant, run=run, invoice_id=pk) for pk in pks], batch_size=1_000)
    log.info("bulk_run_started", run=run.public_id, action=run.action, total=run.total, actor=run.actor)
    return run


def bulk_drain(
    *,
    now: datetime,
    run_pk: int | None = None,
    limit: int | None = None,
    keep_going: Callable[[], bool] = lambda: True,
) -> BulkCounts:
    """Work the open runs (or one) item by item, oldest first; `keep_going` is asked before each. Any number of drains
    may run at once."""
    counts = BulkCounts()
    while keep_going() and (limit is None or counts.done + counts.refused < limit):
        worked = _next(run_pk, now)
        if worked is None:
            break
        setattr(counts, worked, getattr(counts, worked) + 1)
    _finish(run_pk, now)
    return counts


def _next(run_pk: int | None, now: datetime) -> str | None:
    """Take one waiting item and do it: "done" or "refused", None if there is none that nobody else holds."""
    with transaction.atomic():
        waiting = BulkItem.objects.select_for_update(of=("self",), skip_locked=True, no_key=True)
        waiting = waiting.filter(status=BulkStatus.WAITING, run__finished_at=None).select_related("run")
        if run_pk is not None:
            waiting = waiting.filter(run=run_pk)
        item = waiting.order_by("run_id", "id").first()
        if item is None:
            return None
        run = item.run
        stamp = Stamp(actor=run.actor, cause=f"staff: {run.reason}", now=now)
        order = BulkOrder(
            action=BulkAction(run.action), token_rule=TokenRule(run.token_rule), due_at=_due(run.due_at, now)
        )
        try:
            with transaction.atomic():
                item.message, item.status = _act(item.invoice_id, order, stamp, run.reason)[:500], BulkStatus.DONE
        except RecoveryError as error:
            item.message, item.status = error.message[:500], BulkStatus.REFUSED
        except Exception as error:  # the sweep loop: a poison row must not stop the others
            log.exception("bulk_item_failed", run=run.public_id, item=item.pk)
            item.message, item.status = f"{type(error).__name__}: {error}"[:500], BulkStatus.REFUSED
        item.worked_at = now
        item.save(update_fields=["message", "status", "worked_at"])
        return "done" if item.status == BulkStatus.DONE else "refused"


def _due(due_at: datetime | None, now: datetime) -> datetime | None:
    """A time that was over before the run came to an item means now."""
    return due_at if due_at is not None and due_at > now else None


def _act(invoice_pk: int, order: BulkOrder, stamp: Stamp, reason: str) -> str:
    match order.action:
        case BulkAction.RETRY:
            if Case.objects.filter(invoice=invoice_pk, status=CaseStatus.OPEN, automatic_barred=True).exists():
                raise Conflict("Its last payment was returned or disputed; retry it on its own page, if at all.")
            option = retry_option(invoice_pk=invoice_pk, due_at=order.due_at or stamp.now, rule=order.token_rule)
            job = retry_now(invoice_pk=invoice_pk, stamp=stamp, reason=reason, token_pk=option.pk, due_at=order.due_at)
            return _booked(job, option.label, stamp.now)
        case BulkAction.PAUSE:
            case_pause(invoice_pk=invoice_pk, stamp=stamp, reason=reason)
            return "Automatic retries stop until somebody resumes them."
        case BulkAction.RESUME:
            case_resume(invoice_pk=invoice_pk, stamp=stamp, reason=reason)
            return "The next step is planned anew."
        case BulkAction.CANCEL:
            invoice_cancel(invoice_pk=invoice_pk, stamp=stamp, reason=reason)
            return "Nothing more is collected."


def _booked(job: RetryJob, label: str, now: datetime) -> str:
    when = "now" if job.due_at <= now else f"for {job.due_at:%Y-%m-%d %H:%M} UTC"
    behind = ", behind another invoice of the same customer" if job.status == "QUEUED" else ""
    return f"A retry with the {label} is booked {when}{behind}."


def _finish(run_pk: int | None, now: datetime) -> None:
    """End the runs that have nothing left to work."""
    runs = BulkRun.objects.filter(finished_at=None)
    if run_pk is not None:
        runs = runs.filter(pk=run_pk)
    busy = BulkItem.objects.filter(status=BulkStatus.WAITING).values("run")
    for run in runs.exclude(pk__in=busy):
        if BulkRun.objects.filter(pk=run.pk, finished_at=None).update(finished_at=now):
            log.info("bulk_run_finished", run=run.public_id, **bulk_progress(run))


@transaction.atomic
def bulk_stop(*, run_pk: int, stamp: Stamp) -> None:
    """Work nothing more of a run; what is done stays done. Raises NotFound, Conflict if it has ended."""
    run = for_no_key_update(BulkRun.objects.filter(pk=run_pk)).first()
    if run is None:
        raise NotFound("This bulk run does not exist.")
    if run.finished_at is not None:
        raise Conflict("This bulk run has ended; there is nothing left to stop.")
    rest = BulkItem.objects.filter(run=run, status=BulkStatus.WAITING)
    rest.update(status=BulkStatus.SKIPPED, message=f"Stopped by {stamp.actor}.", worked_at=stamp.now)
    run.finished_at, run.stopped_by = stamp.now, stamp.actor[:100]
    run.save(update_fields=["finished_at", "stopped_by"])


def bulk_progress(run: BulkRun) -> dict[str, int]:
    """How many items are in which status, in lower case; those that nothing is in are 0."""
    found = dict(BulkItem.objects.filter(run=run).values_list("status").annotate(n=Count("id")).order_by())
    return {status.value.lower(): found.get(status.value, 0) for status in BulkStatus}


def bulk_waits() -> bool:
    """True if some run has items to work."""
    return BulkRun.objects.filter(finished_at=None).exists()
