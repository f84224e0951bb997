"""The sweep over due retries: claim, work with threads, claim again as they become free, count what happened."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import TypeVar

import structlog
from django.conf import settings
from django.db import close_old_connections

from invoices.models import Connection
from invoices.selectors.parties import charging_connection, connection_client
from invoices.states import AttemptStatus, TransactionKind
from providers.base import ChargeResult, ProviderUnavailable
from recovery_site.common.compiled import AnyOf, Compiled, Param
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
from retries.engine.prepare import Prepared, Refused, attempt_postpone, attempt_prepare, attempts_prepare
from retries.engine.send import Answer, charge_record, charge_send, charges_record
from retries.refunding.send import refund_account, refund_answer, refund_prepare, refund_send
from retries.services.gates import (
    Barred,
    Passage,
    gate_answered,
    gate_enter,
    gate_is_clear,
    gate_leave,
    gate_no_connection,
    gate_note,
)
from tokens.mirror import mirrored_together

log = structlog.get_logger()
ResultT = TypeVar("ResultT")
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

    def add(self, worked: "_Worked") -> None:
        if worked.outcome is not None:
            self.claimed += 1
            setattr(self, worked.outcome, getattr(self, worked.outcome) + 1)

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


@dataclass(frozen=True, slots=True)
class _Ready:
    """A charge that is written down and may be sent, at the `now` of its attempt."""

    claim: Claim
    prepared: Prepared
    now: datetime


@dataclass(frozen=True, slots=True)
class _Answered:
    """A charge that was sent; its answer is to be recorded."""

    ready: _Ready
    answer: Answer


# What a thread of the crew is given (a whole job, a charge to send, an answer to record) and what it gives back.
_Task = Claim | _Ready | _Answered
_Result = _Worked | _Answered


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
    queue. Threads only talk to providers where they can: charges are written down, and their answers recorded, many in
    one transaction here (docs/adr/0020).
    """
    lease = settings.RETRY_LOCK_TIMEOUT
    timeout = min(PROVIDER_TIMEOUT, lease / 2)
    stamps = clock or (lambda: now)
    this = _Round(stamps, stamps if ongoing else (lambda: now), lease, timeout)
    size = threads or settings.RETRY_THREADS
    most = min(2 * size, max(1, int(size * (lease / timeout - 1))))
    counts, again, taken = DrainCounts(), set[int](), list[_Result]()
    with mirrored_together() as mirror, Crew[_Task, _Result](size, lambda task: _work(task, this), "retry") as crew:
        try:
            while True:
                worked = list[_Worked]()
                room = most - crew.open
                if room >= most // 4 and keep_going():
                    claims = jobs_claim(now=this.horizon(), lease=lease, limit=room, done_cases=sorted(again))
                    worked += _hand_out(claims, crew, this)
                if crew.open:
                    taken = crew.take_all()
                    worked += _recorded(taken, crew, this)
                    taken = []
                elif not worked:
                    if not (_calls_come_soon(this, again) and keep_going()):
                        break
                    time.sleep(_CALLS_COME_SECONDS)
                mirror()
                for one in worked:
                    counts.add(one)
                    if one.due_again is not None:
                        again.add(one.due_again)
        finally:  # if something has stopped this, what was sent is recorded all the same
            _record_all(taken)
            while crew.open:
                _record_all(_taken(crew))
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


def _hand_out(claims: Sequence[Claim], crew: Crew[_Task, _Result], this: _Round) -> list[_Worked]:
    """Give every claim to the crew: charges are written down together first, so that threads only send them; a job that
    needs more of a conversation goes there as it is. Returns what has ended already."""
    owners = {owner.pk: owner for owner in _OWNERS.all(pks=list({claim.connection_pk for claim in claims}))}
    only_sent, now = [], this.clock()
    for claim in claims:
        if _is_only_sent(claim, owners[claim.connection_pk], now):
            only_sent.append(claim)
        else:
            crew.give(claim)
    together = attempts_prepare(only_sent, now=now, lease=this.lease, timeout=this.timeout)
    refused = []
    for claim, prepared in zip(only_sent, together, strict=True):
        if isinstance(prepared, Refused):
            refused.append((claim, prepared))
        else:
            crew.give(claim if prepared is None else _Ready(claim, prepared, now))
    return [_ended(claim, _refused(claim, why), this) for claim, why in refused]


def _is_only_sent(claim: Claim, owner: Connection, now: datetime) -> bool:
    """True for a charge about which nobody is asked before, through an account whose calls nobody counts or watches."""
    if claim.kind != TransactionKind.CHARGE or not gate_is_clear(charging_connection(owner), now):
        return False
    try:
        return not connection_client(owner).traits.bills
    except Exception:  # noqa: BLE001  # it comes again, and is handled, where the job is worked whole
        return False


