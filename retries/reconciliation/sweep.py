"""The phases of DESIGN section 11, each in batches, each row on its own: one that fails waits for the next tick."""

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any

import structlog
from django.db import transaction
from django.db.models import QuerySet

from invoices.models import Attempt, Invoice, ReviewItem
from invoices.services.ledger import Stamp
from invoices.services.reviews import review_open, review_remind, reviews_close
from invoices.states import (
    AttemptStatus,
    InvoiceStatus,
    ReviewKind,
    TransactionKind,
)
from retries.locking import open_case, scope_lock
from retries.models import Case, RetryJob
from retries.reconcile_log import reconcile_line
from retries.reconciliation.resolution import (
    Resolved,
    attempt_resolve_awaiting,
    attempt_resolve_unknown,
    lease_expire,
)
from retries.reconciliation.rows import (
    attempts_open,
    attempts_resting,
    cases_over,
    cases_repaired,
    cases_unreported,
    cases_without_step,
    invoices_homeless,
    leases_over,
    questions_waiting,
    slots_without_owner,
)
from retries.reconciliation.scan import connection_scan, connections_to_scan
from retries.refunding.resolve import refund_orphan_fail, refund_orphans, refund_resolve
from retries.refunding.send import refund_lease_expire
from retries.services.booking import slot_release
from retries.services.planning import case_plan

log = structlog.get_logger()
BATCH = 50
# A provider that leaves this many questions of one tick unanswered is asked again in the next one.
_UNANSWERED = 3
_REFUND_RESULTS = ("synced", "adopted", "failed", "resent", "staff", "waiting", "skipped")


@dataclass(slots=True)
class ReconcileCounts:
    """Rows per phase and result; `skipped` wait for their connection, `errors` are rows left for the next tick."""

    leases_expired: int = 0
    charges: dict[str, int] = field(default_factory=lambda: dict.fromkeys(Resolved, 0))
    refunds: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_REFUND_RESULTS, 0))
    steps_repaired: int = 0
    deadlines: int = 0
    slots_released: int = 0
    scanned: int = 0
    reminded: int = 0
    errors: int = 0

    def as_dict(self) -> dict[str, object]:
        values = asdict(self)
        values["charges"] = {str(name): count for name, count in self.charges.items()}
        return values


@dataclass(slots=True)
class _Tick:
    """One run over all phases. `unreadable` counts the questions that a connection's provider left unanswered."""

    now: datetime
    drain: bool
    keep_going: Callable[[], bool]
    counts: ReconcileCounts = field(default_factory=ReconcileCounts)
    unreadable: Counter[int] = field(default_factory=Counter)

    def deaf(self) -> list[int]:
        return [connection for connection, number in self.unreadable.items() if number >= _UNANSWERED]


def reconcile(*, now: datetime, drain: bool = False, keep_going: Callable[[], bool] = lambda: True) -> ReconcileCounts:
    """One tick: at most 50 rows per phase, or with `drain` batch after batch until nothing is left to do.

    `keep_going` is asked before each row.
    """
    tick = _Tick(now, drain, keep_going)
    _charges(tick)
    _refunds(tick)
    _steps(tick)
    _slots(tick)
    _scan(tick)
    _remind(tick)
    return tick.counts


def _each(tick: _Tick, rows: QuerySet[Any], work: Callable[[int], None]) -> None:
    """Give each row's primary key to `work`, once; a row that fails is logged, counted and left as it was."""
    seen: set[int] = set()
    while True:
        batch = list(rows.exclude(pk__in=seen).order_by("pk").values_list("pk", flat=True)[:BATCH])
        for pk in batch:
            if not tick.keep_going():
                return
            seen.add(pk)
            _one(tick, pk, work)
        if not tick.drain or len(batch) < BATCH:
            return


