"""The job of an invoice's next attempt and the customer's slot that it takes, waits for and gives back.

Everything here runs under the locks of DESIGN section 6 (customer, cards, invoice) and in the caller's transaction.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from invoices.models import Invoice, Transaction
from invoices.services.billing import charge_for_due
from invoices.services.ledger import Stamp, invoice_lock
from invoices.services.reviews import reviews_close
from invoices.states import ReviewKind, TransactionKind, Trigger
from recovery_site.common.compiled import Compiled, Param
from recovery_site.common.db import for_no_key_update
from recovery_site.common.rows import row_insert, row_save
from retries.decisions import SWAP_ADVANTAGE
from retries.locking import Scope, open_case
from retries.models import Case, RetryJob
from retries.priority import expected_value, priority_band
from retries.services.cases import case_set_step
from retries.states import JOB_OPEN, JOB_SLOT, JobStatus, NextStep

# What booking writes of a job that was there.
_BOOKED = (
    *("status", "case", "token", "due_at", "trigger", "why", "decision", "requested_by", "band"),
    *("expected_value_minor", "attempt", "claim_token", "lease_until", "last_error", "failures"),
)


def job_book(
    scope: Scope,
    case: Case | None,
    *,
    token_pk: int | None,
    due_at: datetime,
    trigger: Trigger,
    why: str,
    decision: Mapping[str, Any],
    stamp: Stamp,
    urgent: bool = False,
    requested_by: str = "",
) -> RetryJob:
    """Book the next attempt of what is due: SCHEDULED if the customer's slot is free, else QUEUED behind its holder.

    `case` None: the first charge of an invoice that has not failed. `urgent` (a person's wish, a card update) and an
    advantage of more than an hour take the slot from a SCHEDULED job, never from a RUNNING one. `requested_by`: who
    asked for it, if not the one who books it now.
    """
    invoice = scope.invoice
    charge = charge_for_due(invoice, stamp)
    job = _job_of(invoice, charge)
    holder = slot_holder(scope, besides=job)
    if holder is not None and _may_demote(holder, due_at, urgent):
        _demote(holder, invoice, stamp)
        holder = None
    wanted = JobStatus.QUEUED if holder else JobStatus.SCHEDULED
    if job is None:
        job = _job_new(invoice, charge, wanted)
    elif job.status != wanted:
        _answered(job, invoice, stamp)
        getattr(job, "queue" if holder else "schedule")()
    job.case, job.token_id, job.due_at, job.trigger = case, token_pk, due_at, trigger
    job.why, job.decision, job.requested_by = why[:500], dict(decision), requested_by or stamp.actor
    job.band = priority_band(invoice, case, stamp.now)
    job.expected_value_minor = expected_value(invoice.due_minor, case.category if case else "")
    job.attempt, job.claim_token, job.lease_until, job.last_error, job.failures = None, None, None, "", 0
    if job._state.adding:
        row_insert(job)
    else:
        row_save(job, *_BOOKED)
    if case is None:
        return job
    if holder is None:
        case_set_step(case, invoice, NextStep.BOOKED, due_at, why, stamp)
    else:
        number = str(holder.invoice)
        case_set_step(
            case,
            invoice,
            NextStep.QUEUED,
            due_at,
            f"Queued behind invoice {number} of the same customer. {why}",
            stamp,
        )
    return job


def _job_of(invoice: Invoice, charge: Transaction) -> RetryJob | None:
    """The open job of this charge, locked; an open job of a replaced charge is canceled."""
    found = None
    for job in _OPEN_JOBS.all(invoice=invoice.pk):
        if job.transaction_id == charge.pk:
            found = job
        else:
            job.cancel()
            row_save(job, "status")
    return found


def _job_new(invoice: Invoice, charge: Transaction, status: JobStatus) -> RetryJob:
    return RetryJob(
        merchant_id=invoice.merchant_id,
        connection_id=invoice.connection_id,
        customer_id=invoice.customer_id,
        invoice=invoice,
        transaction=charge,
        status=status,
    )


def slot_holder(scope: Scope, *, besides: RetryJob | None = None) -> RetryJob | None:
    """The job that holds this customer's slot; covered by the customer's lock."""
    return _HOLDING.first(customer=scope.customer.pk, besides=besides.pk if besides else 0)


_HOLDING = Compiled(
    lambda: (
        RetryJob.objects.filter(customer=Param("customer"), kind=TransactionKind.CHARGE, status__in=JOB_SLOT)
        .exclude(pk=Param("besides"))
        .select_related("invoice")[:1]
    )
)
_QUEUED = Compiled(
    lambda: (
        for_no_key_update(RetryJob.objects.filter(customer=Param("customer"), kind=TransactionKind.CHARGE))
        .filter(status=JobStatus.QUEUED)
        .exclude(pk=Param("besides"))
        .order_by("-expected_value_minor", "id")
    )
)
_OPEN_JOBS = Compiled(
    lambda: for_no_key_update(
        RetryJob.objects.filter(invoice=Param("invoice"), kind=TransactionKind.CHARGE, status__in=JOB_OPEN)
    )
)


def _may_demote(holder: RetryJob, due_at: datetime, urgent: bool) -> bool:
    return holder.status == JobStatus.SCHEDULED and (urgent or holder.due_at - due_at > SWAP_ADVANTAGE)


def _demote(holder: RetryJob, winner: Invoice, stamp: Stamp) -> None:
    locked = invoice_lock(holder.invoice_id)
    holder.queue()
    row_save(holder, "status")
    case = open_case(locked)
    if case is not None:
        case_set_step(
            case,
            locked,
            NextStep.QUEUED,
            holder.due_at,
            f"Queued behind invoice {winner} of the same customer.",
            stamp,
        )


def _answered(job: RetryJob, invoice: Invoice, stamp: Stamp) -> None:
    """A job that waits for staff goes on or ends: what was asked about it is over."""
    if job.status == JobStatus.NEEDS_REVIEW:
        reviews_close(invoice=invoice, kinds=[ReviewKind.NO_PLAN], subject_id=job.public_id, stamp=stamp)


def job_end(scope: Scope, stamp: Stamp, *, exhausted: bool = False, done: bool = False) -> None:
    """End the invoice's open charge job and hand the slot on. A RUNNING job ends DONE or EXHAUSTED, others CANCELED."""
    for job in _OPEN_JOBS.all(invoice=scope.invoice.pk):
        if job.status == JobStatus.RUNNING and (done or exhausted):
            getattr(job, "finish" if done else "exhaust")()
        else:
            _answered(job, scope.invoice, stamp)
            job.cancel()
        row_save(job, "status")
    slot_release(scope, stamp)


def job_park(scope: Scope, stamp: Stamp, why: str) -> None:
    """PAUSED jobs keep their transaction but give the slot back; a RUNNING one is queued first."""
    for job in RetryJob.objects.select_for_update(no_key=True).filter(
        invoice=scope.invoice,
        kind=TransactionKind.CHARGE,
        status__in=(JobStatus.QUEUED, JobStatus.SCHEDULED, JobStatus.RUNNING),
    ):
        if job.status == JobStatus.RUNNING:
            job.queue()
            job.claim_token, job.lease_until = None, None
            # A move of its own: the state table leads from RUNNING to PAUSED only by way of the queue.
            row_save(job, "status", "claim_token", "lease_until")
        job.pause()
        job.why = why[:500]
        row_save(job, "status", "why")
    slot_release(scope, stamp)


def slot_release(scope: Scope, stamp: Stamp, *, besides: RetryJob | None = None) -> None:
    """If nobody holds the customer's slot, the queued job worth most (then the oldest) takes it.

    Among those that can go soonest: none is left behind that could go over an hour sooner than the one that is booked.
    """
    waiting = _QUEUED.all(customer=scope.customer.pk, besides=besides.pk if besides else 0)
    if not waiting or slot_holder(scope) is not None:
        return
    soonest = max(stamp.now, min(job.due_at for job in waiting))
    queued = next(job for job in waiting if job.due_at - soonest <= SWAP_ADVANTAGE)
    locked = scope.invoice if queued.invoice_id == scope.invoice.pk else invoice_lock(queued.invoice_id)
    queued.due_at = max(queued.due_at, stamp.now)
    queued.schedule()
    row_save(queued, "status", "due_at")
    case = open_case(locked)
    if case is not None:
        case_set_step(case, locked, NextStep.BOOKED, queued.due_at, queued.why, stamp)
