"""What each Paddle event type means here: an event of the house, or a reason to leave it alone."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from providers.base import CustomerFacts, EventKind, Ignored, InboundItem, MethodFacts, PaymentEvent
from providers.paddle import facts
from providers.paddle.facts import Node

PROVIDER = "paddle"
Meaning = PaymentEvent | Ignored
_PAID = frozenset({"paid", "completed"})
_NOT_OWED = frozenset({"draft", "ready"})


def meaning(item: InboundItem) -> Meaning:
    """The meaning of one event body. Raises InvalidInput where a field that is needed is impossible."""
    envelope = Node(item.payload, "event")
    data = Node(envelope.node("data").values, item.event_type.split(".")[0])
    handler = _HANDLERS.get(item.event_type)
    if handler is None:
        return Ignored(_IGNORED.get(item.event_type, "This event type carries nothing that a payment recovery needs."))
    return handler(item, envelope, data)


def _told(item: InboundItem, envelope: Node, kind: EventKind, **known: Any) -> PaymentEvent:
    return item.told(PROVIDER, kind, envelope.required_moment("occurred_at"), **known)


def _payer(data: Node) -> CustomerFacts | None:
    customer = data.identifier("customer_id")
    return CustomerFacts(id=customer) if customer else None


def _transaction(item: InboundItem, envelope: Node, data: Node) -> Meaning:
    """By the transaction's status, whatever the event is called: each tells the whole transaction."""
    status = data.text("status", 40)
    if status in _NOT_OWED:
        return Ignored("The transaction is not billed yet, so nothing is owed.")
    known: dict[str, Any] = {"customer": _payer(data), "invoice": facts.invoice(data)}
    if status == "canceled":
        return _told(item, envelope, EventKind.INVOICE_VOIDED, **known)
    payment = facts.payment(data)
    if status in _PAID:
        kind = EventKind.PAYMENT_SUCCEEDED if payment and payment.captured_minor is not None else EventKind.INVOICE_PAID
    elif payment is not None and payment.decline is not None:
        kind = EventKind.PAYMENT_FAILED
    elif payment is not None and facts.newest_payment(data).text("status").startswith(
        ("pending", "authorized", "created")
    ):
        kind = EventKind.PAYMENT_PENDING
    else:
        kind = EventKind.INVOICE_UPDATED
    tried = kind in (EventKind.PAYMENT_SUCCEEDED, EventKind.PAYMENT_FAILED, EventKind.PAYMENT_PENDING)
    return _told(item, envelope, kind, payment=payment if tried else None, **known)


def _adjustment(item: InboundItem, envelope: Node, data: Node) -> Meaning:
    action = data.text("action", 40)
    if action == "refund":
        return _told(item, envelope, EventKind.REFUND_UPDATED, refunds=(facts.refund(data),))
    if action.startswith("chargeback"):
        dispute = facts.dispute(data, reversed_=action.endswith("_reverse"))
        return _told(item, envelope, EventKind.DISPUTE_UPDATED, dispute=dispute)
    return Ignored("A credit moves no money; it lowers a later transaction, which tells.")


def _method(kind: EventKind, item: InboundItem, envelope: Node, data: Node) -> Meaning:
    customer = _payer(data)
    method = MethodFacts(token=data.required_identifier("id"), kind=data.text("type", 20))
    if customer is None:
        return Ignored("The payment method belongs to no customer.")
    return _told(item, envelope, kind, customer=customer, method=method)


def _subscription_ended(item: InboundItem, envelope: Node, data: Node) -> Meaning:
    subscription = data.required_identifier("id")
    return _told(item, envelope, EventKind.SUBSCRIPTION_ENDED, customer=_payer(data), subscription_id=subscription)


_TRANSACTIONS = ("billed", "paid", "completed", "payment_failed", "past_due", "canceled", "updated", "created", "ready")
_HANDLERS: Mapping[str, Callable[[InboundItem, Node, Node], Meaning]] = {
    **{f"transaction.{name}": _transaction for name in _TRANSACTIONS},
    "adjustment.created": _adjustment,
    "adjustment.updated": _adjustment,
    "payment_method.saved": partial(_method, EventKind.METHOD_UPDATED),
    "payment_method.deleted": partial(_method, EventKind.METHOD_REMOVED),
    "subscription.canceled": _subscription_ended,
}
_TELL = "Its transactions send events of their own."
_IGNORED: Mapping[str, str] = {
    "subscription.paused": "A pause makes no new transactions; those there are stay owed.",
    **{
        f"subscription.{name}": _TELL
        for name in ("created", "activated", "trialing", "past_due", "resumed", "updated", "imported")
    },
    "customer.created": "A customer without a failed payment needs nothing.",
    "customer.updated": "A customer without a failed payment needs nothing.",
}
