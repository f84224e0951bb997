"""From Chargebee's invoices and transactions to our values. Raises RecordMalformed for what makes no sense."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from providers.base import CardFacts, ChargeResult, DeclineFacts, InvoiceFacts, Outcome
from providers.wire.reading import (
    RecordMalformed,
    amount,
    currency,
    epoch,
    identifier,
    integer,
    kept,
    part,
    parts,
    required,
    text,
)

_OUTCOMES = {
    "success": Outcome.SUCCEEDED,
    "in_progress": Outcome.AWAITING,
    "needs_attention": Outcome.AWAITING,
    "failure": Outcome.DECLINED,
    "timeout": Outcome.DECLINED,
    "late_failure": Outcome.DECLINED,
    "voided": Outcome.ERRORED,
}
_RECORDED = ("id", "status", "type", "gateway", "id_at_gateway", "error_code", "date")


def payment_result(transaction: Mapping[str, Any]) -> ChargeResult:
    """One payment transaction as the outcome of the charge that it is."""
    if text(transaction, "type") not in ("payment", "authorization", ""):
        raise RecordMalformed("type")
    outcome = _outcome(transaction)
    return ChargeResult(
        outcome=outcome,
        decline=decline(transaction) if outcome is Outcome.DECLINED else None,
        error_code="voided" if outcome is Outcome.ERRORED else "",
        token=identifier(transaction, "payment_source_id"),
        card=card(transaction),
        **_told(transaction),
    )


def refund_result(transaction: Mapping[str, Any]) -> ChargeResult:
    """One refund transaction; `payment_id` is the payment that it gives back."""
    if text(transaction, "type") not in ("refund", ""):
        raise RecordMalformed("type")
    outcome = _outcome(transaction)
    failed = outcome in (Outcome.DECLINED, Outcome.ERRORED)
    told = {**_told(transaction), "payment_id": identifier(transaction, "refunded_txn_id")}
    if not failed:
        return ChargeResult(outcome=outcome, **told)
    return ChargeResult(outcome=Outcome.DECLINED, decline=decline(transaction), **told)


def _outcome(transaction: Mapping[str, Any]) -> Outcome:
    try:
        return _OUTCOMES[required(transaction, "status")]
    except KeyError:
        raise RecordMalformed("status") from None


def _told(transaction: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "provider_id": required(transaction, "id"),
        "amount_minor": amount(transaction),
        "currency": currency(transaction, "currency_code"),
        "customer": identifier(transaction, "customer_id"),
        "reference": identifier(transaction, "reference_number"),
        "created_at": epoch(transaction, "date"),
        "raw": kept(transaction, *_RECORDED),
    }


def decline(transaction: Mapping[str, Any]) -> DeclineFacts:
    """The gateway's reason. Chargebee's own `error_cause_id` is only the name of a family."""
    detail = part(transaction, "error_detail")
    code = text(detail, "decline_code") or text(detail, "error_code") or text(transaction, "error_code")
    return DeclineFacts(
        raw_code=(code or text(detail, "error_cause_id") or "payment_processing_failed")[:100],
        network_code=text(detail, "network_error_code")[:40],
        advice_code=text(detail, "processor_advice_code")[:40],
        provider_advice=text(detail, "recommendation_code")[:40],
        message=text(transaction, "error_text")[:500],
        gateway=text(transaction, "gateway")[:40],
    )


def card(transaction: Mapping[str, Any]) -> CardFacts | None:
    last4 = text(transaction, "last4") or text(transaction, "masked_card_number")[-4:]
    return CardFacts(last4=last4[:4]) if last4.isascii() and last4.isdigit() else None


def invoice_facts(invoice: Mapping[str, Any]) -> InvoiceFacts:
    """The biller's view. The amount owed is what was billed after credits, of which `amount_due` is left."""
    code = currency(invoice, "currency_code")
    due, paid = amount(invoice, "amount_due"), integer(invoice, "amount_paid") or 0
    status = text(invoice, "status")
    dunning = parts(invoice, "dunning_attempts")
    return InvoiceFacts(
        id=required(invoice, "id"),
        amount_minor=due + max(0, paid),
        currency=code,
        paid_minor=max(0, paid),
        number=text(invoice, "id")[:100],
        subscription_id=identifier(invoice, "subscription_id"),
        status={"payment_due": "open", "not_paid": "open", "posted": "open", "voided": "void"}.get(status, status),
        attempt_count=len(dunning) + 1 if dunning else len(parts(invoice, "linked_payments")) or None,
        next_retry_at=epoch(invoice, "next_retry_at") if text(invoice, "dunning_status") == "in_progress" else None,
        due_at=epoch(invoice, "due_date"),
        issued_at=epoch(invoice, "date"),
    )


def newest_payment(
    payments: list[Mapping[str, Any]], *, since: datetime, amount_minor: int, token: str
) -> Mapping[str, Any] | None:
    """The newest payment of this amount and method that was made from then on."""
    made = [
        payment
        for payment in payments
        if (moment := epoch(payment, "date")) is not None
        and moment >= since
        and integer(payment, "amount") == amount_minor
        and identifier(payment, "payment_source_id") in ("", token)
    ]
    return max(made, key=lambda payment: epoch(payment, "date") or since, default=None)
