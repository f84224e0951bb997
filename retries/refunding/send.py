"""Sending refunds: intent written, call, result written, as for charges (DESIGN section 6). Budgets play no part."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import transaction

from invoices.models import Attempt, Connection, Transaction
from invoices.selectors.attempts import lease_over
from invoices.selectors.parties import attempt_account, charging_obstacle, connection_client
from invoices.services.attempts import (
    AttemptPlan,
    another_id,
    attempt_error,
    attempt_lose_track,
    attempt_start,
)
from invoices.services.ledger import Stamp, alert, move
from invoices.services.refunds import refund_awaited, refund_record, refund_state
from invoices.services.reviews import review_open
from invoices.states import (
    ATTEMPT_OPEN,
    AttemptStatus,
    Origin,
    ReviewKind,
    TransactionKind,
    TransactionStatus,
    Trigger,
)
from providers.base import ChargeResult, Outcome, ProviderUncertain, RefundFacts, RefundRequest, RefundStatus
from recovery_site.common.clock import database_now
from recovery_site.common.db import for_no_key_update
from recovery_site.common.raw import raw_answer
from retries.engine.claim import Claim
from retries.engine.prepare import Refused, call_takes, charging_switched_off
from retries.engine.send import may_send
from retries.locking import Scope, scope_lock
from retries.models import RetryJob
from retries.reconcile_log import attempt_line, reconcile_line
from retries.refunding.request import charge_attempt, given_minor, taken_back
from retries.services.disputes import disputes_apply
from retries.states import JobStatus

# Refunds are tried again only when they surely did not happen; then an outage's ladder fits (DESIGN section 8).
_LADDER = (timedelta(minutes=1), timedelta(minutes=5), timedelta(minutes=30), timedelta(hours=3), timedelta(hours=12))


@dataclass(frozen=True, slots=True)
class PreparedRefund:
    """A committed SENDING refund attempt and its request, to be sent before `send_by` (database clock)."""

    attempt_pk: int
    connection: Connection
    request: RefundRequest
    send_by: datetime


def refund_account(claim: Claim) -> Connection | None:
    """The account that took the money which a claimed refund gives back, read with its gate; None if none did."""
    charge = Transaction.objects.get(refunds__jobs=claim.job_pk)
    paid = charge_attempt(charge)
    if paid is None:
        return None
    return Connection.objects.select_related("gate").get(pk=paid.gateway_id or paid.connection_id)


def refund_prepare(claim: Claim, *, now: datetime, lease: timedelta, timeout: timedelta) -> PreparedRefund | Refused:
    """Step 2 for a refund: still open, switches on, no other call of it in flight; then the intent is committed."""
    stamp = Stamp(actor="system:engine", cause=f"job:{claim.job_pk}", now=now)
    with transaction.atomic(durable=True):
        scope = scope_lock(customer_pk=claim.customer_pk, invoice_pk=claim.invoice_pk)
        job = for_no_key_update(RetryJob.objects.filter(pk=claim.job_pk)).get()
        if job.claim_token != claim.token or job.status != JobStatus.RUNNING or job.attempt_id is not None:
            return Refused("another worker has taken the job over", rebooked=False)
        refund = for_no_key_update(Transaction.objects.filter(pk=job.transaction_id).select_related("refund_of")).get()
        connection = Connection.objects.get(pk=job.connection_id)
        obstacle, final = _obstacle(refund, connection)
        if not obstacle and (refusal := refund_refusal(refund)):
            refund_fail(scope, refund, f"It was not sent: {refusal}.", stamp)
            obstacle, final = refusal, True
        if obstacle:
            return _put_off(job, obstacle, final, now)
        assert refund.refund_of is not None
        paid = charge_attempt(refund.refund_of)
        assert paid is not None
        assert paid.provider_id is not None
        account = attempt_account(paid)
        lease_until = database_now() + lease
        send_by = lease_until - max(timeout, call_takes(account, lease))
        move(refund, "submit", invoice=scope.invoice, stamp=stamp)
        plan = AttemptPlan(
            transaction=refund,
            token_pk=None,
            card_pk=None,
            trigger=Trigger.STAFF,
            gateway_pk=paid.gateway_id,
            lease_until=lease_until,
            send_by=send_by,
        )
        attempt = attempt_start(scope.invoice, plan, stamp)
        job.attempt, job.lease_until = attempt, lease_until
        job.save(update_fields=["attempt", "lease_until"])
        return PreparedRefund(attempt.pk, account, refund_call(attempt, paid, refund.reason), send_by)


def refund_call(attempt: Attempt, paid: Attempt, reason: str) -> RefundRequest:
    """The request of a refund attempt: the same every time it is built."""
    assert attempt.idempotency_key is not None
    return RefundRequest(
        charge_id=paid.provider_id or "",
        payment_id=paid.provider_payment_id,
        amount_minor=attempt.amount_minor,
        currency=attempt.currency,
        reference=attempt.public_id,
        idempotency_key=attempt.idempotency_key,
        reason=reason,
    )


def _obstacle(refund: Transaction, connection: Connection) -> tuple[str, bool]:
    """Why nothing may be sent now, and whether that is final."""
    if refund.status not in (TransactionStatus.INIT, TransactionStatus.RETRYING):
        return f"the refund is {refund.status}", True
    if Attempt.objects.filter(transaction=refund, status__in=ATTEMPT_OPEN).exists():
        return "the result of an earlier call is still open", True
    if charging_switched_off(refund.merchant_id):
        return "charging is switched off", False
    return charging_obstacle(connection), False


def refund_refusal(refund: Transaction) -> str:
    """Why this money must not be given back any more, since it was asked for; empty if it may."""
    charge = refund.refund_of
    assert charge is not None
    if taken_back(charge):
        return "the payment is disputed or was returned, so the bank moves that money"
    if given_minor(charge) > (charge.captured_minor or 0):
        return "more would be given back than was paid, because of another refund"
    return ""


def _put_off(job: RetryJob, obstacle: str, final: bool, now: datetime) -> Refused:
    if final:
        job.finish()
        job.save(update_fields=["status"])
        return Refused(obstacle, rebooked=False)
    job.schedule()
    job.due_at, job.claim_token, job.lease_until = now + timedelta(minutes=1), None, None
    job.save(update_fields=["status", "due_at", "claim_token", "lease_until"])
    return Refused(obstacle, rebooked=True)


def refund_send(prepared: PreparedRefund) -> ChargeResult | ProviderUncertain:
    """Call the provider once, with nothing open; nothing is sent past `send_by` or while charging is switched off."""
    if not may_send(prepared.attempt_pk, send_by=prepared.send_by):
        return ChargeResult(outcome=Outcome.ERRORED, error_code="unsent")
    try:
        return connection_client(prepared.connection).refund(prepared.request)
    except ProviderUncertain as error:
        return error


def refund_answer(
    attempt_pk: int, answer: ChargeResult | ProviderUncertain, *, now: datetime, cause: str
) -> AttemptStatus:
    """Step 4, also for look-ups: what the provider's word does. Returns the attempt's status afterwards."""
    customer_pk, invoice_pk = Attempt.objects.values_list("customer_id", "invoice_id").get(pk=attempt_pk)
    stamp = Stamp(actor="system:engine", cause=cause, now=now)
    with transaction.atomic():
        scope = scope_lock(customer_pk=customer_pk, invoice_pk=invoice_pk)
        attempt = for_no_key_update(Attempt.objects.filter(pk=attempt_pk)).get()
        if isinstance(answer, ProviderUncertain):
            if attempt.status == AttemptStatus.SENDING:
                _lose_track(scope, attempt, answer.message, stamp, raw=answer.data)
        elif answer.outcome is not Outcome.ERRORED or attempt.resends == 0:
            # Beside a resend of the same key, "ours was never sent" proves nothing about the other one.
            _apply(scope, attempt, answer, stamp)
        refund_jobs_finish(attempt.invoice_id)
    return AttemptStatus(Attempt.objects.values_list("status", flat=True).get(pk=attempt_pk))


def refund_lease_expire(attempt_pk: int, *, now: datetime) -> bool:
    """A SENDING refund whose worker's lease ran out is UNKNOWN."""
    customer_pk, invoice_pk = Attempt.objects.values_list("customer_id", "invoice_id").get(pk=attempt_pk)
    with transaction.atomic():
        scope = scope_lock(customer_pk=customer_pk, invoice_pk=invoice_pk)
        attempt = for_no_key_update(Attempt.objects.filter(pk=attempt_pk)).get()
        if attempt.status != AttemptStatus.SENDING or not lease_over(attempt):
            return False
        stamp = Stamp(actor="system:reconcile", cause="lease ran out", now=now)
        _lose_track(scope, attempt, "The worker that sent it gave no result.", stamp)
        refund_jobs_finish(attempt.invoice_id)
    attempt_line("refund_lease_expired", attempt, now)
    return True


