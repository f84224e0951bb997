"""What a charge's result does to everything around it: attempt, transaction, token, card, invoice, case, job, slot.

The same functions serve our own replies, webhooks, polls and staff, so that a result means the same on every road.
All need the locks of DESIGN section 6 and run in the caller's transaction.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any

from django.conf import settings

from invoices.models import Attempt, Transaction
from invoices.services.attempts import (
    ReportedAttempt,
    attempt_await,
    attempt_decline,
    attempt_error,
    attempt_lose_track,
    attempt_name_decline,
    attempt_report,
    attempt_succeed,
    charges_in_flight,
)
from invoices.services.billing import PaymentEffect, charge_create, charge_credit, charge_succeeded, open_charge
from invoices.services.ledger import Stamp, alert, move
from invoices.services.reviews import reviews_close
from invoices.states import (
    INVOICE_PAID,
    AttemptStatus,
    InvoiceStatus,
    Origin,
    ReviewKind,
    TransactionStatus,
    Trigger,
)
from providers.base import DeclineFacts
from providers.decline_tables import decline_tables
from recovery_site.common.compiled import Compiled, Param
from recovery_site.common.db import for_no_key_update
from recovery_site.common.errors import Conflict
from recovery_site.common.rows import row_save
from retries.classification import Classification, ClassificationInput, TransportError, classify, doubted
from retries.classification.types import Overrides
from retries.locking import Scope, open_case
from retries.models import Case
from retries.selectors import decline_overrides
from retries.services.booking import job_end
from retries.services.cases import (
    case_close,
    case_ensure,
    case_note_failure,
    case_past,
    case_set_step,
    latest_case,
    paid_after,
)
from retries.services.marking import connection_mark, method_mark
from retries.services.planning import case_plan, nothing_due
from retries.states import CaseStatus, NextStep
from tokens.services import token_succeed

# Questions about an attempt that its result answers.
_ANSWERED = (ReviewKind.UNKNOWN_ATTEMPT, ReviewKind.OVERDUE_SETTLEMENT, ReviewKind.MISMATCH)
_NONE: Overrides = MappingProxyType({})
# Errors of a request that surely did not become a charge, by the name the clients give them.
_TRANSPORT = {
    "network_error": TransportError.UNSENT,
    "unsent": TransportError.UNSENT,
    "request_refused": TransportError.REQUEST_REFUSED,
    "rate_limit_exceeded": TransportError.RATE_LIMITED,
    "authentication_failed": TransportError.UNAUTHORIZED,
}


def verdict_on(scope: Scope, attempt: Attempt, provider: str, decline: DeclineFacts) -> Classification:
    """Classify a decline with the provider's tables and the merchant's overrides."""
    card = scope.card(attempt.card_id) or attempt.card
    network = card.network if card else "unknown"
    overrides = decline_overrides(attempt.merchant_id, provider, decline.raw_code)
    return verdict_of(decline, provider=provider, network=network, overrides=overrides)


def verdict_of(decline: DeclineFacts, *, provider: str, network: str, overrides: Overrides = _NONE) -> Classification:
    """What a decline of a card of `network` means. Nothing lasting follows from a reason that nobody vouches for."""
    failure = ClassificationInput(
        provider=provider,
        raw_code=decline.raw_code,
        network=network,
        network_code=decline.network_code,
        advice_code=decline.advice_code,
        provider_advice=decline.provider_advice,
        message_present=bool(decline.message),
        sent_to_network=decline.sent_to_network,
    )
    verdict = classify(failure, decline_tables(provider, decline.gateway), overrides)
    return verdict if decline.trusted else doubted(verdict)


def charge_has_succeeded(
    scope: Scope, attempt: Attempt, *, captured_minor: int, provider: Mapping[str, Any], stamp: Stamp
) -> PaymentEffect:
    """The attempt brought in `captured_minor`; `provider` holds columns learned with it (provider_id ...).

    Closes the case as recovered when the invoice settles; plans the remainder of a partial capture. Money in another
    currency stops the machine: a person decides whether it pays the debt.
    """
    late = attempt.status in (AttemptStatus.DECLINED, AttemptStatus.ERRORED)
    invoice = scope.invoice
    attempt_succeed(attempt, invoice, captured_minor=captured_minor, provider=provider, stamp=stamp)
    if late:
        alert(invoice, "late_success", "A charge that counted as failed has succeeded after all.", stamp)
    reviews_close(
        invoice=invoice,
        kinds=_ANSWERED,
        subject_id=attempt.public_id,
        stamp=stamp,
    )
    if attempt.token_id is not None:
        token_succeed(token_pk=attempt.token_id, at=attempt.attempted_at)
    charge = attempt.transaction
    if charge.status == TransactionStatus.DONE:
        # The transaction was settled by another attempt: this one is further money, for what is still owed or beyond.
        planned = open_charge(invoice)
        if planned is not None and planned.currency != attempt.currency:
            move(planned, "cancel", invoice=invoice, stamp=stamp, finished_at=stamp.now)
            planned = None
        charge = planned or charge_create(
            invoice, amount_minor=attempt.amount_minor, currency=attempt.currency, stamp=stamp
        )
        Attempt.objects.filter(pk=attempt.pk).update(transaction=charge)
    effect = charge_succeeded(invoice, charge, captured_minor=captured_minor, stamp=stamp)
    job_end(scope, stamp, done=True)
    if effect == PaymentEffect.SETTLED:
        _retire_charge(scope, stamp)
        case = latest_case(invoice)
        if case is not None and case.status in (CaseStatus.OPEN, CaseStatus.LOST):
            case_recovered(scope, case, attempt, stamp)
    elif effect == PaymentEffect.PARTIAL:
        case_plan(scope, case_ensure(scope, opened_at=stamp.now, stamp=stamp), stamp.because("partial capture"))
    elif effect == PaymentEffect.WRONG_CURRENCY:
        why = f"Paid in {attempt.currency} instead of {invoice.currency}; a person has to decide what that pays."
        case = case_ensure(scope, opened_at=stamp.now, stamp=stamp)
        case_set_step(case, invoice, NextStep.STAFF, None, why, stamp)
    return effect


def _retire_charge(scope: Scope, stamp: Stamp) -> None:
    """The invoice was paid by another of its charges: one that is still planned is not needed any more."""
    charge = open_charge(scope.invoice)
    if charge is not None and charge.status != TransactionStatus.PROCESSING:
        move(charge, "cancel", invoice=scope.invoice, stamp=stamp, finished_at=stamp.now)


def invoice_was_paid(
    scope: Scope,
    stamp: Stamp,
    *,
    at: datetime | None = None,
    origin: Origin = Origin.OUTSIDE,
    trigger: Trigger = Trigger.STAFF,
    payment_id: str = "",
) -> PaymentEffect:
    """Somebody who knows (default: staff) says that the debt is paid, outside of what this service can see."""
    invoice = scope.invoice
    charge = open_charge(invoice) or charge_create(
        invoice, amount_minor=invoice.due_minor, currency=invoice.currency, stamp=stamp
    )
    if charge.status in (TransactionStatus.INIT, TransactionStatus.RETRYING):
        if invoice.status == InvoiceStatus.INIT:
            move(invoice, "start", invoice=invoice, stamp=stamp)
        move(charge, "submit", invoice=invoice, stamp=stamp)
    attempt = attempt_report(
        invoice,
        ReportedAttempt(
            transaction=charge,
            amount_minor=charge.amount_minor,
            currency=charge.currency,
            attempted_at=at or stamp.now,
            origin=origin,
            trigger=trigger,
            provider_payment_id=payment_id,
        ),
    )
    return charge_has_succeeded(scope, attempt, captured_minor=charge.amount_minor, provider={}, stamp=stamp)


def debt_is_paid_by(scope: Scope, charge: Transaction, stamp: Stamp) -> None:
    """A person decides that this money in another currency pays what is due: the invoice settles, its case ends as paid
    from outside. Raises Conflict while a charge is in flight, and where the money cannot pay (`charge_credit`)."""
    if charges_in_flight(scope.invoice):
        raise Conflict("A charge of this invoice is in flight: its result comes first.")
    credited = charge_credit(scope.invoice, charge, stamp)
    nothing_due(scope, stamp, case=open_case(scope.invoice), credited_minor=credited)


def case_recovered(scope: Scope, case: Case, attempt: Attempt | None, stamp: Stamp) -> None:
    """The debt of an open case is paid; `attempt` (None: credited) says who brought the money in."""
    case_close(scope, case, "recover", reason="paid", stamp=stamp, attempt=attempt)


def charge_was_declined(
    scope: Scope,
    attempt: Attempt,
    *,
    decline: DeclineFacts,
    provider_name: str,
    provider: Mapping[str, Any],
    failed_at: datetime,
    stamp: Stamp,
) -> Classification:
    """The provider said no: classify, mark token and card, let the transaction wait or end, plan what is next."""
    verdict = verdict_on(scope, attempt, provider_name, decline)
    attempt_decline(
        attempt,
        scope.invoice,
        decline=decline,
        category=verdict.category.value,
        explanation=verdict.explanation,
        provider=provider,
        stamp=stamp,
    )
    reviews_close(
        invoice=scope.invoice,
        kinds=_ANSWERED,
        subject_id=attempt.public_id,
        stamp=stamp,
    )
    method_mark(scope, attempt, verdict, decline, failed_at)
    connection_mark(attempt, verdict)
    _failed(scope, attempt, verdict, failed_at, decline.raw_code, stamp)
    return verdict


def decline_was_named(
    scope: Scope,
    attempt: Attempt,
    *,
    decline: DeclineFacts,
    provider_name: str,
    failed_at: datetime,
    stamp: Stamp,
) -> None:
    """A decline recorded without its code, or without the network's, now has it: classify again and plan anew."""
    verdict = verdict_on(scope, attempt, provider_name, decline)
    attempt_name_decline(
        attempt,
        scope.invoice,
        decline=decline,
        category=verdict.category.value,
        explanation=verdict.explanation,
        stamp=stamp,
    )
    method_mark(scope, attempt, verdict, decline, failed_at)
    _noted(scope, attempt, verdict, failed_at, decline.raw_code, stamp)


