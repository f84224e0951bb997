"""Webhooks of a home-grown billing system: Standard Webhooks around a body of our own.

Fields and examples: docs/providers/generic.md.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from providers.base import BodyMalformed, EventKind, Ignored, InboundItem, InboundRequest, PaymentEvent, Proof
from providers.generic import standard_webhooks
from providers.generic.facts import Reader, customer, dispute, invoice, method, payment, refunds
from providers.generic.schema import check_body, without_blanks

KINDS: Mapping[str, EventKind] = {
    "payment.failed": EventKind.PAYMENT_FAILED,
    "payment.succeeded": EventKind.PAYMENT_SUCCEEDED,
    "payment.pending": EventKind.PAYMENT_PENDING,
    "invoice.failed": EventKind.INVOICE_FAILED,
    "invoice.paid": EventKind.INVOICE_PAID,
    "invoice.updated": EventKind.INVOICE_UPDATED,
    "invoice.voided": EventKind.INVOICE_VOIDED,
    "invoice.uncollectible": EventKind.INVOICE_UNCOLLECTIBLE,
    "subscription.ended": EventKind.SUBSCRIPTION_ENDED,
    "refund.updated": EventKind.REFUND_UPDATED,
    "dispute.updated": EventKind.DISPUTE_UPDATED,
    "payment_method.updated": EventKind.METHOD_UPDATED,
    "payment_method.removed": EventKind.METHOD_REMOVED,
}

# Where an event's invoice, else its charge, else its payer stands: the first one found orders the event.
_ORDER_KEYS = (
    ("invoice", "id"),
    ("payment", "invoice_id"),
    ("refund", "charge_id"),
    ("refund", "payment_id"),
    ("dispute", "charge_id"),
    ("dispute", "payment_id"),
    ("customer", "id"),
)
_MAX_EVENT_TYPE = 120


class GenericDialect:
    """Standard Webhooks signature over the raw bytes, body by `payment_event.schema.json`."""

    provider: ClassVar[str] = "generic"

    def secret_check(self, secret: str) -> None:
        """Any text: one that is no Standard Webhooks secret verifies nothing."""

    def verify(self, request: InboundRequest, secrets: Sequence[str], *, now: float, tolerance_seconds: int) -> Proof:
        """Raise SignatureInvalid unless one of `secrets` signed these bytes recently."""
        standard_webhooks.verify_signature(request, secrets, now=now, tolerance_seconds=tolerance_seconds)
        return Proof.SIGNED

    def split(self, request: InboundRequest) -> Sequence[InboundItem]:
        """One item per body; all of it is checked here, so that the sender hears of a mistake at once."""
        payload = standard_webhooks.json_object(request.body)
        event_type = payload.get("type")
        if not isinstance(event_type, str) or not event_type:
            raise BodyMalformed("/type is missing: send one of the event types listed in the documentation.")
        item = InboundItem(
            event_id=standard_webhooks.event_id(request),
            event_type=event_type[:_MAX_EVENT_TYPE],
            order_key=_order_key(payload),
            payload=payload,
        )
        self.parse(item)
        return [item]

    def parse(self, item: InboundItem) -> PaymentEvent | Ignored:
        """The event of one body. An unknown type is ignored; a wrong field raises BodyMalformed naming it."""
        kind = KINDS.get(item.event_type)
        if kind is None:
            return Ignored("This event type is not known here, so the event changes nothing.")
        payload = without_blanks(item.payload)
        check_body(payload)
        body = Reader(payload)
        owed = invoice(body.child("invoice"))
        occurred_at = body.required_time("occurred_at")
        tried = payment(body, owed, occurred_at)
        return PaymentEvent(
            kind=kind,
            provider=self.provider,
            event_id=item.event_id,
            event_type=item.event_type,
            occurred_at=occurred_at,
            customer=customer(body.child("customer")),
            invoice=owed,
            payment=tried,
            refunds=refunds(body.child("refund")),
            dispute=dispute(body.child("dispute")),
            method=None if tried else method(body.child("payment_method")),
            subscription_id=body.text("subscription_id") or (owed.subscription_id if owed else ""),
        )


def _order_key(payload: Mapping[str, object]) -> str:
    for part, name in _ORDER_KEYS:
        value = payload.get(part)
        key = value.get(name) if isinstance(value, dict) else None
        if isinstance(key, str) and key:
            return key
    subscription = payload.get("subscription_id")
    return subscription if isinstance(subscription, str) else ""