def _recorded(results: Sequence[_Result], crew: Crew[_Task, _Result], this: _Round) -> list[_Worked]:
    """Write down the answers that have come, together; one that cannot go with the others goes to the crew, because it
    may have to wait for a lock."""
    worked = [result for result in results if isinstance(result, _Worked)]
    answered = [result for result in results if isinstance(result, _Answered)]
    together = charges_record([(one.ready.prepared.attempt_pk, one.answer, one.ready.now) for one in answered])
    for one, status in zip(answered, together, strict=True):
        if status is None:
            crew.give(one)
    for one, status in zip(answered, together, strict=True):
        if status is not None:
            worked.append(_ended(one.ready.claim, _outcome(one.ready.prepared, one.answer, status), this))
    return worked


def _taken(crew: Crew[_Task, _Result]) -> list[_Result]:
    try:
        return crew.take_all()
    except Exception:  # the drain has ended, by the same error or another: what else was sent is still to be recorded
        log.exception("retry_failed")
        return []


def _record_all(results: Sequence[_Result]) -> None:
    """One by one; an answer that was recorded already changes nothing."""
    for one in results:
        if isinstance(one, _Answered):
            _safely(one.ready.claim, partial(_record, one), one.ready.now)


def _record(one: _Answered) -> str:
    prepared = one.ready.prepared
    return _outcome(prepared, one.answer, charge_record(prepared.attempt_pk, one.answer, now=one.ready.now))


def _outcome(prepared: Prepared, answer: Answer, status: AttemptStatus) -> str:
    outcome = _COUNTED.get(status, "unknown")
    whole = isinstance(answer, ChargeResult) and answer.amount_minor in (None, prepared.request.amount_minor)
    return "settled" if outcome == "succeeded" and whole else outcome


def _work(task: _Task, this: _Round) -> _Result:
    """A thread's part: one job through steps 2 to 4, or the call of a charge that is written down."""
    close_old_connections()
    if isinstance(task, _Ready):
        return _sent(task, this)
    if isinstance(task, _Answered):
        claim, now = task.ready.claim, task.ready.now
        return _ended(claim, _safely(claim, partial(_record, task), now), this)
    now = this.clock()
    return _ended(task, _safely(task, partial(_attempt, task, now, this.lease, this.timeout), now), this)


def _sent(ready: _Ready, this: _Round) -> _Result:
    claim, now = ready.claim, ready.now
    # It may have waited for this thread, and the gate may have shut meanwhile.
    answer = _safely(claim, partial(charge_send, ready.prepared, gate_at=now), now)
    if isinstance(answer, str):
        return _ended(claim, answer, this)
    # Here and not where it is recorded: this thread's next call may be one too many.
    _safely(claim, partial(gate_note, Passage(ready.prepared.connection.pk), answer, now=now), now)
    return _Answered(ready, answer)


def _safely(claim: Claim, work: Callable[[], ResultT], now: datetime) -> ResultT | str:
    """What `work` returns; where it raises the job is pushed out of the way, and the count says that it is later."""
    try:
        return work()
    except ProviderUnavailable as error:
        log.info("retry_postponed", job=claim.job_pk, reason=error.message)
        job_unclaim(claim, error=error.message, due_at=now + _BILLER_PAUSE)
        return "rescheduled"
    except Exception as error:  # the sweep loop: a poison row must not stop the others
        log.exception("retry_failed", job=claim.job_pk, error=type(error).__name__)
        return job_poisoned(claim, error=f"{type(error).__name__}: {error}", now=now)


def _ended(claim: Claim, outcome: str | None, this: _Round) -> _Worked:
    if outcome is None:
        return _Worked(None, None)
    over = outcome in ("settled", "unknown", "awaiting")
    due_again = None if over else case_due_again(claim, now=this.horizon())
    return _Worked(_counted(outcome), due_again)


def _counted(outcome: str) -> str:
    return "succeeded" if outcome == "settled" else outcome


_OWNERS = Compiled(lambda: Connection.objects.filter(AnyOf("pk", Param("pks"))).select_related("gate", "gateway__gate"))


def _attempt(claim: Claim, now: datetime, lease: timedelta, timeout: timedelta) -> str | None:
    """The name of the count it adds to, or "settled" for a success that left nothing to retry.

    None if the job went back untouched to wait for the rate limit.
    """
    (owner,) = _OWNERS.all(pks=[claim.connection_pk])
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
    return _outcome(prepared, answer, charge_record(prepared.attempt_pk, answer, now=now))


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
