"""Refunds that got stuck (DESIGN section 11, phases 2 and 3): read, looked up by our reference, or put before staff."""

from collections import Counter
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import Q, QuerySet

from invoices.models import Attempt, ReviewItem, Transaction
from invoices.selectors.attempts import lease_over
from invoices.selectors.parties import asking_obstacle, attempt_account, connection_client
from invoices.services.attempts import attempt_error
from invoices.services.ledger import Stamp, record_event
from invoices.services.reviews import review_resolve
from invoices.states import (
    ATTEMPT_OPEN,
    AttemptStatus,
    Origin,
    ReviewKind,
    TransactionKind,
    TransactionStatus,
)
from providers.base import (
    ChargeResult,
    Lookup,
    Outcome,
    ProviderClient,
    ProviderUnavailable,
)
from recovery_site.common.clock import database_now
from recovery_site.common.db import for_no_key_update
from recovery_site.common.errors import Conflict, NotFound
from retries.engine.drain import PROVIDER_TIMEOUT
from retries.engine.prepare import call_takes, charging_switched_off
from retries.locking import Scope, scope_lock
from retries.models import RetryJob
from retries.reconcile_log import attempt_line
from retries.refunding.request import charge_attempt
from retries.refunding.send import (
    PreparedRefund,
    refund_answer,
    refund_call,
    refund_fail,
    refund_refusal,
    refund_send,
    refund_to_staff,
)
from retries.states import JOB_OPEN

_ABSENT_AFTER = timedelta(minutes=10)
_STAFF_AFTER = timedelta(hours=24)
_CHECK_AGAIN = timedelta(minutes=30)


def refund_resolve(attempt_pk: int, *, now: datetime, unreadable: Counter[int] | None = None) -> str:
    """One look at an open refund call: synced, adopted, failed, resent, staff, waiting or skipped.

    `unreadable` counts the connections whose provider did not answer.
    """
    attempt = Attempt.objects.select_related("connection__gateway", "gateway").get(pk=attempt_pk)
    if attempt.status not in (AttemptStatus.UNKNOWN, AttemptStatus.AWAITING):
        return "waiting"
    if obstacle := asking_obstacle(attempt_account(attempt)):
        return _staff(attempt.pk, obstacle, now) if _silent_for_a_day(attempt, now) else "skipped"
    client = connection_client(attempt_account(attempt))
    try:
        found = _look_up(client, attempt)
    except ProviderUnavailable as error:
        if unreadable is not None:
            unreadable[attempt.connection_id] += 1
        return _unreadable(attempt, error, now)
    if found is not None:
        return _adopt(attempt, found, now)
    return _absent(attempt, client, now)


def _look_up(client: ProviderClient, attempt: Attempt) -> ChargeResult | None:
    if attempt.provider_id:
        return client.refund_get(attempt.provider_id) if client.traits.reads else None
    if client.traits.refunds_found is Lookup.NONE:
        return None
    return client.refund_find(attempt.public_id)


def _unreadable(attempt: Attempt, error: ProviderUnavailable, now: datetime) -> str:
    """The row stays as it is for the next tick; a provider that is silent for a day is a matter for people."""
    attempt_line("unreadable", attempt, now, reason=error.message)
    if _silent_for_a_day(attempt, now):
        return _staff(attempt.pk, error.message, now, raw=error.data)
    return "waiting"


def _silent_for_a_day(attempt: Attempt, now: datetime) -> bool:
    since = attempt.attempted_at if attempt.status == AttemptStatus.UNKNOWN else attempt.expected_by or now
    return now - since > _STAFF_AFTER


def _adopt(attempt: Attempt, found: ChargeResult, now: datetime) -> str:
    if found.outcome is Outcome.AWAITING and attempt.status == AttemptStatus.AWAITING:
        return _overdue(attempt, now)
    before, named = attempt.status, attempt.provider_id is not None
    status = refund_answer(attempt.pk, found, now=now, cause="looked up at the provider")
    if status == before:  # it was not adopted: the answer is about something else, and people have been asked
        Attempt.objects.filter(pk=attempt.pk).update(next_check_at=now + _STAFF_AFTER)
        return "staff"
    attempt_line("refund_synced" if named else "refund_adopted", Attempt.objects.get(pk=attempt.pk), now)
    return "synced" if named else "adopted"


