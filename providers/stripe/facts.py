"""Invoices, payments, refunds and disputes: from Stripe's objects to the facts of providers/base.py.

Webhooks and API answers carry the same objects, so both go through here.
"""

from dataclasses import replace

from providers.base import (
    DeclineFacts,
    DisputeFacts,
    DisputeStatus,
    InvoiceFacts,
    MethodFacts,
    PaymentFacts,
    RefundFacts,
    RefundStatus,
)
from providers.stripe.methods import charge_method, invoice_method, method_kind, named_method
from providers.stripe.reading import Node
from recovery_site.common.errors import InvalidInput

# The metadata key under which our own charges and refunds carry the attempt's public id.
REFERENCE_KEY = "attempt"

# `outcome.reason` of a charge that Stripe itself blocked, in the words of its decline codes.
_BLOCKED = {
    "highest_risk_level": "fraudulent",
    "elevated_risk_level": "fraudulent",
    "rule": "generic_decline",
}

_REFUND_STATUSES = {
    "succeeded": RefundStatus.SUCCEEDED,
    "failed": RefundStatus.FAILED,
    "canceled": RefundStatus.FAILED,
}
_DISPUTES_CLOSED = {
    "won": DisputeStatus.WON,
    "warning_closed": DisputeStatus.WON,
    "prevented": DisputeStatus.WON,
    "charge_refunded": DisputeStatus.WON,
    "lost": DisputeStatus.LOST,
}
# Dispute reasons that only bank debits have: the bank took the money back after Stripe had reported success.
_RETURN_REASONS = frozenset(
    {
        "bank_cannot_process",
        "check_returned",
        "customer_initiated",
        "debit_not_authorized",
        "incorrect_account_details",
        "insufficient_funds",
    }
)
_BANK_KINDS = frozenset({"ach", "sepa", "bacs", "becs", "nz_becs", "acss"})


def reference(node: Node) -> str:
    return node.node("metadata").identifier(REFERENCE_KEY)


def charge_decline(charge: Node) -> DeclineFacts:
    """Why a charge failed. For cards `failure_code` is an umbrella; the issuer's reason is in the outcome."""
    outcome = charge.node("outcome")
    code = charge.code("failure_code")
    if code in ("", "card_declined"):
        reason = outcome.code("reason")
        blocked = outcome.text("type") == "blocked"
        code = (_BLOCKED.get(reason, code or reason) if blocked else reason) or code
    return DeclineFacts(
        raw_code=code,
        network_code=outcome.text("network_decline_code", 40),
        advice_code=outcome.text("network_advice_code", 40),
        provider_advice=outcome.text("advice_code", 40),
        message=charge.text("failure_message"),
        sent_to_network=_sent(outcome),
    )


def _sent(outcome: Node) -> bool:
    """Of a charge that Stripe blocked, older versions tell no network status."""
    status = outcome.text("network_status", 40)
    return status != "not_sent_to_network" if status else outcome.text("type", 40) != "blocked"


def error_decline(error: Node, charge: Node | None = None) -> DeclineFacts:
    """A `last_payment_error` or the error body of a refused charge; they have the same keys.

    `charge`: the refused charge where it is told, which knows whether it went to the network and what that said.
    """
    outcome = (charge or Node({}, error.path)).node("outcome")
    return DeclineFacts(
        raw_code=error.code("decline_code") or error.code("code"),
        network_code=error.text("network_decline_code", 40) or outcome.text("network_decline_code", 40),
        advice_code=error.text("network_advice_code", 40) or outcome.text("network_advice_code", 40),
        provider_advice=error.text("advice_code", 40) or outcome.text("advice_code", 40),
        message=error.text("message"),
        sent_to_network=_sent(outcome),
    )


def charge_payment(charge: Node, *, names_invoice: bool, failed: bool, settled: bool) -> PaymentFacts:
    """`settled`: the money has moved; only then is what was captured a fact."""
    currency = charge.currency()
    return PaymentFacts(
        charge_id=charge.required_identifier("id"),
        payment_id=charge.identifier("payment_intent"),
        amount_minor=charge.required_amount("amount", currency),
        currency=currency,
        captured_minor=charge.amount("amount_captured", currency) if settled else None,
        invoice_id=charge.identifier("invoice"),
        reference=reference(charge),
        method=charge_method(charge),
        decline=charge_decline(charge) if failed else None,
        occurred_at=charge.instant("created"),
        names_invoice=names_invoice,
        network_reference=network_reference(charge),
    )