def _lose_track(scope: Scope, attempt: Attempt, why: str, stamp: Stamp, raw: Mapping[str, Any] | None = None) -> None:
    check_at = max(stamp.now, attempt.attempted_at + settings.RECONCILE_REFUND_ORPHAN_AFTER)
    attempt_lose_track(attempt, scope.invoice, check_at=check_at, why=why, stamp=stamp, raw=raw)


def refund_jobs_finish(invoice_pk: int) -> None:
    """End the jobs of refund calls whose result is known, or known to be unknown, whoever brought it."""
    over = RetryJob.objects.select_for_update(no_key=True, of=("self",)).filter(
        invoice=invoice_pk, kind=TransactionKind.REFUND, status=JobStatus.RUNNING, attempt__isnull=False
    )
    for job in over.exclude(attempt__status=AttemptStatus.SENDING):
        job.finish()
        job.save(update_fields=["status"])


def _differences(attempt: Attempt, answer: ChargeResult) -> str:
    """What in an answer contradicts the refund that was sent, in words; an answer that differs is never adopted."""
    if answer.outcome is Outcome.ERRORED:
        return ""
    found = []
    if answer.reference and answer.reference != attempt.public_id and attempt.origin == Origin.OURS:
        found.append("another reference")
    if answer.amount_minor is not None and answer.amount_minor != attempt.amount_minor:
        found.append(f"amount {answer.amount_minor} instead of {attempt.amount_minor}")
    if answer.currency and answer.currency != attempt.currency:
        found.append(f"currency {answer.currency} instead of {attempt.currency}")
    if another_id(attempt, answer):
        found.append("the id of another refund")
    return ", ".join(found)


