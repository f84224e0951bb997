"""Refunds that a provider reports, ours among them."""

from dataclasses import replace
from datetime import timedelta

from invoices.models import Attempt, Connection
from invoices.services.ledger import Stamp
from invoices.services.refunds import refund_ambiguous, refund_in_flight, refund_record
from providers.base import PaymentEvent
from retries.handler.resolve import EventWaits, Subject
from retries.locking import scope_lock
from retries.refunding.send import refund_jobs_finish
from retries.services.disputes import disputes_apply

_PATIENCE = timedelta(minutes=1)


def refund_handle(event: PaymentEvent, connection: Connection, subject: Subject, stamp: Stamp) -> str:
    """REFUND_UPDATED: each refund becomes, or moves, one REFUND transaction of the charge it gives back."""
    if not event.refunds:
        return "The event names no refund."
    if not any(told.amount_minor for told in event.refunds):
        return "A refund of zero moves no money."
    if subject.attempt_pk is None:
        raise EventWaits("The refunded payment is not known yet.", retry_after=_PATIENCE)
    paid = Attempt.objects.select_related("transaction").get(pk=subject.attempt_pk)
    scope = scope_lock(customer_pk=paid.customer_id, invoice_pk=paid.invoice_id)
    for told in event.refunds:
        if told.amount_minor == 0:
            continue
        # Some formats name no currency for a refund: it is the payment's.
        facts = told if told.currency else replace(told, currency=paid.currency)
        if (facts.derived and refund_in_flight(paid)) or refund_ambiguous(paid, facts):
            raise EventWaits("A refund of this payment is being sent; the event is matched when its result is known.")
        refund_record(scope.invoice, paid, facts, stamp)
    refund_jobs_finish(paid.invoice_id)
    disputes_apply(scope, stamp)
    return ""
