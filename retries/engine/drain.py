"""The sweep over due retries: claim, work with threads, claim again as they become free, count what happened."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta

import structlog
from django.conf import settings
from django.db import close_old_connections

from invoices.models import Connection
from invoices.selectors.parties import charging_connection, connection_client
from invoices.states import AttemptStatus, TransactionKind
from providers.base import ChargeResult, ProviderUnavailable
from recovery_site.common.compiled import Compiled, Param
from retries.engine.biller import Stays, biller_consult, collection_refuse
from retries.engine.claim import (
    Claim,
    case_due_again,
    job_claim,
    job_release,
    job_unclaim,
    jobs_claim,
    jobs_due,
)
from retries.engine.crew import Crew
from retries.engine.poison import job_poisoned
from retries.engine.precheck import refused_early
from retries.engine.prepare import Refused, attempt_postpone, attempt_prepare
from retries.engine.send import charge_record, charge_send
from retries.refunding.send import refund_account, refund_answer, refund_prepare, refund_send
from retries.services.gates import (
    Barred,
    Passage,
    gate_answered,
    gate_enter,
    gate_leave,
    gate_no_connection,
    gate_note,
)
from tokens.mirror import mirrored_together

log = structlog.get_logger()
# How long a provider call is taken to last at least; a client with a longer time-out says so itself.
PROVIDER_TIMEOUT = timedelta(seconds=20)
_BILLER_PAUSE = timedelta(minutes=5)
# How often to look whether a connection's rate limit allows another call.
_CALLS_COME_SECONDS = 0.05


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


@dataclass(frozen=True, slots=True)
class _Worked:
    """What became of one claim: the count it adds to (none if it only went back), and its case if it is due again."""

    outcome: str | None
    due_again: int | None

    @property
    def counted(self) -> int:
        return int(self.outcome is not None)


@dataclass(frozen=True, slots=True)
class _Round:
    """What all jobs of one drain have in common. `clock` stamps what happens, `horizon` says what is due."""

    clock: Callable[[], datetime]
    horizon: Callable[[], datetime]
    lease: timedelta
    timeout: timedelta


def retries_drain(
    *,
    now: datetime,
    clock: Callable[[], datetime] | None = None,
    ongoing: bool = False,
    threads: int | None = None,
    keep_going: Callable[[], bool] = lambda: True,
) -> DrainCounts:
    """Work everything due at `now`, at most one attempt per case. `keep_going` is asked before each claim.

    `clock` stamps decisions and attempts (default: always `now`), because a drain may take minutes and windows are
    exact to the instant. `ongoing`: what becomes due meanwhile is worked, too, so that nobody waits for the end of a
    long backlog. Each thread has at most one claimed job waiting for it, so that a lease of two time-outs outlasts the
    queue.
    """
    lease = settings.RETRY_LOCK_TIMEOUT
    timeout = min(PROVIDER_TIMEOUT, lease / 2)
    stamps = clock or (lambda: now)
    this = _Round(stamps, stamps if ongoing else (lambda: now), lease, timeout)
    size = threads or settings.RETRY_THREADS
    most = min(2 * size, max(1, int(size * (lease / timeout - 1))))
    counts, again = DrainCounts(), set[int]()
    with mirrored_together() as mirror, Crew[Claim, _Worked](size, lambda claim: _work(claim, this), "retry") as crew:
        while True:
            room = most - crew.open
            if room >= most // 4 and keep_going():
                claims = jobs_claim(now=this.horizon(), lease=lease, limit=room, done_cases=sorted(again))
                for claim in claims:
                    crew.give(claim)
            if not crew.open:
                if _calls_come_soon(this, again) and keep_going():
                    time.sleep(_CALLS_COME_SECONDS)
                    continue
                break
            worked = crew.take()
            mirror()
            counts.claimed += worked.counted
            if worked.outcome is not None:
                setattr(counts, worked.outcome, getattr(counts, worked.outcome) + 1)
            if worked.due_again is not None:
                again.add(worked.due_again)
    return counts


def _calls_come_soon(this: _Round, again: set[int]) -> bool:
    """Whether something is due that waits for nothing but its connection's rate limit."""
    return bool(jobs_due(now=this.horizon(), limit=1, done_cases=sorted(again), rated=False))


def job_work(job_pk: int, *, now: datetime) -> str:
    """Work one booked job at once (a manual retry); the name of the count it would add to, or "queued"."""
    lease = settings.RETRY_LOCK_TIMEOUT
    claim = job_claim(job_pk, lease=lease)
    if claim is None:
        return "queued"
    return _counted(_attempt(claim, now, lease, min(PROVIDER_TIMEOUT, lease / 2)) or "rescheduled")


