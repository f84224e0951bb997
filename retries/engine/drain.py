"""The sweep over due retries: claim a batch, work it with threads, count what happened."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta

import structlog
from django.conf import settings
from django.db import close_old_connections, connection

from invoices.states import AttemptStatus, TransactionKind
from providers.base import ProviderUnavailable
from retries.engine.biller import biller_consult
from retries.engine.claim import Claim, job_claim, job_unclaim, jobs_claim
from retries.engine.precheck import refused_early
from retries.engine.prepare import Prepared, Refused, attempt_prepare
from retries.engine.send import charge_record, charge_send
from retries.refunding.send import refund_answer, refund_prepare, refund_send

log = structlog.get_logger()
THREADS = 8
# Longest a provider call may take; every client's own time-outs stay below it.
PROVIDER_TIMEOUT = timedelta(seconds=20)
_POISON_PAUSE = timedelta(hours=1)
_BILLER_PAUSE = timedelta(minutes=5)


@dataclass(slots=True)
class DrainCounts:
    """Outcomes of a drain; they sum to `claimed`."""

    claimed: int = 0
    succeeded: int = 0
    declined: int = 0
    unknown: int = 0
    awaiting: int = 0
    refused: int = 0
    rescheduled: int = 0

    def as_dict(self) -> dict[str, int]:
        return asdict(self)


_COUNTED = {
    AttemptStatus.SUCCEEDED: "succeeded",
    AttemptStatus.DECLINED: "declined",
    AttemptStatus.AWAITING: "awaiting",
    AttemptStatus.ERRORED: "rescheduled",
}


def retries_drain(
    *, now: datetime, batch: int | None = None, keep_going: Callable[[], bool] = lambda: True
) -> DrainCounts:
    """Work everything due at `now`, at most one attempt per case. `keep_going` is asked before each batch.

    The lease must outlast a whole batch: batch / threads x provider time-out (DESIGN section 6, step 3).
    """
    lease = settings.RETRY_LOCK_TIMEOUT
    timeout = min(PROVIDER_TIMEOUT, lease / 2)
    size = batch or max(1, int(THREADS * (lease / timeout - 1)))
    counts, done = DrainCounts(), set[int]()
    with ThreadPoolExecutor(THREADS, thread_name_prefix="retry") as pool:
        while keep_going():
            claims = jobs_claim(now=now, lease=lease, limit=min(size, 4 * THREADS), done_cases=sorted(done))
            if not claims:
                break
            done.update(claim.case_pk for claim in claims if claim.case_pk is not None)
            for outcome in pool.map(lambda claim: _work(claim, now, lease, timeout), claims):
                counts.claimed += 1
                setattr(counts, outcome, getattr(counts, outcome) + 1)
        barrier = threading.Barrier(THREADS)
        list(pool.map(lambda _: _close(barrier), range(THREADS)))
    return counts


def _close(barrier: threading.Barrier) -> None:
    """Close this thread's database connection; the barrier makes every thread of the pool take one turn."""
    connection.close()
    barrier.wait()


def job_work(job_pk: int, *, now: datetime) -> str:
    """Work one booked job at once (a manual retry); the name of the count it would add to, or "queued"."""
    lease = settings.RETRY_LOCK_TIMEOUT
    claim = job_claim(job_pk, lease=lease)
    if claim is None:
        return "queued"
    return _attempt(claim, now, lease, min(PROVIDER_TIMEOUT, lease / 2))


def _refund(claim: Claim, now: datetime, lease: timedelta, timeout: timedelta) -> str:
    prepared = refund_prepare(claim, now=now, lease=lease, timeout=timeout)
    if isinstance(prepared, Refused):
        log.info("refund_refused", job=claim.job_pk, reason=prepared.reason)
        return "rescheduled" if prepared.rebooked else "refused"
    status = refund_answer(prepared.attempt_pk, refund_send(prepared), now=now, cause=f"job:{claim.job_pk}")
    return _COUNTED.get(status, "unknown")


def _work(claim: Claim, now: datetime, lease: timedelta, timeout: timedelta) -> str:
    """One job through steps 2 to 4; the name of the count it adds to."""
    close_old_connections()
    try:
        return _attempt(claim, now, lease, timeout)
    except ProviderUnavailable as error:
        log.info("retry_postponed", job=claim.job_pk, reason=error.message)
        job_unclaim(claim, error=error.message, due_at=now + _BILLER_PAUSE)
        return "rescheduled"
    except Exception as error:  # the sweep loop: a poison row must not stop the others
        log.exception("retry_failed", job=claim.job_pk, error=type(error).__name__)
        job_unclaim(claim, error=f"{type(error).__name__}: {error}", due_at=now + _POISON_PAUSE)
        return "rescheduled"


def _attempt(claim: Claim, now: datetime, lease: timedelta, timeout: timedelta) -> str:
    if claim.kind == TransactionKind.REFUND:
        return _refund(claim, now, lease, timeout)
    prepared: Prepared | Refused | None = refused_early(claim, now=now, lease=lease)
    if prepared is None:
        biller_consult(claim, now=now)
        prepared = attempt_prepare(claim, now=now, lease=lease, timeout=timeout)
    if isinstance(prepared, Refused):
        log.info("retry_refused", job=claim.job_pk, reason=prepared.reason)
        return "rescheduled" if prepared.rebooked else "refused"
    status = charge_record(prepared.attempt_pk, charge_send(prepared), now=now)
    return _COUNTED.get(status, "unknown")
