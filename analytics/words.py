"""States and events in words and tones: one vocabulary for badges, legends, lists and exports."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from django.db.models import TextChoices

from invoices.states import AttemptStatus, DisputeStatus, InvoiceStatus, NoteStatus, TransactionStatus
from notifications.states import MessageStatus
from providers.categories import Category
from retries.states import CaseStatus, JobStatus, NextStep
from tokens.networks import NETWORK_NAMES, UNKNOWN
from tokens.states import TokenStatus
from webhooks.states import DeliveryStatus, InboxStatus

CHOICES: Final[Mapping[str, type[TextChoices]]] = MappingProxyType(
    {
        "invoice": InvoiceStatus,
        "transaction": TransactionStatus,
        "attempt": AttemptStatus,
        "dispute": DisputeStatus,
        "case": CaseStatus,
        "job": JobStatus,
        "step": NextStep,
        "token": TokenStatus,
        "inbox": InboxStatus,
        "message": MessageStatus,
        "delivery": DeliveryStatus,
        "note": NoteStatus,
    }
)

# The tones of static/css/theme.css. Colour never stands alone: the label is always beside it.
TONES: Final[Mapping[str, Mapping[str, str]]] = MappingProxyType(
    {
        "invoice": {
            InvoiceStatus.PROCESSING: "info",
            InvoiceStatus.SETTLED: "success",
            InvoiceStatus.PROCESS_FAILED: "danger",
            InvoiceStatus.REFUNDING: "violet",
            InvoiceStatus.REFUNDED: "violet",
        },
        "transaction": {
            TransactionStatus.PROCESSING: "info",
            TransactionStatus.RETRYING: "warning",
            TransactionStatus.DONE: "success",
            TransactionStatus.FAILED: "danger",
        },
        "attempt": {
            AttemptStatus.SENDING: "info",
            AttemptStatus.SUCCEEDED: "success",
            AttemptStatus.DECLINED: "danger",
            AttemptStatus.AWAITING: "warning",
            AttemptStatus.UNKNOWN: "violet",
        },
        "dispute": {
            DisputeStatus.OPEN: "warning",
            DisputeStatus.WON: "success",
            DisputeStatus.LOST: "danger",
        },
        "case": {
            CaseStatus.OPEN: "warning",
            CaseStatus.RECOVERED: "success",
            CaseStatus.LOST: "danger",
        },
        "job": {
            JobStatus.SCHEDULED: "info",
            JobStatus.RUNNING: "accent",
            JobStatus.DONE: "success",
            JobStatus.EXHAUSTED: "danger",
            JobStatus.NEEDS_REVIEW: "warning",
        },
        "step": {
            NextStep.BOOKED: "info",
            NextStep.SENDING: "accent",
            NextStep.AWAITING: "success",
            NextStep.RESOLVING: "violet",
            NextStep.PROVIDER: "accent",
            NextStep.CUSTOMER: "warning",
            NextStep.STAFF: "danger",
        },
        "message": {
            MessageStatus.PLANNED: "info",
            MessageStatus.SENDING: "accent",
            MessageStatus.SENT: "success",
            MessageStatus.DELIVERED: "success",
            MessageStatus.BOUNCED: "danger",
            MessageStatus.UNCONFIRMED: "violet",
            MessageStatus.SUPPRESSED: "warning",
            MessageStatus.FAILED: "danger",
        },
        "token": {TokenStatus.LIVE: "success", TokenStatus.DECLINED: "danger"},
        "inbox": {
            InboxStatus.RECEIVED: "info",
            InboxStatus.PROCESSED: "success",
            InboxStatus.FAILED: "danger",
        },
        "delivery": {
            DeliveryStatus.PENDING: "info",
            DeliveryStatus.DELIVERED: "success",
            DeliveryStatus.DEAD: "danger",
        },
        "note": {
            NoteStatus.WAITING: "warning",
            NoteStatus.LATER: "info",
            NoteStatus.WRITTEN: "success",
            NoteStatus.REFUSED: "danger",
            NoteStatus.FAILED: "danger",
        },
    }
)

CATEGORY_NAMES: Final[Mapping[str, str]] = MappingProxyType(
    {
        Category.HARD_DECLINE: "Hard decline",
        Category.FRAUD_FLAGGED: "Flagged as fraud",
        Category.INSUFFICIENT_FUNDS: "Insufficient funds",
        Category.SOFT_DECLINE: "Soft decline",
        Category.AUTHENTICATION_REQUIRED: "Authentication required",
        Category.NETWORK_ERROR: "Network error",
        Category.PROCESSING_ERROR: "Processing error",
        Category.SERVICE_UNAVAILABLE: "Service unavailable",
        Category.RATE_LIMITED: "Rate limited",
        Category.CONFIG_ERROR: "Configuration error",
    }
)


def state_label(kind: str, state: str) -> str:
    """The state's name for people; an unknown state is shown as it is stored."""
    choices = CHOICES[kind]
    return str(choices(state).label) if state in choices.values else state


def state_tone(kind: str, state: str) -> str:
    """The state's tone; neutral unless it says good, bad or waiting."""
    return TONES[kind].get(state, "neutral")


def category_name(category: str) -> str:
    """The category for people; attempts that were never classified carry none."""
    return CATEGORY_NAMES.get(category, category.replace("_", " ").capitalize() or "Not classified")


def network_name(network: str) -> str:
    """The network for people; attempts without a card have none."""
    if network == UNKNOWN:
        return "Unknown network"
    return NETWORK_NAMES.get(network, network.capitalize() or "No card")


_TRIGGER_NAMES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "automatic": "automatic retries",
        "card_update": "after a card update",
        "staff": "asked for by staff",
        "customer": "by the customer",
    }
)


def sender_name(sender: str) -> str:
    """`OURS automatic` (origin and trigger of an attempt) for people."""
    origin, _, trigger = sender.partition(" ")
    if origin == "OURS":
        return f"This service, {_TRIGGER_NAMES.get(trigger, trigger)}"
    return {"PROVIDER": "The provider: first charges and its own retries", "OUTSIDE": "Others"}.get(
        origin, origin.capitalize()
    )


_SOURCE_NAMES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "retry": "Automatic retry",
        "card_update": "Card update",
        "staff": "Staff",
        "customer": "Customer",
        "provider": "The provider's own retry",
        "outside": "Paid outside",
    }
)


def source_name(source: str) -> str:
    """What recovered a case (`Case.recovered_by`) for people."""
    return _SOURCE_NAMES.get(source, source.replace("_", " ").capitalize() or "Outside")