def network_reference(charge: Node) -> str:
    """The card network's own id of a charge."""
    return charge.node("payment_method_details").node("card").text("network_transaction_id", 100)


def intent_charge(intent: Node) -> Node:
    """The newest charge of a payment intent, where it stands inside (old API versions, or expanded)."""
    return intent.node("latest_charge") or intent.node("charges").first("data")


def intent_charge_id(intent: Node) -> str:
    return (
        intent.identifier("latest_charge")
        or intent.node("last_payment_error").identifier("charge")
        or intent_charge(intent).identifier("id")
    )


def intent_decline(intent: Node) -> DeclineFacts:
    inner = intent_charge(intent)
    error = intent.node("last_payment_error")
    if not error:
        return charge_decline(inner)
    return error_decline(error, inner)


def intent_method(intent: Node) -> MethodFacts | None:
    """The method used last: the failure's if there was one, as a failure clears the intent's own."""
    types = intent.values.get("payment_method_types")
    error = intent.node("last_payment_error")
    return (
        named_method(error, "payment_method", types)
        or named_method(error, "source", types)
        or charge_method(intent_charge(intent))
        or named_method(intent, "payment_method", types)
        or named_method(intent, "source", types)
    )


def intent_payment(intent: Node, *, names_invoice: bool, failed: bool, settled: bool) -> PaymentFacts:
    """`settled`: the money has moved; only then is what was received a fact."""
    currency = intent.currency()
    return PaymentFacts(
        charge_id=intent_charge_id(intent),
        payment_id=intent.required_identifier("id"),
        amount_minor=intent.required_amount("amount", currency),
        currency=currency,
        captured_minor=intent.amount("amount_received", currency) if settled else None,
        invoice_id=intent.identifier("invoice"),
        reference=reference(intent),
        method=intent_method(intent),
        decline=intent_decline(intent) if failed else None,
        occurred_at=intent_charge(intent).instant("created"),
        names_invoice=names_invoice,
        network_reference=network_reference(intent_charge(intent)),
    )


def invoice(node: Node) -> InvoiceFacts:
    """The biller's view. The amount owed is `amount_due`: the total after credit notes and balance."""
    currency = node.currency()
    due = node.amount("amount_due", currency)
    amount = node.required_amount("total", currency) if due is None else due
    line = _subscription_line(node)
    price = line.node("price") or line.node("plan")
    payment_id, charge_id = _invoice_payment(node)
    method = invoice_method(node)
    return InvoiceFacts(
        id=node.required_identifier("id"),
        amount_minor=amount,
        currency=currency,
        paid_minor=_paid(node, amount, currency),
        number=node.text("number", 100),
        description=node.text("description") or line.text("description"),
        subscription_id=subscription_id(node),
        plan=price.identifier("id") or line.node("pricing").node("price_details").identifier("price"),
        interval=price.node("recurring").text("interval", 40) or line.node("plan").text("interval", 40),
        status=node.text("status", 40) or ("paid" if node.flag("paid") else ""),
        attempt_count=node.integer("attempt_count"),
        next_retry_at=node.instant("next_payment_attempt"),
        payment_id=payment_id,
        charge_id=charge_id,
        token=method.token if method else "",
        due_at=node.instant("due_date"),
        issued_at=node.node("status_transitions").instant("finalized_at") or node.instant("created"),
    )


def invoice_intent(node: Node) -> Node:
    """The payment intent of an invoice where it is expanded, else an empty object."""
    return node.node("payment_intent") or _default_payment(node).node("payment_intent")


def invoice_failure(node: Node) -> PaymentFacts | None:
    """The payment that failed for an invoice where it stands inside (expanded): then the reason is known at once."""
    intent = invoice_intent(node)
    charge = node.node("charge") or _default_payment(node).node("charge") or intent_charge(intent)
    stage = {"names_invoice": True, "failed": True, "settled": False}
    if intent.has("currency") and intent.node("last_payment_error"):
        payment = intent_payment(intent, **stage)
    elif charge.has("currency") and charge.text("status", 40) == "failed":
        payment = charge_payment(charge, **stage)
    else:
        return None
    return replace(payment, invoice_id=node.required_identifier("id"))


def subscription_id(node: Node) -> str:
    """From basil on it moved from the invoice's own key into `parent`."""
    line = _subscription_line(node)
    return (
        node.identifier("subscription")
        or node.node("parent").node("subscription_details").identifier("subscription")
        or line.identifier("subscription")
        or line.node("parent").node("subscription_item_details").identifier("subscription")
    )


