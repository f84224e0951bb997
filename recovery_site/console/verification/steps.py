"""Promise 3: every open invoice has one next step, and that step is real. Pure."""

from collections.abc import Callable, Iterator, Mapping

from invoices.states import (
    ATTEMPT_OPEN,
    INVOICE_OPEN,
    AttemptStatus,
    InvoiceStatus,
    Origin,
    TransactionKind,
)
from recovery_site.console.verification.types import Bundle, Problem
from retries.models import Case
from retries.states import JOB_SLOT, CaseStatus, JobStatus, NextStep

_NAME = "open_invoice_without_next_step"


def step_problems(bundle: Bundle) -> Iterator[Problem]:
    """Open = PROCESSING, or PROCESS_FAILED with an open case (DESIGN section 1)."""
    case = next((case for case in bundle.cases if case.status == CaseStatus.OPEN), None)
    if bundle.invoice.status not in (InvoiceStatus.PROCESSING, InvoiceStatus.PROCESS_FAILED):
        if case is not None and bundle.invoice.status != InvoiceStatus.INIT:
            yield bundle.problem("case_of_closed_invoice", f"The invoice is {bundle.invoice.status}, its case is open.")
        return
    if case is None:
        if bundle.invoice.status == InvoiceStatus.PROCESSING and not _charge_alive(bundle):
            yield bundle.problem(_NAME, "It is PROCESSING without a case, an open charge attempt or a job.")
        return
    missing = _MISSING.get(case.next_step)
    if missing is None:
        yield bundle.problem(_NAME, f"Its case has the next step {case.next_step!r}.")
        return
    real, what = missing
    if not real(bundle, case):
        yield bundle.problem(_NAME, f"Its next step is {case.next_step}, but {what}.")


def _charge_alive(bundle: Bundle) -> bool:
    return bool(bundle.jobs) or any(
        row.kind == TransactionKind.CHARGE and row.status in ATTEMPT_OPEN for row in bundle.attempts
    )


def _job_in(*states: str) -> Callable[[Bundle, Case], bool]:
    return lambda bundle, case: any(job.status in states and job.kind == TransactionKind.CHARGE for job in bundle.jobs)


def _attempt_in(state: str) -> Callable[[Bundle, Case], bool]:
    return lambda bundle, case: any(
        row.status == state and row.kind == TransactionKind.CHARGE for row in bundle.attempts
    )


def _has_time(bundle: Bundle, case: Case) -> bool:
    return case.next_step_at is not None


_MISSING: Mapping[str, tuple[Callable[[Bundle, Case], bool], str]] = {
    NextStep.BOOKED: (_job_in(JobStatus.SCHEDULED, JobStatus.RUNNING), "no job is scheduled or running"),
    NextStep.QUEUED: (_job_in(JobStatus.QUEUED), "no job is queued"),
    NextStep.SENDING: (_attempt_in(AttemptStatus.SENDING), "nothing is being sent"),
    NextStep.AWAITING: (_attempt_in(AttemptStatus.AWAITING), "no attempt awaits settlement"),
    NextStep.RESOLVING: (_attempt_in(AttemptStatus.UNKNOWN), "no attempt is unknown"),
    NextStep.PAUSED: (lambda bundle, case: bool(case.paused_by), "nobody paused it"),
    NextStep.CUSTOMER: (_has_time, "it waits without an end"),
    NextStep.PROVIDER: (_has_time, "the provider named no time"),
    NextStep.STAFF: (
        lambda bundle, case: any(item.resolved_at is None for item in bundle.reviews),
        "no question is in the staff queue",
    ),
}


def slot_problems(bundle: Bundle) -> Iterator[Problem]:
    """Whoever holds the customer's slot can still use it, and whoever waits for it waits behind somebody."""
    name = "slot_without_owner"
    attempts = {row.pk: row for row in bundle.attempts}
    for job in bundle.jobs:
        if job.kind != TransactionKind.CHARGE:
            continue
        if job.status in JOB_SLOT and bundle.invoice.status not in INVOICE_OPEN:
            yield bundle.problem(name, f"Job {job.public_id} is {job.status}, the invoice {bundle.invoice.status}.")
        elif job.status == JobStatus.RUNNING and job.attempt_id is not None:
            attempt = attempts.get(job.attempt_id)
            if attempt is None or attempt.status != AttemptStatus.SENDING:
                state = attempt.status if attempt else "gone"
                yield bundle.problem(name, f"Job {job.public_id} runs, but its attempt is {state}.")
        elif job.status == JobStatus.RUNNING and (job.claim_token is None or job.lease_until is None):
            yield bundle.problem(name, f"Job {job.public_id} runs, but nobody has claimed it.")
        elif job.status == JobStatus.QUEUED and not bundle.slot_held:
            yield bundle.problem(name, f"Job {job.public_id} is queued, but nobody holds the customer's slot.")


def open_charge_problems(bundle: Bundle) -> Iterator[Problem]:
    """Promise 1, as far as rows can show it: one open charge of ours per invoice."""
    ours = [
        row.public_id
        for row in bundle.attempts
        if row.kind == TransactionKind.CHARGE and row.origin == Origin.OURS and row.status in ATTEMPT_OPEN
    ]
    if len(ours) > 1:
        yield bundle.problem("two_open_charges_of_one_invoice", f"Open at once: {', '.join(ours)}.")