def _one(tick: _Tick, pk: int, work: Callable[[int], None]) -> None:
    try:
        work(pk)
    except Exception:  # the sweep loop: one row must not stop the others
        tick.counts.errors += 1
        log.exception("reconcile_failed", row=pk)


def _look(tick: _Tick, rows: QuerySet[Attempt], work: Callable[[int], None]) -> int:
    """Ask the providers about open attempts whose time has come, those first that were not looked at for longest.

    What stays open goes to the end of the queue, so that no number of hopeless rows keeps others from their turn.
    Returns how many wait because their connection is switched off.
    """
    due = rows.filter(next_check_at__lte=tick.now)
    resting = attempts_resting(due, tick.now)
    seen: set[int] = set()
    while (tick.drain or len(seen) < BATCH) and tick.keep_going():
        left = due.exclude(pk__in=resting.values("pk")).exclude(pk__in=seen).exclude(connection__in=tick.deaf())
        most = BATCH if tick.drain else BATCH - len(seen)
        batch = list(left.order_by("next_check_at", "pk").values_list("pk", "connection")[:most])
        if not batch:
            break
        for pk, connection in batch:
            if not tick.keep_going():
                break
            if tick.unreadable[connection] < _UNANSWERED:
                seen.add(pk)
                _one(tick, pk, work)
                Attempt.objects.filter(pk=pk, next_check_at__lt=tick.now).update(next_check_at=tick.now)
    return resting.count()


def _charges(tick: _Tick) -> None:
    now, counts, charge = tick.now, tick.counts, TransactionKind.CHARGE

    def expire(pk: int) -> None:
        counts.leases_expired += lease_expire(pk, now=now)

    def unknown(pk: int) -> None:
        counts.charges[attempt_resolve_unknown(pk, now=now, unreadable=tick.unreadable)] += 1

    def awaiting(pk: int) -> None:
        counts.charges[attempt_resolve_awaiting(pk, now=now, unreadable=tick.unreadable)] += 1

    _each(tick, leases_over(charge), expire)
    resting = _look(tick, attempts_open(charge, AttemptStatus.UNKNOWN), unknown)
    resting += _look(tick, attempts_open(charge, AttemptStatus.AWAITING), awaiting)
    counts.charges[Resolved.SKIPPED] += resting


def _refunds(tick: _Tick) -> None:
    """Phases 2 and 3: open refund calls, those without the provider's id sooner, and refunds that nothing will send."""
    now, counts, refund = tick.now, tick.counts, TransactionKind.REFUND

    def expire(pk: int) -> None:
        counts.leases_expired += refund_lease_expire(pk, now=now)

    def resolve(pk: int) -> None:
        counts.refunds[refund_resolve(pk, now=now, unreadable=tick.unreadable)] += 1

    def orphan(pk: int) -> None:
        counts.refunds["failed"] += refund_orphan_fail(pk, now=now)

    _each(tick, leases_over(refund), expire)
    open_calls = attempts_open(refund, AttemptStatus.UNKNOWN, AttemptStatus.AWAITING)
    resting = _look(tick, open_calls, resolve)
    counts.refunds["skipped"] += resting
    _each(tick, refund_orphans(now), orphan)


def _steps(tick: _Tick) -> None:
    """Open cases whose next step is not real or is over, and open invoices without any."""
    now, counts = tick.now, tick.counts

    def repair(pk: int) -> None:
        counts.steps_repaired += case_replan(pk, now)

    def deadline(pk: int) -> None:
        counts.deadlines += case_replan(pk, now)

    def orphan(pk: int) -> None:
        counts.steps_repaired += _orphan(pk, now)

    _each(tick, cases_without_step(), repair)
    _each(tick, cases_over(now), deadline)
    _each(tick, cases_unreported(now), repair)
    _each(tick, cases_repaired(), repair)
    _each(tick, invoices_homeless(), orphan)


def _stamp(now: datetime) -> Stamp:
    return Stamp("system:reconcile", "the next step was over or missing", now)


