"""From Hyperswitch's payments and refunds to charge results. Raises RecordMalformed for what makes no sense."""

from collections.abc import Mapping
from typing import Any

from providers.base import ChargeResult, DeclineFacts, Outcome
from providers.hyperswitch import facts
from providers.hyperswitch.reading import Node
from providers.wire.reading import (
    RecordMalformed,
    amount,
    by_node,
    currency,
    identifier,
    instant,
    kept,
    required,
    text,
)

NEEDS_ACTION = "requires_customer_action"
# Statuses in which no money has moved and none will, unless somebody goes on with the payment.
_DECLINED = frozenset({"failed", "cancelled", "expired"})
_AWAITED = frozenset({"processing", "requires_capture", "requires_merchant_action"})
# Parts of an authorisation were captured; the rest lapses, and is planned as what is still due.
_PARTLY = frozenset({"partially_captured", "partially_captured_and_capturable", "cancelled_post_capture"})
_REFUNDS = {
    "succeeded": Outcome.SUCCEEDED,
    "failed": Outcome.DECLINED,
    "pending": Outcome.AWAITING,
    "review": Outcome.AWAITING,
}
# What of an answer is kept for the record: no names, addresses, client secrets.
_RECORDED = ("payment_id", "refund_id", "status", "connector", "connector_transaction_id", "error_code", "unified_code")


def payment_result(payment: Mapping[str, Any]) -> ChargeResult:
    """One payment as the outcome of the charge that it was made for."""
    status = required(payment, "status")
    shown = Node(payment, "payment")
    told: dict[str, Any] = {
        "provider_id": required(payment, "payment_id"),
        "payment_id": required(payment, "payment_id"),
        "amount_minor": amount(payment),
        "currency": currency(payment),
        "token": identifier(payment, "payment_method_id"),
        "customer": identifier(payment, "customer_id"),
        "reference": by_node(facts.reference, shown),
        "card": by_node(facts.card, shown),
        "gateway_reference": by_node(lambda node: node.identifier("connector_transaction_id"), shown),
        "created_at": instant(payment, "created"),
        "raw": kept(payment, *_RECORDED),
    }
    if status == "succeeded" or status in _PARTLY:
        received = payment.get("amount_received")
        told["amount_minor"] = told["amount_minor"] if received is None else amount(payment, "amount_received")
        return ChargeResult(outcome=Outcome.SUCCEEDED, **told)
    if status in _AWAITED:
        return ChargeResult(outcome=Outcome.AWAITING, **told)
    if status == NEEDS_ACTION:
        wanted = DeclineFacts(raw_code="authentication_required", message="The payer has to authenticate.")
        return ChargeResult(outcome=Outcome.DECLINED, decline=wanted, **told)
    if status in _DECLINED:
        return ChargeResult(outcome=Outcome.DECLINED, decline=by_node(facts.decline, shown), **told)
    raise RecordMalformed("status")


def refund_result(refund: Mapping[str, Any]) -> ChargeResult:
    """One refund; `payment_id` is the payment that it gives back."""
    outcome = _REFUNDS.get(required(refund, "status"))
    if outcome is None:
        raise RecordMalformed("status")
    failure = text(refund, "error_code") or text(refund, "error_message") or "failed"
    return ChargeResult(
        outcome=outcome,
        provider_id=required(refund, "refund_id"),
        payment_id=identifier(refund, "payment_id"),
        amount_minor=amount(refund),
        currency=currency(refund),
        reference=by_node(facts.reference, Node(refund, "refund")),
        decline=DeclineFacts(raw_code=failure[:100]) if outcome is Outcome.DECLINED else None,
        created_at=instant(refund, "created_at"),
        raw=kept(refund, *_RECORDED),
    )