def decline_was_moved(scope: Scope, attempt: Attempt, *, stamp: Stamp) -> None:
    """A declined try stands in this invoice now: its case keeps the failure, the next step is planned anew."""
    decline = DeclineFacts(
        raw_code=attempt.raw_code,
        network_code=attempt.network_code,
        advice_code=attempt.advice_code,
        message=attempt.message,
        sent_to_network=attempt.counts,
    )
    verdict = verdict_on(scope, attempt, attempt.connection.provider, decline)
    _noted(scope, attempt, verdict, attempt.attempted_at, decline.raw_code, stamp)


def _noted(
    scope: Scope, attempt: Attempt, verdict: Classification, failed_at: datetime, code: str, stamp: Stamp
) -> None:
    """What follows from a decline of which only now all is known, or known where it belongs."""
    case = latest_case(scope.invoice)
    if (case is not None and case.status != CaseStatus.OPEN) or _of_the_past(scope, attempt):
        # What it was about has ended; a reason learned later starts nothing anew.
        case_past(scope, verdict, attempt=attempt, failed_at=failed_at, code=code, stamp=stamp)
        return
    if case is not None and case.hold_until is not None and scope.invoice.provider_invoice_id is not None:
        # Both halves are known now: the invoice by name, the failure by its code.
        case.hold_until = None
        row_save(case, "hold_until")
    _failed(scope, attempt, verdict, failed_at, code, stamp)


