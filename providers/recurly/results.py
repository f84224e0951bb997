"""From Recurly's invoices and transactions to our values. Raises RecordMalformed for what makes no sense."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from providers.base import CardFacts, ChargeResult, DeclineFacts, InvoiceFacts, Outcome
from providers.countries import country_code
from providers.recurly.facts import OUTCOMES, invoice_status
from providers.recurly.reading import Node
from providers.wire.reading import (
    RecordMalformed,
    by_node,
    currency,
    decimal_amount,
    identifier,
    instant,
    kept,
    part,
    parts,
    required,
    text,
)

# Money that Recurly itself moved; others were only written down.
MADE_ELSEWHERE = frozenset({"external_recovery", "refunded_externally"})
_PURCHASES = frozenset({"purchase", "capture"})
_RECORDED = ("id", "uuid", "status", "type", "origin", "gateway_reference", "status_code", "gateway_response_code")


def payment_result(transaction: Mapping[str, Any]) -> ChargeResult:
    """One purchase transaction as the outcome of the charge that it is."""
    if text(transaction, "type") not in _PURCHASES:
        raise RecordMalformed("type")
    outcome = _outcome(transaction)
    return ChargeResult(
        outcome=outcome,
        decline=decline(transaction) if outcome is Outcome.DECLINED else None,
        error_code="void" if outcome is Outcome.ERRORED else "",
        card=by_node(card, Node(part(transaction, "payment_method"), "payment_method")),
        **_told(transaction),
    )


def refund_result(transaction: Mapping[str, Any]) -> ChargeResult:
    """One refund transaction; `payment_id` is the payment that it gives back."""
    if text(transaction, "type") != "refund":
        raise RecordMalformed("type")
    outcome = _outcome(transaction)
    told = {**_told(transaction), "payment_id": identifier(transaction, "original_transaction_id")}
    if outcome in (Outcome.DECLINED, Outcome.ERRORED):
        return ChargeResult(outcome=Outcome.DECLINED, decline=decline(transaction), **told)
    return ChargeResult(outcome=outcome, **told)


def _outcome(transaction: Mapping[str, Any]) -> Outcome:
    try:
        return OUTCOMES[required(transaction, "status")]
    except KeyError:
        raise RecordMalformed("status") from None


def _told(transaction: Mapping[str, Any]) -> dict[str, Any]:
    code = currency(transaction)
    return {
        # Webhooks know a transaction by its uuid; refunds name the other id of what they give back.
        "provider_id": identifier(transaction, "uuid") or required(transaction, "id"),
        "payment_id": required(transaction, "id"),
        "amount_minor": decimal_amount(transaction, "amount", code),
        "currency": code,
        "customer": identifier(part(transaction, "account"), "code"),
        "created_at": instant(transaction, "created_at"),
        "gateway_reference": identifier(transaction, "gateway_reference"),
        "raw": kept(transaction, *_RECORDED),
    }


def decline(transaction: Mapping[str, Any]) -> DeclineFacts:
    """Recurly's own code for the reason; the gateway's code follows the gateway, not the network."""
    return DeclineFacts(
        raw_code=(text(transaction, "status_code") or "declined")[:100],
        message=(text(transaction, "status_message") or text(transaction, "gateway_message"))[:500],
        gateway=text(part(transaction, "payment_gateway"), "type").lower()[:40],
    )


def refused(error: Mapping[str, Any]) -> DeclineFacts:
    """Why a collection was refused, from the error body's `transaction_error`."""
    return DeclineFacts(
        raw_code=(text(error, "code") or "declined")[:100],
        network_code=text(error, "decline_code")[:40],
        message=(text(error, "merchant_advice") or text(error, "message"))[:500],
    )


def card(method: Node) -> CardFacts | None:
    if not method.text("last_four"):
        return None
    return CardFacts(
        network=method.text("card_type", 40).lower(),
        last4=method.text("last_four", 4),
        exp_month=method.month("exp_month"),
        exp_year=method.year("exp_year"),
        funding=method.text("funding_source", 20).lower(),
        country=country_code(method.text("cc_bin_country", 60)),
        bin=method.text("first_six", 8),
    )


def invoice_facts(invoice: Mapping[str, Any], named: str) -> InvoiceFacts:
    """The biller's view of the invoice that is known here as `named`."""
    code = currency(invoice)
    balance = decimal_amount(invoice, "balance", code)
    paid = decimal_amount(invoice, "paid", code) if invoice.get("paid") is not None else 0
    return InvoiceFacts(
        id=named,
        amount_minor=balance + paid,
        currency=code,
        paid_minor=paid,
        number=text(invoice, "number")[:100],
        subscription_id=next((str(one) for one in invoice.get("subscription_ids") or [] if isinstance(one, str)), ""),
        status=invoice_status(text(invoice, "state"), balance),
        attempt_count=len(payments_of(invoice)) or None,
        due_at=instant(invoice, "due_at"),
        issued_at=instant(invoice, "created_at"),
    )


def payments_of(invoice: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The invoice's own payments, those that were only written down left out."""
    return [
        one
        for one in parts(invoice, "transactions")
        if text(one, "type") in _PURCHASES and text(one, "origin") not in MADE_ELSEWHERE
    ]


def newest_payment(
    invoice: Mapping[str, Any], *, since: datetime, amount_minor: int, currency_code: str
) -> Mapping[str, Any] | None:
    """The newest payment of this amount that was made from then on."""
    made = [
        payment
        for payment in payments_of(invoice)
        if (moment := instant(payment, "created_at")) is not None
        and moment >= since
        and currency(payment) == currency_code
        and decimal_amount(payment, "amount", currency_code) == amount_minor
    ]
    return max(made, key=lambda payment: instant(payment, "created_at") or since, default=None)
