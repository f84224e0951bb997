"""Card disputes and bank returns: recorded always, applied to the invoice when money is really gone."""

from datetime import timedelta

from invoices.models import Attempt, Connection, Dispute
from invoices.services.billing import totals_refresh
from invoices.services.ledger import Stamp, alert, move, record_event
from invoices.services.reviews import review_open
from invoices.states import DisputeKind, InvoiceStatus, ReviewKind
from invoices.states import DisputeStatus as State
from providers.base import DeclineFacts, DisputeFacts, DisputeStatus, PaymentEvent
from retries.handler.resolve import EventWaits, Subject
from retries.locking import Scope, scope_lock
from retries.services.cases import case_ensure, case_note_failure
from retries.services.outcomes import verdict_on
from retries.services.planning import case_plan

_PATIENCE = timedelta(minutes=1)
# A returned debit may be presented again only for ACH R01/R09 and their SEPA equals (Nacha 2.12.4; SEPA practice).
_REPRESENTABLE = frozenset({"R01", "R09", "AM04", "MS03", "INSUFFICIENT_FUNDS"})


def dispute_handle(event: PaymentEvent, connection: Connection, subject: Subject, stamp: Stamp) -> str:
    """DISPUTE_UPDATED."""
    facts = event.dispute
    assert facts is not None
    if subject.attempt_pk is None:
        raise EventWaits("The disputed payment is not known yet.", retry_after=_PATIENCE)
    attempt = Attempt.objects.select_related("card").get(pk=subject.attempt_pk)
    scope = scope_lock(customer_pk=attempt.customer_id, invoice_pk=attempt.invoice_id)
    dispute = _ensure(scope, attempt, facts, event, stamp)
    _move(scope, dispute, facts, stamp)
    if dispute.status == State.LOST and dispute.applied_at is None:
        dispute_apply(scope, dispute, attempt, event.provider, stamp)
    return ""


def _ensure(scope: Scope, attempt: Attempt, facts: DisputeFacts, event: PaymentEvent, stamp: Stamp) -> Dispute:
    dispute = Dispute.objects.filter(connection_id=attempt.connection_id, provider_id=facts.id).first()
    if dispute is not None:
        return dispute
    on_card = attempt.card is None or attempt.card.kind == "card"
    dispute = Dispute(
        merchant_id=attempt.merchant_id,
        connection_id=attempt.connection_id,
        invoice=scope.invoice,
        attempt=attempt,
        provider_id=facts.id[:200],
        kind=DisputeKind.RETURN if facts.is_return or not on_card else DisputeKind.DISPUTE,
        amount_minor=facts.amount_minor,
        currency=facts.currency,
        reason_code=facts.reason_code[:60],
        opened_at=min(event.occurred_at, stamp.now),
    )
    dispute.save(force_insert=True)
    record_event(
        invoice=scope.invoice,
        kind="dispute.opened",
        stamp=stamp,
        subject_type="dispute",
        subject_id=dispute.public_id,
        to_state=dispute.status,
        data={"kind": dispute.kind, "amount_minor": dispute.amount_minor, "reason": dispute.reason_code},
    )
    if dispute.kind == DisputeKind.DISPUTE:
        alert(scope.invoice, "disputed", "The customer disputes this payment.", stamp)
    return dispute


def _move(scope: Scope, dispute: Dispute, facts: DisputeFacts, stamp: Stamp) -> None:
    if facts.status is DisputeStatus.WON and dispute.status != State.WON:
        move(dispute, "win", invoice=scope.invoice, stamp=stamp, closed_at=stamp.now)
    elif facts.status is DisputeStatus.LOST and dispute.status == State.OPEN:
        move(dispute, "lose", invoice=scope.invoice, stamp=stamp, closed_at=stamp.now)


def dispute_apply(scope: Scope, dispute: Dispute, attempt: Attempt, provider: str, stamp: Stamp) -> None:
    """The money is gone: the invoice reopens with a new case. While a refund is open or done it is only recorded.

    After a lost dispute, or a return that may not be presented again, no automatic charge follows.
    """
    invoice = scope.invoice
    if dispute.kind == DisputeKind.RETURN and attempt.returned_at is None:
        attempt.returned_at = dispute.opened_at
        attempt.save(update_fields=["returned_at"])
    if invoice.status != InvoiceStatus.SETTLED:
        return
    dispute.applied_at = max(stamp.now, dispute.opened_at)
    dispute.save(update_fields=["applied_at"])
    totals_refresh(invoice)
    if invoice.due_minor == 0:
        return
    move(invoice, "reverse", invoice=invoice, stamp=stamp, data={"dispute": dispute.public_id})
    case = case_ensure(scope, opened_at=stamp.now, stamp=stamp)
    code = dispute.reason_code or dispute.kind.lower()
    verdict = verdict_on(
        attempt,
        provider,
        DeclineFacts(raw_code=code, network_code=code if dispute.kind == DisputeKind.RETURN else ""),
    )
    case_note_failure(case, verdict, token_pk=attempt.token_id, at=stamp.now, code=code)
    case.automatic_barred = dispute.kind == DisputeKind.DISPUTE or code.upper() not in _REPRESENTABLE
    case.save(update_fields=["automatic_barred"])
    case_plan(scope, case, stamp)
    if case.automatic_barred:
        review_open(
            invoice=invoice,
            kind=ReviewKind.DISPUTED,
            subject_type="dispute",
            subject_id=dispute.public_id,
            facts={"kind": dispute.kind, "reason": dispute.reason_code, "amount_minor": dispute.amount_minor},
            choices=["noted"],
            stamp=stamp,
        )