def charge_did_not_happen(
    scope: Scope,
    attempt: Attempt,
    *,
    code: str,
    provider_name: str,
    retry_after: timedelta | None,
    failed_at: datetime,
    stamp: Stamp,
    counts: bool = False,
) -> Classification:
    """ERRORED: provably unsent or refused before any charge. A configuration error of the connection pauses it.

    `counts`: no money moved, but the network may have seen it.
    """
    transport = _TRANSPORT.get(code)
    failure = ClassificationInput(
        provider=provider_name,
        raw_code="" if transport else code,
        transport_error=transport,
        sent_to_network=False,
    )
    verdict = classify(failure, decline_tables(provider_name))
    attempt_error(
        attempt,
        scope.invoice,
        code=code,
        category=verdict.category.value,
        explanation=verdict.explanation,
        stamp=stamp,
        counts=counts,
    )
    reviews_close(invoice=scope.invoice, kinds=_ANSWERED, subject_id=attempt.public_id, stamp=stamp)
    connection_mark(attempt, verdict)
    method_mark(scope, attempt, verdict, DeclineFacts(raw_code=code), failed_at)
    _failed(
        scope,
        attempt,
        verdict,
        failed_at,
        code,
        stamp,
        not_before=stamp.now + retry_after if retry_after else None,
    )
    return verdict


def charge_is_unknown(
    scope: Scope, attempt: Attempt, *, why: str, stamp: Stamp, raw: Mapping[str, Any] | None = None
) -> None:
    """Nobody knows: UNKNOWN, never FAILED. The job ends and the slot is free; resolution is the next step, once the
    charge counts as stuck: before, the provider may still be working on it, or tell it by webhook. `raw` is kept."""
    check_at = max(stamp.now, attempt.attempted_at + settings.RECONCILE_ORDER_STUCK_AFTER)
    attempt_lose_track(attempt, scope.invoice, check_at=check_at, why=why, stamp=stamp, raw=raw)
    _in_flight(
        scope,
        NextStep.RESOLVING,
        check_at,
        "Nobody knows yet whether the last charge went through; it is being looked up.",
        stamp,
    )


