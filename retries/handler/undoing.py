"""Payments that were reported as made and did not come after all: late bank failures, authorisations that ran out."""

from datetime import datetime

from invoices.models import Attempt
from providers.base import DisputeFacts, DisputeStatus, PaymentEvent, PaymentFacts

# Among what is kept with an attempt: when the provider said so.
_UNDONE = "undone_at"


def undone_note(attempt: Attempt, event: PaymentEvent) -> None:
    """Keep with an open attempt that its failure is the provider's last word."""
    attempt.decision = {**attempt.decision, _UNDONE: event.occurred_at.isoformat()}
    attempt.save(update_fields=["decision"])


def undone_since(attempt: Attempt, event: PaymentEvent) -> bool:
    """True for a success that is told after its own undoing, though it came before: it is history."""
    undone_at = attempt.decision.get(_UNDONE)
    return undone_at is not None and event.occurred_at <= datetime.fromisoformat(undone_at)


def return_of(attempt: Attempt, payment: PaymentFacts) -> DisputeFacts:
    """The late failure of a payment that counts as successful, as the bank return that it is for the books."""
    return DisputeFacts(
        id=f"{attempt.provider_id or attempt.public_id}:undone",
        amount_minor=attempt.captured_minor or attempt.amount_minor,
        currency=attempt.currency,
        status=DisputeStatus.LOST,
        reason_code=payment.decline.raw_code if payment.decline else "",
        is_return=True,
    )
