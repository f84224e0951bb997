"""From Paddle's transactions, adjustments and payment methods to the facts of providers/base.py.

Amounts are whole numbers of minor units in text.
"""

from dataclasses import dataclass
from typing import ClassVar

from providers import reading
from providers.base import (
    CardFacts,
    DeclineFacts,
    DisputeFacts,
    DisputeStatus,
    InvoiceFacts,
    MethodFacts,
    PaymentFacts,
    RefundFacts,
    RefundStatus,
)

_STATUSES = {"completed": "paid", "canceled": "void"}
_REFUND_STATUSES = {
    "approved": RefundStatus.SUCCEEDED,
    "rejected": RefundStatus.FAILED,
    "reversed": RefundStatus.FAILED,
}


@dataclass(frozen=True, slots=True)
class Node(reading.Node):
    """One object of Paddle's JSON."""

    OWNER: ClassVar[str] = "Paddle"
    AS_TEXT: ClassVar[bool] = True


def invoice(node: Node) -> InvoiceFacts:
    """A transaction as what is owed. It is known by its invoice's id, or by its own until it is billed."""
    currency = node.currency("currency_code")
    totals = node.node("details").node("totals")
    owed = totals.amount("grand_total", currency)
    if owed is None:
        owed = totals.amount("total", currency)
    status = node.text("status", 40)
    balance = totals.amount("balance", currency)
    price = node.first("items").node("price")
    payment_id = node.required_identifier("id")
    return InvoiceFacts(
        id=node.identifier("invoice_id") or payment_id,
        amount_minor=owed or 0,
        currency=currency,
        paid_minor=max(0, (owed or 0) - balance) if balance is not None else 0,
        number=node.text("invoice_number", 100),
        description=price.text("description"),
        subscription_id=node.identifier("subscription_id"),
        plan=price.identifier("id"),
        interval=price.node("billing_cycle").text("interval", 40),
        status=_STATUSES.get(status, status),
        attempt_count=len(node.nodes("payments")) or None,
        payment_id=payment_id,
        charge_id=newest_payment(node).identifier("payment_attempt_id"),
        due_at=node.node("billing_details").moment("due_at"),
        issued_at=node.moment("billed_at") or node.moment("created_at"),
        amount_told=owed is not None,
        told_at=node.moment("updated_at"),
    )


def newest_payment(node: Node) -> Node:
    """The payment that a transaction's status speaks of: the captured one, else the newest, which stands first."""
    payments = node.nodes("payments")
    captured = [one for one in payments if one.text("status") == "captured"]
    chosen = captured or list(payments)
    return chosen[0] if chosen else Node({}, f"{node.path}.payments[0]")


def payment(node: Node) -> PaymentFacts | None:
    tried = newest_payment(node)
    if not tried:
        return None
    currency = node.currency("currency_code")
    amount = tried.required_amount("amount", currency)
    captured = tried.text("status") == "captured"
    payment_id = node.required_identifier("id")
    return PaymentFacts(
        charge_id=tried.identifier("payment_attempt_id"),
        payment_id=payment_id,
        amount_minor=amount,
        currency=currency,
        captured_minor=amount if captured else None,
        invoice_id=node.identifier("invoice_id") or payment_id,
        method=method_used(tried),
        decline=DeclineFacts(raw_code=tried.code("error_code"))
        if tried.text("status") in ("error", "canceled")
        else None,
        occurred_at=tried.moment("created_at"),
    )


def method_used(tried: Node) -> MethodFacts | None:
    token = tried.identifier("payment_method_id") or tried.identifier("stored_payment_method_id")
    if not token:
        return None
    details = tried.node("method_details")
    kind = details.text("type", 20)
    return MethodFacts(token=token, kind=kind, card=_card(details.node("card")))


def _card(node: Node) -> CardFacts | None:
    if not node:
        return None
    return CardFacts(
        network=node.text("type", 40).lower(),
        last4=node.text("last4", 4),
        exp_month=node.month("expiry_month"),
        exp_year=node.year("expiry_year"),
    )


def refund(node: Node) -> RefundFacts:
    currency = node.currency("currency_code")
    status = _REFUND_STATUSES.get(node.text("status"), RefundStatus.PENDING)
    return RefundFacts(
        id=node.required_identifier("id"),
        amount_minor=node.node("totals").required_amount("total", currency),
        currency=currency,
        status=status,
        payment_id=node.identifier("transaction_id"),
        reason=node.text("reason"),
        failure_reason=node.text("status") if status is RefundStatus.FAILED else "",
    )


def dispute(node: Node, *, reversed_: bool) -> DisputeFacts:
    """A chargeback and its reversal are adjustments of their own: the transaction is what they share."""
    currency = node.currency("currency_code")
    payment_id = node.required_identifier("transaction_id")
    return DisputeFacts(
        id=f"{payment_id}:chargeback",
        amount_minor=node.node("totals").required_amount("total", currency),
        currency=currency,
        status=DisputeStatus.WON if reversed_ else DisputeStatus.OPEN,
        payment_id=payment_id,
        reason_code=node.text("reason", 60),
    )
