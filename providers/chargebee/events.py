"""What each Chargebee event type means here: an event of the house, or a reason to leave it alone."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from providers.base import (
    INVOICE_KINDS,
    PAYMENT_KINDS,
    CustomerFacts,
    EventKind,
    Ignored,
    InvoiceFacts,
    MethodFacts,
    PaymentEvent,
)
from providers.chargebee import facts
from providers.chargebee.reading import Node

PROVIDER = "chargebee"

Meaning = PaymentEvent | Ignored


@dataclass(frozen=True, slots=True)
class ChargebeeEvent:
    """One event, taken apart. `trusted`: whether anything but a password vouches for it."""

    id: str
    type: str
    occurred_at: datetime
    content: Node
    trusted: bool


Handler = Callable[[ChargebeeEvent], Meaning]
# Resources that name their customer.
_OWNED = ("transaction", "invoice", "subscription", "credit_note", "payment_source", "card")


def meaning(event_id: str, event_type: str, payload: Mapping[str, Any], *, trusted: bool) -> Meaning:
    """The meaning of one event body. Raises InvalidInput where a field that is needed is impossible."""
    handler = _HANDLERS.get(event_type)
    if handler is None:
        return Ignored(_IGNORED.get(event_type, "This event type carries nothing that a payment recovery needs."))
    envelope = Node(payload, "event")
    return handler(
        ChargebeeEvent(
            id=event_id,
            type=event_type,
            occurred_at=envelope.required_instant("occurred_at"),
            content=Node(envelope.node("content").values, "content"),
            trusted=trusted,
        )
    )


def _told(event: ChargebeeEvent, kind: EventKind, **known: Any) -> PaymentEvent:
    return PaymentEvent(
        kind=kind,
        provider=PROVIDER,
        event_id=event.id,
        event_type=event.type,
        occurred_at=event.occurred_at,
        trusted=event.trusted,
        **known,
    )


def _payer(event: ChargebeeEvent) -> CustomerFacts | None:
    known = facts.customer(event.content.node("customer"))
    if known is not None:
        return known
    customer_id = next(filter(None, (event.content.node(name).identifier("customer_id") for name in _OWNED)), "")
    return CustomerFacts(id=customer_id) if customer_id else None


def _invoice_of(event: ChargebeeEvent) -> InvoiceFacts | None:
    shown = event.content.node("invoice")
    if not shown or shown.text("status") == "pending":
        return None
    return facts.invoice(shown, event.content.node("subscription"))


def _transaction(event: ChargebeeEvent) -> Meaning:
    shown = event.content.node("transaction")
    kind = shown.text("type", 40)
    if not shown:
        return _invoice(event)
    if kind == "refund":
        refund = facts.refund(shown, event.content)
        return _told(event, EventKind.REFUND_UPDATED, customer=_payer(event), refunds=(refund,))
    if kind == "payment_reversal":
        return _told(event, EventKind.DISPUTE_UPDATED, customer=_payer(event), dispute=facts.reversal(shown))
    if kind not in ("payment", ""):
        return Ignored("An authorisation moves no money; the payment that follows it has events of its own.")
    outcome = facts.OUTCOMES.get(shown.text("status", 40))
    if outcome is None:
        return Ignored("The transaction's status is not one that says whether money moved.")
    return _told(
        event,
        PAYMENT_KINDS[outcome],
        customer=_payer(event),
        invoice=_invoice_of(event),
        payment=facts.payment(shown, event.content),
    )


def _invoice(event: ChargebeeEvent) -> Meaning:
    shown = event.content.node("invoice")
    if not shown:
        return Ignored("The event carries neither a payment nor an invoice.")
    if shown.text("status") == "pending":
        return Ignored("A pending invoice is not owed yet; invoice_generated will tell.")
    invoice = facts.invoice(shown, event.content.node("subscription"))
    kind = INVOICE_KINDS.get(invoice.status, EventKind.INVOICE_UPDATED)
    return _told(event, kind, customer=_payer(event), invoice=invoice)


def _invoice_deleted(event: ChargebeeEvent) -> Meaning:
    shown = event.content.node("invoice")
    if not shown:
        return Ignored("The event names no invoice.")
    return _told(event, EventKind.INVOICE_VOIDED, customer=_payer(event), invoice=facts.invoice(shown))


def _credit_note(event: ChargebeeEvent) -> Meaning:
    shown = event.content.node("credit_note")
    if "chargeback" not in shown.text("reason_code", 60) + shown.text("create_reason_code", 60).lower():
        return Ignored("A credit note changes its invoice, which sends an event of its own; so does a refund.")
    return _told(event, EventKind.DISPUTE_UPDATED, customer=_payer(event), dispute=facts.chargeback(shown))


def _method(event: ChargebeeEvent, *, updated: bool) -> Meaning:
    method = facts.method(event.content, updated=updated)
    customer = _payer(event)
    if method is None or customer is None:
        return Ignored("The event names no payment method of a customer.")
    return _told(event, EventKind.METHOD_UPDATED, customer=customer, method=method)


def _method_expires(event: ChargebeeEvent) -> Meaning:
    """It expires or has expired: the date on the card is all there is to learn."""
    method = facts.method(event.content, updated=False)
    if method is None or method.card is None or method.card.exp_year is None:
        return Ignored("The event shows no card; its date of expiry is told when the card is used or changed.")
    return _method(event, updated=False)


def _method_removed(event: ChargebeeEvent) -> Meaning:
    """Only what the event names itself: the customer's primary method is what is left."""
    source, shown = event.content.node("payment_source"), event.content.node("card")
    token = source.identifier("id") or shown.identifier("payment_source_id")
    if not token:
        return Ignored("The event does not say which payment method is gone.")
    method = MethodFacts(token=token, kind="card" if shown else source.text("type", 20) or "card")
    return _told(event, EventKind.METHOD_REMOVED, customer=_payer(event), method=method)