def _apply(scope: Scope, attempt: Attempt, answer: ChargeResult, stamp: Stamp) -> None:
    """A definite answer; one about another refund, amount or currency is not adopted but put before staff."""
    if wrong := _differences(attempt, answer):
        if attempt.status == AttemptStatus.SENDING:
            _lose_track(scope, attempt, f"The provider's answer does not fit our request: {wrong}.", stamp)
        refund_to_staff(
            scope, attempt, f"the provider's answer differs from what was sent ({wrong})", stamp, answer.raw
        )
        return
    if answer.outcome is Outcome.ERRORED:
        if attempt.status in ATTEMPT_OPEN:
            _errored(scope, attempt, answer, stamp)
        return
    if answer.outcome is Outcome.AWAITING:
        if attempt.status in (AttemptStatus.SENDING, AttemptStatus.UNKNOWN):
            named = answer.provider_id if attempt.provider_id is None else ""
            refund_awaited(scope.invoice, attempt, named, stamp, expected_by=answer.expected_by)
        return
    succeeded = answer.outcome is Outcome.SUCCEEDED
    decline = answer.decline
    facts = RefundFacts(
        id=answer.provider_id,
        amount_minor=attempt.amount_minor,
        currency=attempt.currency,
        status=RefundStatus.SUCCEEDED if succeeded else RefundStatus.FAILED,
        reference=attempt.public_id,
        failure_reason=(decline.message or decline.raw_code) if decline else answer.error_code,
    )
    paid = charge_attempt(attempt.transaction.refund_of) if attempt.transaction.refund_of else None
    assert paid is not None
    refund_record(scope.invoice, paid, facts, stamp)
    disputes_apply(scope, stamp)


def _errored(scope: Scope, attempt: Attempt, answer: ChargeResult, stamp: Stamp) -> None:
    """It surely did not happen: tried again a few times with a new attempt, then FAILED and before staff."""
    code = answer.error_code or "request_refused"
    attempt_error(
        attempt,
        scope.invoice,
        code=code,
        category="",
        explanation=f"The refund was not accepted ({code}).",
        stamp=stamp,
    )
    refund = for_no_key_update(Transaction.objects.filter(pk=attempt.transaction_id)).get()
    tries = Attempt.objects.filter(transaction=refund, origin=Origin.OURS).count()
    soft = code in ("network_error", "unsent", "rate_limit_exceeded", "not_settled")
    job = RetryJob.objects.filter(attempt=attempt, status=JobStatus.RUNNING).first()
    if soft and tries <= len(_LADDER) and job is not None:
        move(refund, "retry_later", invoice=scope.invoice, stamp=stamp)
        job.schedule()
        job.due_at = stamp.now + max(_LADDER[tries - 1], answer.retry_after or timedelta())
        job.attempt, job.claim_token, job.lease_until = None, None, None
        job.save(update_fields=["status", "due_at", "attempt", "claim_token", "lease_until"])
        return
    refund_fail(scope, refund, f"The provider refused the refund ({code}).", stamp)


def refund_fail(scope: Scope, refund: Transaction, failure: str, stamp: Stamp) -> None:
    """FAILED: frees the cap, the invoice goes back, staff hear of it."""
    move(refund, "fail", invoice=scope.invoice, stamp=stamp, finished_at=stamp.now, failure=failure[:500])
    alert(scope.invoice, "refund_failed", failure[:400], stamp, {"refund": refund.public_id})
    refund_state(scope.invoice, stamp)
    disputes_apply(scope, stamp)
    stuck = stamp.now - refund.started_at
    reconcile_line("refund_failed", status=refund.status, stuck=stuck, transactionId=refund.public_id, reason=failure)


def refund_to_staff(
    scope: Scope, attempt: Attempt, why: str, stamp: Stamp, raw: Mapping[str, Any] | None = None
) -> None:
    """Nobody but a person can find out whether this refund happened; it counts against the cap until then.

    `raw` is the answer that could not be believed (default: the one that is kept with the attempt).
    """
    kept = raw_answer(raw) if raw else attempt.decision.get("raw_answer")
    item = review_open(
        invoice=scope.invoice,
        kind=ReviewKind.REFUND_STUCK,
        subject_type="attempt",
        subject_id=attempt.public_id,
        facts={
            "why": why,
            "amount_minor": attempt.amount_minor,
            "currency": attempt.currency,
            "reference": attempt.public_id,
            "provider_id": attempt.provider_id or "",
            **({"raw": kept} if kept else {}),
        },
        choices=["refunded", "not_refunded"],
        stamp=stamp,
    )
    if item.opened_at == stamp.now:
        attempt_line("refund_to_staff", attempt, stamp.now, reason=why)