def case_replan(case_pk: int, now: datetime) -> bool:
    case = Case.objects.select_related("connection").get(pk=case_pk)
    with transaction.atomic():
        scope = scope_lock(customer_pk=case.customer_id, invoice_pk=case.invoice_id)
        locked = open_case(scope.invoice)
        if locked is None or locked.pk != case_pk:
            return False
        if locked.paused_by == "configuration":
            locked.paused_by = ""
            locked.save(update_fields=["paused_by"])
            subject = case.connection.public_id
            reviews_close(
                invoice=scope.invoice, kinds=[ReviewKind.CONFIGURATION], subject_id=subject, stamp=_stamp(now)
            )
        plan = case_plan(scope, locked, _stamp(now))
    reconcile_line("planned", status=plan.step, stuck=now - case.opened_at, case=case.public_id, reason=plan.why)
    return True


def _orphan(invoice_pk: int, now: datetime) -> bool:
    """An open invoice without case, job or attempt: nobody knows what to do, so staff must hear of it."""
    customer_pk = Invoice.objects.values_list("customer_id", flat=True).get(pk=invoice_pk)
    with transaction.atomic():
        scope = scope_lock(customer_pk=customer_pk, invoice_pk=invoice_pk)
        if scope.invoice.status != InvoiceStatus.PROCESSING or open_case(scope.invoice) is not None:
            return False
        review_open(
            invoice=scope.invoice,
            kind=ReviewKind.NO_PLAN,
            subject_type="invoice",
            subject_id=scope.invoice.public_id,
            facts={"why": "The invoice is open, but nothing is planned for it."},
            choices=["recover", "paid", "cancel", "write_off"],
            stamp=Stamp("system:reconcile", "an open invoice without a next step", now),
        )
    invoice = scope.invoice
    reconcile_line("no_plan", status=invoice.status, stuck=now - invoice.issued_at, invoice=invoice.public_id)
    return True


def _scan(tick: _Tick) -> None:
    """Phase 5: payments the provider has and we do not."""
    for connection_pk in connections_to_scan():
        if not tick.keep_going():
            return
        if connection_pk in tick.deaf():
            continue
        try:
            tick.counts.scanned += connection_scan(connection_pk, now=tick.now)
        except Exception:  # the sweep loop: one connection must not stop the others
            tick.counts.errors += 1
            log.exception("reconcile_failed", connection=connection_pk)


def _slots(tick: _Tick) -> None:
    """Customers with queued invoices and nobody in the slot."""

    def release(pk: int) -> None:
        job = RetryJob.objects.get(pk=pk)
        with transaction.atomic():
            scope = scope_lock(customer_pk=job.customer_id, invoice_pk=job.invoice_id)
            slot_release(scope, Stamp("system:reconcile", "a free slot with invoices waiting", tick.now))
        tick.counts.slots_released += 1
        status = RetryJob.objects.values_list("status", flat=True).get(pk=pk)
        reconcile_line("slot_released", status=status, stuck=max(timedelta(), tick.now - job.due_at), job=job.public_id)

    _each(tick, slots_without_owner(), release)


def _remind(tick: _Tick) -> None:
    """Questions that nobody has answered for too long: one alert each."""

    def remind(pk: int) -> None:
        customer_pk, invoice_pk = ReviewItem.objects.values_list("invoice__customer_id", "invoice_id").get(pk=pk)
        with transaction.atomic():
            scope = scope_lock(customer_pk=customer_pk, invoice_pk=invoice_pk)
            stamp = Stamp("system:reconcile", "the staff queue", tick.now)
            told = review_remind(item_pk=pk, invoice=scope.invoice, stamp=stamp)
        if told:
            tick.counts.reminded += 1
            item = ReviewItem.objects.get(pk=pk)
            reconcile_line("staff_waits", status="open", stuck=tick.now - item.opened_at, review=item.public_id)

    _each(tick, questions_waiting(tick.now), remind)
