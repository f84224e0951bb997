"""Card disputes and bank returns: recorded always, applied to the invoice when money is really gone."""

from datetime import datetime, timedelta

from invoices.models import Attempt, Connection, Dispute
from invoices.services.ledger import Stamp, alert, move, record_event
from invoices.states import DisputeKind
from invoices.states import DisputeStatus as State
from providers.base import DisputeFacts, DisputeStatus, PaymentEvent
from recovery_site.common.errors import InvalidInput
from recovery_site.common.rows import row_insert
from retries.handler.resolve import EventWaits, Subject
from retries.locking import Scope, scope_lock
from retries.services.disputes import dispute_apply, dispute_take_back

_PATIENCE = timedelta(minutes=1)


def dispute_handle(event: PaymentEvent, connection: Connection, subject: Subject, stamp: Stamp) -> str:
    """DISPUTE_UPDATED."""
    facts = event.dispute
    assert facts is not None
    if subject.attempt_pk is None:
        raise EventWaits("The disputed payment is not known yet.", retry_after=_PATIENCE)
    attempt = Attempt.objects.select_related("card").get(pk=subject.attempt_pk)
    known = Dispute.objects.filter(connection_id=attempt.connection_id, provider_id=facts.id)
    if facts.amount_minor == 0 and not known.exists():
        return "A dispute of zero takes no money."
    scope = scope_lock(customer_pk=attempt.customer_id, invoice_pk=attempt.invoice_id)
    dispute_take_in(scope, attempt, facts, event, stamp)
    return ""


def dispute_take_in(scope: Scope, attempt: Attempt, facts: DisputeFacts, event: PaymentEvent, stamp: Stamp) -> None:
    """Record what is told of a dispute or a bank return of `attempt`, and apply a loss to its locked invoice."""
    dispute = _ensure(scope, attempt, facts, event, stamp)
    if facts.respond_by is not None and (dispute.respond_by is None or facts.respond_by > dispute.respond_by):
        dispute.respond_by = facts.respond_by
        dispute.save(update_fields=["respond_by"])
    _move(scope, dispute, facts, min(event.occurred_at, stamp.now), stamp)
    if dispute.status == State.LOST and dispute.applied_at is None:
        dispute_apply(scope, dispute, attempt, event.provider, stamp)


def _ensure(scope: Scope, attempt: Attempt, facts: DisputeFacts, event: PaymentEvent, stamp: Stamp) -> Dispute:
    dispute = Dispute.objects.filter(connection_id=attempt.connection_id, provider_id=facts.id).first()
    if dispute is not None and dispute.attempt_id != attempt.pk:
        raise InvalidInput(f"Dispute {facts.id} is known as one of another payment; look at it at the provider.")
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
    row_insert(dispute)
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
        until = f" Evidence is due by {facts.respond_by:%Y-%m-%d %H:%M} UTC." if facts.respond_by is not None else ""
        alert(scope.invoice, "disputed", f"The customer disputes this payment.{until}", stamp)
    return dispute


def _move(scope: Scope, dispute: Dispute, facts: DisputeFacts, told_at: datetime, stamp: Stamp) -> None:
    """The later of two decisions stands, whichever is told first: an issuer may go on after a dispute was won."""
    if dispute.closed_at is not None and told_at < dispute.closed_at:
        return
    if facts.status is DisputeStatus.WON and dispute.status != State.WON:
        move(dispute, "win", invoice=scope.invoice, stamp=stamp, closed_at=told_at)
        if dispute.applied_at is not None:
            dispute_take_back(scope, dispute, stamp)
    elif facts.status is DisputeStatus.LOST and dispute.status != State.LOST:
        move(dispute, "lose", invoice=scope.invoice, stamp=stamp, closed_at=told_at)