def _absent(attempt: Attempt, client: ProviderClient, now: datetime) -> str:
    """Not there: proof only by an authoritative look-up, ten minutes after sending and past the lease.

    Where it proves nothing, the same key makes a second sending harmless, while the provider surely knows it.
    """
    age, traits = now - attempt.attempted_at, client.traits
    if attempt.status == AttemptStatus.AWAITING:
        return _overdue(attempt, now)
    if age < _ABSENT_AFTER or not lease_over(attempt):
        return "waiting"
    if traits.refunds_found is Lookup.AUTHORITATIVE:
        return _fail(attempt.pk, now)
    if age < traits.key_ttl / 2:
        return _resend(attempt.pk, now)
    if age <= _STAFF_AFTER:
        return "waiting"
    return _staff(attempt.pk, "the provider cannot say whether the refund exists", now)


def _overdue(attempt: Attempt, now: datetime) -> str:
    if attempt.expected_by is None or attempt.expected_by > now:
        return "waiting"
    return _staff(attempt.pk, "the refund is still pending after its usual time", now)


def _resend(attempt_pk: int, now: datetime) -> str:
    """The same call under the same key: step 2's questions again, the lease renewed, then sent with nothing open."""
    prepared = _resend_prepare(attempt_pk, now)
    if prepared is None:
        return "waiting"
    answer = refund_send(prepared)
    # An unsent resend says nothing about the first sending: `refund_answer` passes over ERRORED.
    refund_answer(attempt_pk, answer, now=now, cause="sent again under the same key")
    attempt_line("refund_resent", Attempt.objects.get(pk=attempt_pk), now)
    return "resent"


def _resend_prepare(attempt_pk: int, now: datetime) -> PreparedRefund | None:
    customer_pk, invoice_pk = Attempt.objects.values_list("customer_id", "invoice_id").get(pk=attempt_pk)
    with transaction.atomic(durable=True):
        scope = scope_lock(customer_pk=customer_pk, invoice_pk=invoice_pk)
        rows = Attempt.objects.filter(pk=attempt_pk).select_related("transaction__refund_of", "connection")
        attempt = for_no_key_update(rows).get()
        charge = attempt.transaction.refund_of
        assert charge is not None
        paid = charge_attempt(charge)
        resendable = attempt.status == AttemptStatus.UNKNOWN and attempt.origin == Origin.OURS and lease_over(attempt)
        if not resendable or paid is None:
            return None
        refusal = refund_refusal(attempt.transaction)
        if charging_switched_off(attempt.merchant_id):
            refusal = "charging is switched off"
        attempt.next_check_at = now + _CHECK_AGAIN
        if refusal:
            attempt.save(update_fields=["next_check_at"])
            attempt_line("resend_refused", attempt, now, reason=refusal)
            return None
        lease = settings.RETRY_LOCK_TIMEOUT
        attempt.lease_until = database_now() + lease
        attempt.resends += 1
        attempt.save(update_fields=["lease_until", "resends", "next_check_at"])
        record_event(
            invoice=scope.invoice,
            kind="attempt.resent",
            stamp=Stamp(actor="system:reconcile", cause="resend under the same key", now=now),
            subject_type="attempt",
            subject_id=attempt.public_id,
            data={"resends": attempt.resends},
        )
        assert paid.provider_id is not None
        account = attempt_account(attempt)
        return PreparedRefund(
            attempt_pk=attempt.pk,
            connection=account,
            request=refund_call(attempt, paid, attempt.transaction.reason),
            send_by=attempt.lease_until - max(min(PROVIDER_TIMEOUT, lease / 2), call_takes(account, lease)),
        )


def _fail(attempt_pk: int, now: datetime) -> str:
    customer_pk, invoice_pk = Attempt.objects.values_list("customer_id", "invoice_id").get(pk=attempt_pk)
    stamp = Stamp(actor="system:reconcile", cause="the provider never received it", now=now)
    with transaction.atomic():
        scope = scope_lock(customer_pk=customer_pk, invoice_pk=invoice_pk)
        attempt = for_no_key_update(Attempt.objects.filter(pk=attempt_pk)).get()
        if attempt.status != AttemptStatus.UNKNOWN:
            return "waiting"
        _end_absent(scope, attempt, stamp)
    return "failed"


def _end_absent(scope: Scope, attempt: Attempt, stamp: Stamp) -> None:
    """It did not happen: the call ERRORED, the refund FAILED; a person may ask for it again."""
    attempt_error(
        attempt,
        scope.invoice,
        code="absent",
        category="",
        explanation="The provider does not know this refund.",
        stamp=stamp,
    )
    refund = for_no_key_update(Transaction.objects.filter(pk=attempt.transaction_id)).get()
    refund_fail(scope, refund, "The provider does not know this refund.", stamp)


