"""Payments and refunds made outside of Stripe Billing, written into its books."""

from typing import Any

from providers.base import ProviderUnavailable, ProviderUncertain
from providers.billing import NoteOutcome, NoteResult, PaymentNote, RefundNote
from providers.stripe.amounts import to_stripe
from providers.stripe.answers import read_result, unavailable, understood
from providers.stripe.exchange import Answer, Exchange, Fault, Problem
from providers.stripe.reading import Node
from recovery_site.common.errors import InvalidInput

NOTE_KEY = "refund"
# States of an invoice that a payment can still be written to; a draft is not owed, a void one never will be.
_PAYABLE = frozenset({"open", "uncollectible"})


def payment_write(exchange: Exchange, path: str, note: PaymentNote) -> NoteResult:
    """Mark the whole invoice as paid out of band. Stripe knows no such mark for a part of it."""
    invoice = read_result(exchange.get(path), lambda node, _: node)
    if invoice is None:
        return NoteResult(outcome=NoteOutcome.REFUSED, why="Stripe does not know this invoice.")
    status = understood(invoice.text, "status", 40)
    if status == "paid":
        return NoteResult(outcome=NoteOutcome.KNOWN, record_id=note.invoice_id)
    if status not in _PAYABLE:
        return NoteResult(outcome=NoteOutcome.REFUSED, why=f"Stripe's invoice is {status or 'without a status'}.")
    if not note.settles:
        return NoteResult(outcome=NoteOutcome.LATER, why="Stripe can be told once the whole invoice is paid.")
    answer = exchange.post(f"{path}/pay", {"paid_out_of_band": True}, note.idempotency_key)
    return _written(answer, lambda node: note.invoice_id if node.text("status") == "paid" else "")


def refund_write(exchange: Exchange, note: RefundNote, *, emulator: bool) -> NoteResult:
    """A credit note over money that was given back out of band; our reference stands in its metadata."""
    known = exchange.get("/v1/credit_notes", {"invoice": note.invoice_id, "limit": 100})
    for entry in understood(lambda page: page.nodes("data"), _reply(known)):
        if understood(entry.node, "metadata").values.get(NOTE_KEY) == note.reference:
            return NoteResult(outcome=NoteOutcome.KNOWN, record_id=understood(entry.identifier, "id"))
    try:
        amount = to_stripe(note.amount_minor, note.currency)
    except InvalidInput as error:
        return NoteResult(outcome=NoteOutcome.REFUSED, why=error.message)
    params: dict[str, Any] = {
        "invoice": note.invoice_id,
        "amount": amount,
        "out_of_band_amount": amount,
        "metadata": {NOTE_KEY: note.reference, "refund_id": note.refund_id},
    }
    if not emulator:
        params["memo"] = f"Refunded with {note.refunded_with} ({note.refund_id})."
    answer = exchange.post("/v1/credit_notes", params, note.idempotency_key)
    return _written(answer, lambda node: node.identifier("id"))


def _reply(answer: Answer) -> Node:
    if isinstance(answer, Problem):
        raise unavailable(answer)
    return answer.body


def _written(answer: Answer, record_id: Any) -> NoteResult:
    if not isinstance(answer, Problem):
        written = understood(record_id, answer.body)
        if not written:
            raise ProviderUncertain("Stripe did not say that it has written this down; it is looked at again later.")
        return NoteResult(outcome=NoteOutcome.WRITTEN, record_id=written)
    if answer.fault is Fault.UNKNOWN:
        raise ProviderUncertain(f"Whether Stripe has written this down is not known: it {answer.reason}.")
    if answer.fault is Fault.REFUSED_REQUEST and answer.status in (400, 404):
        return NoteResult(outcome=NoteOutcome.REFUSED, why=f"Stripe {answer.reason}.")
    raise ProviderUnavailable(f"Stripe {answer.reason}; it is told again later.", retry_after=answer.retry_after)
