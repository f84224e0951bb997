"""The one entrance: an event in, its effect on the ledger in one transaction, or a reason why it has none."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from django.db import transaction

from invoices.models import Connection
from invoices.services.ledger import Stamp
from providers.base import EventKind, PaymentEvent
from retries.handler import disputes, invoices, links, methods, payments, refunds
from retries.handler.elsewhere import NOT_OURS, billers_of, for_biller, own_note
from retries.handler.resolve import Subject, subject_find


@dataclass(frozen=True, slots=True)
class Handled:
    """`effect`: False if the event is understood but changes nothing here; `reason` says why, for people."""

    effect: bool
    reason: str = ""


Handler = Callable[[PaymentEvent, Connection, Subject, Stamp], str]
# A handler returns why it did nothing, or an empty string.
_HANDLERS: Mapping[EventKind, Handler] = {
    EventKind.PAYMENT_FAILED: payments.payment_handle,
    EventKind.PAYMENT_SUCCEEDED: payments.payment_handle,
    EventKind.PAYMENT_PENDING: payments.payment_handle,
    EventKind.PAYMENT_LINKED: links.link_handle,
    EventKind.INVOICE_FAILED: invoices.invoice_failed,
    EventKind.INVOICE_PAID: invoices.invoice_paid,
    EventKind.INVOICE_UPDATED: invoices.invoice_updated,
    EventKind.INVOICE_VOIDED: invoices.invoice_voided,
    EventKind.INVOICE_UNCOLLECTIBLE: invoices.invoice_uncollectible,
    EventKind.SUBSCRIPTION_ENDED: invoices.subscription_ended,
    EventKind.REFUND_UPDATED: refunds.refund_handle,
    EventKind.DISPUTE_UPDATED: disputes.dispute_handle,
    EventKind.METHOD_UPDATED: methods.method_updated,
    EventKind.METHOD_REMOVED: methods.method_removed,
}


def event_handle(*, event: PaymentEvent, connection: Connection, cause: str, now: datetime) -> Handled:
    """Apply one event of `connection`'s provider. Idempotent: the same fact told again changes nothing.

    `now` is when we learn it; times of attempts come from the event. Raises EventWaits if it cannot be placed yet, and
    InvalidInput for facts that cannot be true; nothing is written then.
    """
    with transaction.atomic(savepoint=False):  # who calls this in a transaction of its own takes all of it back
        return event_apply(event=event, connection=connection, cause=cause, now=now)


def event_apply(*, event: PaymentEvent, connection: Connection, cause: str, now: datetime) -> Handled:
    """As `event_handle`, in the transaction of a caller who takes everything back if this raises."""
    account = connection.settings.get("account")
    if account and event.account and event.account != account:
        return Handled(effect=False, reason="The event is about another account than the one of this connection.")
    stamp = Stamp(actor=f"provider:{event.provider}", cause=cause, now=now)
    if billers := billers_of(connection):
        event, owner = for_biller(event, connection, billers)
        if owner == connection:
            return Handled(effect=False, reason=NOT_OURS)
        connection = owner
    elif reason := own_note(event, connection):
        return Handled(effect=False, reason=reason)
    subject = subject_find(event, connection, now)
    kind = event.kind
    if kind is EventKind.INVOICE_FAILED and event.payment is not None:
        kind = EventKind.PAYMENT_FAILED  # the biller's view and the payment's in one event
    reason = _HANDLERS[kind](replace(event, kind=kind), connection, subject, stamp)
    return Handled(effect=not reason, reason=reason)