def _work(claim: Claim, this: _Round) -> _Worked:
    """One job through steps 2 to 4."""
    close_old_connections()
    now = this.clock()
    try:
        outcome = _attempt(claim, now, this.lease, this.timeout)
    except ProviderUnavailable as error:
        log.info("retry_postponed", job=claim.job_pk, reason=error.message)
        job_unclaim(claim, error=error.message, due_at=now + _BILLER_PAUSE)
        outcome = "rescheduled"
    except Exception as error:  # the sweep loop: a poison row must not stop the others
        log.exception("retry_failed", job=claim.job_pk, error=type(error).__name__)
        outcome = job_poisoned(claim, error=f"{type(error).__name__}: {error}", now=now)
    if outcome is None:
        return _Worked(None, None)
    over = outcome in ("settled", "unknown", "awaiting")
    due_again = None if over else case_due_again(claim, now=this.horizon())
    return _Worked(_counted(outcome), due_again)


def _counted(outcome: str) -> str:
    return "succeeded" if outcome == "settled" else outcome


_OWNER = Compiled(lambda: Connection.objects.filter(pk=Param("pk")).select_related("gate", "gateway__gate"))


def _attempt(claim: Claim, now: datetime, lease: timedelta, timeout: timedelta) -> str | None:
    """The name of the count it adds to, or "settled" for a success that left nothing to retry.

    None if the job went back untouched to wait for the rate limit.
    """
    (owner,) = _OWNER.all(pk=claim.connection_pk)
    if claim.kind == TransactionKind.REFUND:
        return _refund(claim, owner, now, lease, timeout)
    asks_first = connection_client(owner).traits.bills
    if asks_first and (early := refused_early(claim, now=now, lease=lease)) is not None:
        return _refused(claim, early)
    passage = gate_enter(charging_connection(owner), now=now)
    if isinstance(passage, Barred):
        return _barred(claim, passage, now)
    said = _consult(claim, owner, passage, now) if asks_first else None
    if isinstance(said, Barred):
        gate_leave(passage, now=now)
        return _barred(claim, said, now)
    if said is None:
        prepared = attempt_prepare(claim, now=now, lease=lease, timeout=timeout)
    else:
        prepared = collection_refuse(claim, said, now=now)
    if isinstance(prepared, Refused):
        gate_leave(passage, now=now)
        return _refused(claim, prepared)
    answer = charge_send(prepared)
    gate_note(passage, answer, now=now)
    outcome = _COUNTED.get(charge_record(prepared.attempt_pk, answer, now=now), "unknown")
    whole = isinstance(answer, ChargeResult) and answer.amount_minor in (None, prepared.request.amount_minor)
    return "settled" if outcome == "succeeded" and whole else outcome


def _consult(claim: Claim, owner: Connection, passage: Passage, now: datetime) -> Stays | Barred | None:
    """Ask the biller, through its own gate too where another account is charged for it."""
    asked = gate_enter(owner, now=now) if passage.connection_pk != owner.pk else passage
    if isinstance(asked, Barred):
        return asked
    try:
        said = biller_consult(claim, now=now)
    except ProviderUnavailable as error:
        gate_no_connection(asked, error.message, now=now)
        if asked is not passage:
            gate_leave(passage, now=now)
        raise
    if asked is not passage:
        gate_answered(asked, now=now)
    return said


def _refund(claim: Claim, owner: Connection, now: datetime, lease: timedelta, timeout: timedelta) -> str | None:
    passage = gate_enter(refund_account(claim) or owner, now=now)
    if isinstance(passage, Barred):
        return _barred(claim, passage, now)
    prepared = refund_prepare(claim, now=now, lease=lease, timeout=timeout)
    if isinstance(prepared, Refused):
        gate_leave(passage, now=now)
        return _refused(claim, prepared)
    answer = refund_send(prepared)
    gate_note(passage, answer, now=now)
    status = refund_answer(prepared.attempt_pk, answer, now=now, cause=f"job:{claim.job_pk}")
    return _COUNTED.get(status, "unknown")


def _refused(claim: Claim, refused: Refused) -> str:
    log.info("retry_refused", job=claim.job_pk, kind=claim.kind, reason=refused.reason)
    return "rescheduled" if refused.rebooked else "refused"


def _barred(claim: Claim, barred: Barred, now: datetime) -> str | None:
    """The provider cannot be called: later, without using up a try."""
    if barred.brief:
        job_release(claim)
        return None
    if claim.kind == TransactionKind.REFUND:
        job_unclaim(claim, error=barred.why, due_at=barred.until)
        return "rescheduled"
    return _refused(claim, attempt_postpone(claim, until=barred.until, why=barred.why, now=now))