def _subscription_ended(event: ChargebeeEvent) -> Meaning:
    subscription = event.content.node("subscription").required_identifier("id")
    return _told(event, EventKind.SUBSCRIPTION_ENDED, customer=_payer(event), subscription_id=subscription)


_HANDLERS: Mapping[str, Handler] = {
    "payment_failed": _transaction,
    "payment_succeeded": _transaction,
    "payment_initiated": _transaction,
    "payment_refunded": _transaction,
    "refund_initiated": _transaction,
    "transaction_created": _transaction,
    "transaction_updated": _transaction,
    "authorization_succeeded": _transaction,
    "authorization_voided": _transaction,
    "invoice_generated": _invoice,
    "invoice_updated": _invoice,
    "invoice_updated_with_backdating": _invoice,
    "invoice_deleted": _invoice_deleted,
    "dunning_updated": _invoice,
    "payment_due_reminder": _invoice,
    "credit_note_created": _credit_note,
    "credit_note_updated": _credit_note,
    "card_added": partial(_method, updated=False),
    "card_updated": partial(_method, updated=True),
    "payment_source_added": partial(_method, updated=False),
    "payment_source_updated": partial(_method, updated=True),
    **dict.fromkeys(
        ("card_expiry_reminder", "card_expired", "payment_source_expiring", "payment_source_expired"), _method_expires
    ),
    "card_deleted": _method_removed,
    "payment_source_deleted": _method_removed,
    "payment_source_locally_deleted": _method_removed,
    "subscription_cancelled": _subscription_ended,
    "subscription_canceled": _subscription_ended,
    "subscription_deleted": _subscription_ended,
}

_INVOICES_TELL = "Its invoice and payment send events of their own."
_IGNORED: Mapping[str, str] = {
    "pending_invoice_created": "A pending invoice is not owed yet; invoice_generated will tell.",
    "customer_created": "A customer without a failed payment needs nothing.",
    "customer_changed": "Payment methods and invoices send events of their own.",
    "customer_deleted": "Its payment methods and subscriptions send events of their own.",
    "credit_note_deleted": "The invoice tells what is owed again.",
    "subscription_created": _INVOICES_TELL,
    "subscription_started": _INVOICES_TELL,
    "subscription_activated": _INVOICES_TELL,
    "subscription_changed": _INVOICES_TELL,
    "subscription_renewed": _INVOICES_TELL,
    "subscription_reactivated": _INVOICES_TELL,
    "subscription_resumed": _INVOICES_TELL,
    "subscription_paused": "A pause makes no new invoices; those there are stay owed.",
    "subscription_cancellation_scheduled": "It runs until then; subscription_cancelled will tell.",
    "subscription_cancellation_reminder": "It runs until then; subscription_cancelled will tell.",
    "subscription_renewal_reminder": _INVOICES_TELL,
}
