"""Chargebee's invoices and transactions as its API answers with them, read as in its webhooks.

Raises RecordMalformed for what makes no sense.
"""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from providers.base import ChargeResult, DeclineFacts, InvoiceFacts, Outcome, PaymentFacts, RefundFacts
from providers.chargebee import facts
from providers.chargebee.reading import Node
from providers.wire.reading import RecordMalformed, by_node, epoch, identifier, integer, kept, text

_RECORDED = ("id", "status", "type", "gateway", "id_at_gateway", "error_code", "date")
_ALONE = Node({}, "content")


def payment_result(transaction: Mapping[str, Any]) -> ChargeResult:
    """One payment transaction as the outcome of the charge that it is."""
    if text(transaction, "type") not in ("payment", "authorization", ""):
        raise RecordMalformed("type")
    outcome = _outcome(transaction)
    told = by_node(lambda node: facts.payment(node, _ALONE), Node(transaction, "transaction"))
    return ChargeResult(
        outcome=outcome,
        provider_id=told.charge_id,
        decline=_named(told.decline) if outcome is Outcome.DECLINED else None,
        error_code="voided" if outcome is Outcome.ERRORED else "",
        token=told.method.token if told.method else "",
        card=told.method.card if told.method else None,
        gateway_reference=told.gateway_reference,
        **_told(transaction, told),
    )


def refund_result(transaction: Mapping[str, Any]) -> ChargeResult:
    """One refund transaction; `payment_id` is the payment that it gives back."""
    if text(transaction, "type") not in ("refund", ""):
        raise RecordMalformed("type")
    failed = _outcome(transaction) in (Outcome.DECLINED, Outcome.ERRORED)
    node = Node(transaction, "transaction")
    told = by_node(lambda node: facts.refund(node, _ALONE), node)
    return ChargeResult(
        outcome=Outcome.DECLINED if failed else _outcome(transaction),
        provider_id=told.id,
        payment_id=told.charge_id,
        decline=_named(by_node(facts.decline, node)) if failed else None,
        **_told(transaction, told),
    )


def _outcome(transaction: Mapping[str, Any]) -> Outcome:
    outcome = facts.OUTCOMES.get(text(transaction, "status"))
    if outcome is None:
        raise RecordMalformed("status")
    return outcome


def _told(transaction: Mapping[str, Any], told: PaymentFacts | RefundFacts) -> dict[str, Any]:
    return {
        "amount_minor": told.amount_minor,
        "currency": told.currency,
        "customer": identifier(transaction, "customer_id"),
        "reference": told.reference,
        "created_at": epoch(transaction, "date"),
        "raw": kept(transaction, *_RECORDED),
    }


def _named(decline: DeclineFacts | None) -> DeclineFacts:
    """No event with the reason follows an answer, so one without any has at least a name."""
    decline = decline or DeclineFacts()
    return replace(decline, raw_code=decline.raw_code or "payment_processing_failed")


def invoice_facts(invoice: Mapping[str, Any]) -> InvoiceFacts:
    """The biller's view."""
    return by_node(facts.invoice, Node(invoice, "invoice"))


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
