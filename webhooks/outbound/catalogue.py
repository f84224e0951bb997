"""The public events: which types there are, and which ledger event each of them stands for.

The one place that translates. Webhooks out, the live stream and the in-process hooks speak these types and no
other; docs/webhooks_out.md shows each with an example, and a test holds the two together.
"""

from collections.abc import Mapping
from typing import Final

from django.db import models

from invoices.models import Event
from retries.states import CaseStatus, NextStep


class EventType(models.TextChoices):
    """Name and meaning of every public event."""

    CASE_OPENED = "case_opened", "A payment failed and its recovery has begun."
    RETRY_SCHEDULED = "retry_scheduled", "The next automatic charge is booked."
    RETRY_SUCCESS = "retry_success", "A failed invoice was recovered."
    RETRY_EXHAUSTED = "retry_exhausted", "No further automatic charge is possible."
    FINAL_ACTION = "final_action", "Recovery has ended without money, and your systems decide about the invoice."
    USER_NOTIFICATION = "user_notification", "The customer should be told something."
    INVOICE_SETTLED = "invoice_settled", "An invoice is paid."
    INVOICE_REVERSED = "invoice_reversed", "A paid invoice is owed again: a bank return or a lost dispute."
    INVOICE_REFUNDED = "invoice_refunded", "A paid invoice was refunded."
    INVOICE_CANCELED = "invoice_canceled", "An invoice is no longer collected."
    REFUND_FAILED = "refund_failed", "A refund did not reach the customer."
    DISPUTE_OPENED = "dispute_opened", "The customer disputes a payment."
    LIMITS_EXHAUSTED = "limits_exhausted", "A card network's limit allows no further try for now."


_TYPES: Final[Mapping[str, EventType]] = {
    "case.opened": EventType.CASE_OPENED,
    "case.planned": EventType.RETRY_SCHEDULED,
    "case.closed": EventType.RETRY_SUCCESS,
    "alert.exhausted": EventType.RETRY_EXHAUSTED,
    "case.final_action": EventType.FINAL_ACTION,
    "message.wanted": EventType.USER_NOTIFICATION,
    "invoice.settle": EventType.INVOICE_SETTLED,
    "invoice.reverse": EventType.INVOICE_REVERSED,
    "invoice.finish_refund": EventType.INVOICE_REFUNDED,
    "invoice.cancel": EventType.INVOICE_CANCELED,
    "alert.refund_failed": EventType.REFUND_FAILED,
    "dispute.opened": EventType.DISPUTE_OPENED,
    "alert.limits_exhausted": EventType.LIMITS_EXHAUSTED,
}
PUBLIC_KINDS: Final = tuple(_TYPES)
_ABOUT_RETRIES: Final = frozenset({EventType.RETRY_SCHEDULED, EventType.RETRY_SUCCESS, EventType.RETRY_EXHAUSTED})
# The live stream's name for all that is told of a payment's retries; the document's own `type` says which it is.
RETRY_NOTIFICATION: Final = "payment_retry_notification"


def stream_name(event_type: EventType) -> str:
    """What the live stream calls an event."""
    return RETRY_NOTIFICATION if event_type in _ABOUT_RETRIES else event_type.value


STREAM_NAMES: Final = tuple(dict.fromkeys(stream_name(one) for one in EventType))


def kind_wanted(kind: str) -> bool:
    """True for ledger events that may be public ones."""
    return kind in _TYPES


def kinds_of(event_type: EventType) -> frozenset[str]:
    """The ledger events that a public type may come from."""
    return frozenset(kind for kind, public in _TYPES.items() if public is event_type)


def public_type(event: Event) -> EventType | None:
    """The public type of a ledger event, None for one that is nobody else's business."""
    if event.kind == "case.planned" and event.data.get("step") != NextStep.BOOKED:
        return None
    if event.kind == "case.closed" and event.to_state != CaseStatus.RECOVERED:
        return None
    return _TYPES.get(event.kind)