def refund(node: Node, *, failed: bool = False) -> RefundFacts:
    """`requires_action`, a missing and an unheard-of status all mean: not done yet. It has `failed` for sure if the
    event says so, or if the money has come back to the balance."""
    currency = node.currency()
    failed = failed or bool(node.identifier("failure_balance_transaction"))
    status = _REFUND_STATUSES.get(node.text("status"), RefundStatus.PENDING)
    return RefundFacts(
        id=node.required_identifier("id"),
        amount_minor=node.required_amount("amount", currency),
        currency=currency,
        status=RefundStatus.FAILED if failed else status,
        charge_id=node.identifier("charge"),
        payment_id=node.identifier("payment_intent"),
        reference=reference(node),
        reason=node.text("reason"),
        failure_reason=node.text("failure_reason"),
    )


def charge_refunds(charge: Node, amount_refunded_before: int) -> tuple[RefundFacts, ...]:
    """The refunds of a refunded charge.

    API versions from 2022-11-15 on send no refund objects here, only the charge's new total. What this event
    added is then told as one derived refund, whose id is made from charge and total so that a repetition is
    the same refund.
    """
    listed = charge.nodes("refunds")
    if listed:
        return tuple(refund(node) for node in listed)
    currency = charge.currency()
    total = charge.required_amount("amount_refunded", currency)
    if total <= amount_refunded_before:
        return ()
    return (
        RefundFacts(
            id=f"{charge.required_identifier('id')}:{total}",
            amount_minor=total - amount_refunded_before,
            currency=currency,
            status=RefundStatus.SUCCEEDED,
            charge_id=charge.identifier("id"),
            payment_id=charge.identifier("payment_intent"),
            derived=True,
        ),
    )


def dispute(node: Node) -> DisputeFacts:
    """A card dispute, or a bank return, which is final at once. Statuses not known here are OPEN.

    Disputes of very old API versions have no id; they are one per charge.
    """
    currency = node.currency()
    details = node.node("payment_method_details")
    charged = node.node("charge").node("payment_method_details")
    kind = method_kind(details.code("type") or charged.code("type"))
    reason = node.text("reason", 60)
    is_return = kind in _BANK_KINDS or (kind != "card" and reason in _RETURN_REASONS)
    status = _DISPUTES_CLOSED.get(node.text("status"), DisputeStatus.LOST if is_return else DisputeStatus.OPEN)
    charge_id = node.identifier("charge")
    dispute_id = node.identifier("id") or (f"{charge_id}:dispute" if charge_id else "")
    if not dispute_id:
        raise InvalidInput("Stripe's dispute names neither itself nor its charge, so it belongs to no payment.")
    return DisputeFacts(
        id=dispute_id,
        amount_minor=node.required_amount("amount", currency),
        currency=currency,
        status=status,
        charge_id=charge_id,
        payment_id=node.identifier("payment_intent"),
        reason_code=node.text("network_reason_code", 60)
        or details.node("card").text("network_reason_code", 60)
        or reason,
        is_return=is_return,
        respond_by=node.node("evidence_details").instant("due_by"),
    )


def _paid(node: Node, amount: int, currency: str) -> int:
    """What Stripe has booked; an invoice marked as paid outside Stripe has only nothing remaining."""
    paid = node.amount("amount_paid", currency) or 0
    remaining = node.amount("amount_remaining", currency)
    return paid if remaining is None else max(paid, amount - remaining)


def _subscription_line(node: Node) -> Node:
    """The line that names the plan: the first of a subscription, else the first of all."""
    lines = node.nodes("lines")
    for line in lines:
        if line.text("type") == "subscription" or line.node("parent").text("type") == "subscription_item_details":
            return line
    return lines[0] if lines else Node({}, f"{node.path}.lines[0]")


def _default_payment(node: Node) -> Node:
    """The default one of an invoice's payments (basil on, where expanded), else the first."""
    entries = node.nodes("payments")
    if not entries:
        return Node({}, f"{node.path}.payments[0]")
    return next((entry for entry in entries if entry.flag("is_default")), entries[0]).node("payment")


def _invoice_payment(node: Node) -> tuple[str, str]:
    """(payment intent, charge): an invoice's own keys before basil, the default entry of `payments` after."""
    payment = _default_payment(node)
    inner = invoice_intent(node)
    return (
        node.identifier("payment_intent") or payment.identifier("payment_intent"),
        node.identifier("charge") or payment.identifier("charge") or intent_charge_id(inner),
    )
