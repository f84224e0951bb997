"""What a lost dispute or a bank return does to its invoice, and what takes it back."""

from invoices.models import Attempt, Dispute, Invoice
from invoices.services.billing import totals_refresh
from invoices.services.ledger import Stamp, move
from invoices.services.reviews import review_open, reviews_close
from invoices.states import (
    INVOICE_OPEN,
    DisputeKind,
    DisputeStatus,
    InvoiceStatus,
    ReviewKind,
)
from providers.base import DeclineFacts
from retries.locking import Scope, open_case
from retries.services.cases import case_ensure, case_note_failure
from retries.services.outcomes import verdict_on
from retries.services.planning import case_plan, nothing_due

# A returned debit may be presented again only for ACH R01/R09 and their SEPA equals (Nacha 2.12.4; SEPA practice).
_REPRESENTABLE = frozenset({"R01", "R09", "AM04", "MS03", "INSUFFICIENT_FUNDS"})


def dispute_apply(scope: Scope, dispute: Dispute, attempt: Attempt, provider: str, stamp: Stamp) -> None:
    """The money is gone: what it had paid is owed again, with a case. While a refund is open it is only recorded.

    After a lost dispute, or a return that may not be presented again, no automatic charge follows.
    """
    invoice = scope.invoice
    if dispute.kind == DisputeKind.RETURN and attempt.returned_at is None:
        attempt.returned_at = dispute.opened_at
        attempt.save(update_fields=["returned_at"])
    if obstacle := _not_applied(invoice, dispute, attempt):
        _ask(invoice, dispute, stamp, obstacle)
        return
    if invoice.status not in (InvoiceStatus.SETTLED, InvoiceStatus.PROCESSING, InvoiceStatus.PROCESS_FAILED):
        return
    dispute.applied_at = max(stamp.now, dispute.opened_at)
    dispute.save(update_fields=["applied_at"])
    totals_refresh(invoice)
    if invoice.due_minor == 0:
        return
    if invoice.status == InvoiceStatus.SETTLED:
        move(invoice, "reverse", invoice=invoice, stamp=stamp, data={"dispute": dispute.public_id})
    case = case_ensure(scope, opened_at=stamp.now, stamp=stamp)
    code = dispute.reason_code or dispute.kind.lower()
    verdict = verdict_on(
        scope,
        attempt,
        provider,
        DeclineFacts(raw_code=code, network_code=code if dispute.kind == DisputeKind.RETURN else ""),
    )
    case_note_failure(case, verdict, attempt=attempt, at=stamp.now, code=code)
    barred = dispute.kind == DisputeKind.DISPUTE or code.upper() not in _REPRESENTABLE
    case.automatic_barred = case.automatic_barred or barred
    case.save(update_fields=["automatic_barred"])
    case_plan(scope, case, stamp)
    if barred:
        _ask(invoice, dispute, stamp)


def _not_applied(invoice: Invoice, dispute: Dispute, attempt: Attempt) -> str:
    """Why this loss changes nothing that is owed, in words; empty if it does, or may yet."""
    if dispute.currency != attempt.currency:
        return (
            f"It is in {dispute.currency}, the payment was in {attempt.currency}:"
            " what it takes back has to be worked out by hand."
        )
    if invoice.status == InvoiceStatus.REFUNDED:
        return "The money was refunded already, so it is gone twice."
    if invoice.status == InvoiceStatus.CANCELED:
        return "The invoice is canceled, so nothing is owed for the money that was taken back."
    return ""


def _ask(invoice: Invoice, dispute: Dispute, stamp: Stamp, why: str = "") -> None:
    facts = {
        "kind": dispute.get_kind_display(),
        "reason": dispute.reason_code,
        "amount_minor": dispute.amount_minor,
        "currency": dispute.currency,
    }
    review_open(
        invoice=invoice,
        kind=ReviewKind.DISPUTED,
        subject_type="dispute",
        subject_id=dispute.public_id,
        facts={**facts, "why": why} if why else facts,
        choices=["noted"],
        stamp=stamp,
    )


def disputes_apply(scope: Scope, stamp: Stamp) -> None:
    """Apply what was lost while a refund was open, now that none is (DESIGN section 5)."""
    lost = Dispute.objects.filter(invoice=scope.invoice, status=DisputeStatus.LOST, applied_at=None)
    for dispute in lost.select_related("attempt__connection", "attempt__card").order_by("id"):
        if scope.invoice.status == InvoiceStatus.SETTLED:
            dispute_apply(scope, dispute, dispute.attempt, dispute.attempt.connection.provider, stamp)


def dispute_take_back(scope: Scope, dispute: Dispute, stamp: Stamp) -> None:
    """A lost dispute was won after all: its money counts as paid again, and an invoice that it pays settles."""
    invoice = scope.invoice
    dispute.applied_at = None
    dispute.save(update_fields=["applied_at"])
    totals_refresh(invoice)
    reviews_close(invoice=invoice, kinds=[ReviewKind.DISPUTED], subject_id=dispute.public_id, stamp=stamp)
    if invoice.status in INVOICE_OPEN and invoice.due_minor == 0:
        won = stamp.because(f"dispute {dispute.public_id} won")
        credited = dispute.attempt.transaction.settles_minor or 0
        nothing_due(scope, won, case=open_case(invoice), by=dispute.attempt, credited_minor=credited)
