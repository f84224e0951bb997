"""What of an invoice's payments can still be given back: for the button; the service checks again under its locks."""

from invoices.states import TRANSACTION_OPEN, AttemptStatus, DisputeStatus, TransactionKind, TransactionStatus
from recovery_site.console.story.gather import Rows
from recovery_site.console.story.types import Money, RefundableFacts
from recovery_site.console.words import card_label

_GIVEN = (*TRANSACTION_OPEN, TransactionStatus.DONE)


def refundable_facts(rows: Rows) -> tuple[RefundableFacts, ...]:
    """Paid charges with something left, whose payment the provider can name and nobody disputes."""
    disputed = {row.attempt_id for row in rows.disputes if row.status in (DisputeStatus.OPEN, DisputeStatus.LOST)}
    found = []
    for charge in rows.transactions:
        if charge.kind != TransactionKind.CHARGE or charge.status != TransactionStatus.DONE:
            continue
        tries = [row for row in rows.attempts if row.transaction_id == charge.pk]
        paid = next((row for row in tries if row.status == AttemptStatus.SUCCEEDED and row.provider_id), None)
        given = sum(
            row.amount_minor
            for row in rows.transactions
            if row.refund_of_id == charge.pk and row.status in _GIVEN and row.reversed_at is None
        )
        left = (charge.captured_minor or 0) - given
        if paid is None or left <= 0 or any(row.pk in disputed for row in tries):
            continue
        found.append(
            RefundableFacts(
                public_id=charge.public_id,
                card=card_label(paid.card.network, paid.card.last4) if paid.card else "",
                left=Money(left, charge.currency),
                paid_at=paid.finished_at,
            )
        )
    return tuple(found)
