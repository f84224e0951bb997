"""A job whose preparation raises: out of the way for an hour, and after the fifth time in a row before staff."""

from datetime import datetime, timedelta

import structlog
from django.db import transaction

from invoices.services.ledger import Stamp
from invoices.services.reviews import review_open
from invoices.states import ReviewKind, TransactionKind
from recovery_site.common.db import for_no_key_update
from recovery_site.common.scrubbing import scrub_text
from retries.engine.claim import Claim, job_unclaim
from retries.locking import open_case, scope_lock
from retries.models import RetryJob
from retries.services.booking import slot_release
from retries.services.cases import case_set_step
from retries.states import JobStatus, NextStep

log = structlog.get_logger()
PUSHES = 5
_PAUSE = timedelta(hours=1)


def job_poisoned(claim: Claim, *, error: str, now: datetime) -> str:
    """Push the job an hour ahead, or give it up for staff; the name of the count it adds to."""
    error = scrub_text(error)[:500]  # it may quote a row or an answer
    try:
        given_up = _give_up(claim, error, now)
    except Exception:  # what stops the preparation may stop this as well: the job must get out of the way all the same
        log.exception("retry_give_up_failed", job=claim.job_pk)
        given_up = False
    if given_up:
        return "refused"
    job_unclaim(claim, error=error, due_at=now + _PAUSE, failed=True)
    return "rescheduled"


def _give_up(claim: Claim, error: str, now: datetime) -> bool:
    """NEEDS_REVIEW with a question that keeps the error, the slot free for others; False if it may try again."""
    if RetryJob.objects.filter(pk=claim.job_pk, failures__lt=PUSHES).exists():
        return False
    stamp = Stamp(actor="system:engine", cause=f"job:{claim.job_pk}", now=now)
    with transaction.atomic():
        scope = scope_lock(customer_pk=claim.customer_pk, invoice_pk=claim.invoice_pk)
        job = for_no_key_update(RetryJob.objects.filter(pk=claim.job_pk)).get()
        if job.claim_token != claim.token or job.status != JobStatus.RUNNING or job.attempt_id is not None:
            return False
        job.need_review()
        job.claim_token, job.lease_until, job.last_error = None, None, error
        job.save(update_fields=["status", "claim_token", "lease_until", "last_error"])
        charge = job.kind == TransactionKind.CHARGE
        why = f"The {'retry' if charge else 'refund'} could not be prepared {job.failures + 1} times in a row."
        review_open(
            invoice=scope.invoice,
            kind=ReviewKind.NO_PLAN,
            subject_type="job",
            subject_id=job.public_id,
            facts={"why": why, "error": error},
            choices=["again", "paid", "cancel", "write_off"] if charge else ["again", "give_up"],
            stamp=stamp,
        )
        case = open_case(scope.invoice)
        if charge and case is not None:
            case_set_step(case, scope.invoice, NextStep.STAFF, None, why, stamp)
        if charge:
            slot_release(scope, stamp)
    return True