def _staff(attempt_pk: int, why: str, now: datetime, *, raw: Mapping[str, Any] | None = None) -> str:
    customer_pk, invoice_pk = Attempt.objects.values_list("customer_id", "invoice_id").get(pk=attempt_pk)
    with transaction.atomic():
        scope = scope_lock(customer_pk=customer_pk, invoice_pk=invoice_pk)
        attempt = for_no_key_update(Attempt.objects.filter(pk=attempt_pk)).get()
        if attempt.status not in ATTEMPT_OPEN:
            return "waiting"
        refund_to_staff(scope, attempt, why, Stamp("system:reconcile", "a refund got stuck", now), raw)
        attempt.next_check_at = now + _STAFF_AFTER
        attempt.save(update_fields=["next_check_at"])
    return "staff"


def refund_orphans(now: datetime) -> QuerySet[Transaction]:
    """Refunds that nothing will ever send: no call, no job, nobody asked to approve them, past the short limit."""
    waiting = ReviewItem.objects.filter(kind=ReviewKind.REFUND_APPROVAL, resolved_at=None).values("subject_id")
    booked = RetryJob.objects.filter(kind=TransactionKind.REFUND, status__in=JOB_OPEN).values("transaction")
    return Transaction.objects.filter(
        kind=TransactionKind.REFUND,
        status__in=(TransactionStatus.INIT, TransactionStatus.RETRYING),
        started_at__lte=now - settings.RECONCILE_REFUND_ORPHAN_AFTER,
    ).exclude(Q(pk__in=booked) | Q(public_id__in=waiting))


def refund_orphan_fail(refund_pk: int, *, now: datetime) -> bool:
    """An orphan without a call was never sent: FAILED, the invoice back to SETTLED, one ERROR line."""
    refund = Transaction.objects.select_related("invoice").get(pk=refund_pk)
    with transaction.atomic():
        scope = scope_lock(customer_pk=refund.invoice.customer_id, invoice_pk=refund.invoice_id)
        refund = for_no_key_update(Transaction.objects.filter(pk=refund_pk)).get()
        open_call = Attempt.objects.filter(transaction=refund, status__in=ATTEMPT_OPEN).exists()
        if refund.status not in (TransactionStatus.INIT, TransactionStatus.RETRYING) or open_call:
            return False
        refund_fail(scope, refund, "The refund was never sent.", Stamp("system:reconcile", "orphan refund", now))
    return True


@transaction.atomic
def refund_attempt_resolve(*, attempt_pk: int, refunded: bool, stamp: Stamp, note: str) -> None:
    """Staff's answer for a refund nobody else can resolve. Raises NotFound, Conflict."""
    found = Attempt.objects.filter(pk=attempt_pk, kind=TransactionKind.REFUND).first()
    if found is None:
        raise NotFound("This refund call does not exist.")
    scope = scope_lock(customer_pk=found.customer_id, invoice_pk=found.invoice_id)
    attempt = for_no_key_update(Attempt.objects.filter(pk=attempt_pk)).get()
    if attempt.status not in (AttemptStatus.UNKNOWN, AttemptStatus.AWAITING):
        raise Conflict("The result of this refund is already known.")
    if not refunded and attempt.status == AttemptStatus.UNKNOWN and not lease_over(attempt):
        raise Conflict("This refund was sent a moment ago and may still arrive; answer again in a few minutes.")
    answer = "refunded" if refunded else "not_refunded"
    record_event(
        invoice=scope.invoice,
        kind="staff.resolve",
        stamp=stamp,
        subject_type="attempt",
        subject_id=attempt.public_id,
        data={"answer": answer, "note": note[:300]},
    )
    for item in ReviewItem.objects.filter(subject_id=attempt.public_id, kind=ReviewKind.REFUND_STUCK, resolved_at=None):
        review_resolve(item_pk=item.pk, invoice=scope.invoice, resolution=answer, stamp=stamp, note=note)
    if not refunded:
        _end_absent(scope, attempt, stamp)
        return
    outcome = ChargeResult(outcome=Outcome.SUCCEEDED, provider_id=attempt.provider_id or "")
    refund_answer(attempt.pk, outcome, now=stamp.now, cause=stamp.cause)