def charge_is_awaited(
    scope: Scope, attempt: Attempt, *, expected_by: datetime, provider: Mapping[str, Any], stamp: Stamp
) -> None:
    """The money is on its way (ACH, SEPA, vouchers): AWAITING until `expected_by`."""
    attempt_await(attempt, scope.invoice, expected_by=expected_by, provider=provider, stamp=stamp)
    _in_flight(scope, NextStep.AWAITING, expected_by, "The bank has not settled the last charge yet.", stamp)


def awaiting_extended(scope: Scope, attempt: Attempt, stamp: Stamp) -> None:
    """The bank gets its usual time once more; the case says until when."""
    case = open_case(scope.invoice)
    if case is not None:
        why = "The bank has not settled the last charge in its usual time; it gets that time once more."
        case_set_step(case, scope.invoice, NextStep.AWAITING, attempt.expected_by, why, stamp)


def _in_flight(scope: Scope, step: NextStep, at: datetime, why: str, stamp: Stamp) -> None:
    case = open_case(scope.invoice)
    if case is not None:
        case_set_step(case, scope.invoice, step, at, why, stamp)
    job_end(scope, stamp, done=True)


def _paid_by_another(scope: Scope, attempt: Attempt, stamp: Stamp) -> None:
    """What the biller told while our charge was in doubt is booked now that ours was not the payment."""
    told = attempt.decision["told_paid"]
    attempt.decision = {name: value for name, value in attempt.decision.items() if name != "told_paid"}
    row_save(attempt, "decision")
    invoice_was_paid(
        scope,
        stamp.because("told paid while our charge was in doubt"),
        at=datetime.fromisoformat(told["at"]),
        origin=Origin.PROVIDER,
        trigger=Trigger.AUTOMATIC,
        payment_id=told["payment_id"],
    )


def _cancel_with_invoice(scope: Scope, charge: Transaction, stamp: Stamp) -> None:
    """Somebody else's failed try of a canceled invoice: its charge ends as it would have, told before the end."""
    if charge.status == TransactionStatus.PROCESSING and not charges_in_flight(scope.invoice):
        move(charge, "retry_later", invoice=scope.invoice, stamp=stamp)
        move(charge, "cancel", invoice=scope.invoice, stamp=stamp, finished_at=stamp.now)


def _of_the_past(scope: Scope, attempt: Attempt) -> bool:
    """True for a failed try that a payment came after which settled the invoice, even if that money is gone since."""
    return scope.invoice.settled_at is not None and paid_after(scope.invoice, attempt) is not None


_CHARGE = Compiled(lambda: for_no_key_update(Transaction.objects.filter(pk=Param("pk"))))


def _failed(
    scope: Scope,
    attempt: Attempt,
    verdict: Classification,
    failed_at: datetime,
    code: str,
    stamp: Stamp,
    *,
    not_before: datetime | None = None,
) -> None:
    """The transaction waits (or ends with a canceled invoice), the case keeps the failure, the next step is planned.

    Unless the biller had said meanwhile that the invoice is paid: then it was by another payment.
    """
    if "told_paid" in attempt.decision and scope.invoice.due_minor > 0 and scope.invoice.status not in INVOICE_PAID:
        _paid_by_another(scope, attempt, stamp)
        return
    invoice = scope.invoice
    (charge,) = _CHARGE.all(pk=attempt.transaction_id)
    past = _of_the_past(scope, attempt)
    if past or invoice.status not in (InvoiceStatus.INIT, InvoiceStatus.PROCESSING, InvoiceStatus.PROCESS_FAILED):
        if invoice.status == InvoiceStatus.CANCELED and attempt.origin != Origin.OURS:
            _cancel_with_invoice(scope, charge, stamp)
        elif charge.status == TransactionStatus.PROCESSING:
            move(
                charge,
                "fail",
                invoice=invoice,
                stamp=stamp,
                finished_at=stamp.now,
                failure=verdict.explanation[:500],
            )
        if not past:
            job_end(scope, stamp, exhausted=True)
        case_past(scope, verdict, attempt=attempt, failed_at=failed_at, code=code, stamp=stamp)
        if past and (case := open_case(invoice)) is not None:
            case_plan(scope, case, stamp)  # it may have waited for this very result
        return
    if charge.status == TransactionStatus.PROCESSING and not charges_in_flight(invoice):
        move(charge, "retry_later", invoice=invoice, stamp=stamp)
    case = case_ensure(scope, opened_at=failed_at, stamp=stamp)
    case_note_failure(case, verdict, attempt=attempt, at=failed_at, code=code)
    case_plan(scope, case, stamp, not_before=not_before)
