"""From Recurly's classic XML to the facts of providers/base.py.

An invoice is known by its number, which XML, JSON and API all carry; a payment by its uuid. Payments name no currency.
"""

import re
from collections.abc import Mapping

from providers.base import (
    REFUND_STATUSES,
    CustomerFacts,
    DeclineFacts,
    InvoiceFacts,
    MethodFacts,
    Outcome,
    PaymentFacts,
    RefundFacts,
)
from providers.recurly.reading import Node
from recovery_site.common.scrubbing import FILTERED

_INVOICE_STATUSES = {
    "collected": "paid",
    "failed": "uncollectible",
    "voided": "void",
    **dict.fromkeys(("pending", "processing", "past_due"), "open"),
}
# What became of a transaction, in the words of XML and API together.
OUTCOMES: Mapping[str, Outcome] = {
    "success": Outcome.SUCCEEDED,
    "chargeback": Outcome.SUCCEEDED,  # the money came, and a dispute of its own took it back
    **dict.fromkeys(("processing", "pending", "scheduled"), Outcome.AWAITING),
    **dict.fromkeys(("declined", "failed", "error"), Outcome.DECLINED),
    "void": Outcome.ERRORED,
}
_METHODS = {"credit_card": "card", "ach": "ach", "us_bank": "ach", "echeck": "ach", "sepa": "sepa", "bacs": "bacs"}
# The words of `failure_type` in those of the API's codes.
_FAILURES = {"declined_by_the_gateway": "declined", "communication_error": "gateway_unavailable"}
_NOISE = re.compile(r"[^a-z0-9]+")


def customer(account: Node) -> CustomerFacts | None:
    code = account.number("account_code")
    if not code:
        return None
    return CustomerFacts(
        id=code,
        email=account.text("email", 254),
        name=account.full_name("first_name", "last_name", "company_name"),
    )


def invoice_number(node: Node) -> str:
    number = node.number("invoice_number")
    return f"{node.text('invoice_number_prefix', 20)}{number}" if number else ""


def invoice_status(state: str, left: int) -> str:
    """`left`: what is still owed; an invoice that was closed with nothing left was paid or credited."""
    return "paid" if state == "closed" and left <= 0 else _INVOICE_STATUSES.get(state, state)


def invoice(node: Node, subscription: Node) -> InvoiceFacts:
    """The biller's view. What is owed is the total; without a balance it is open as a whole or paid as a whole."""
    currency = node.currency()
    total = node.required_amount("total_in_cents", currency)
    state = node.text("state", 40)
    balance = node.amount("balance_in_cents", currency)
    left = balance if balance is not None else (0 if state in ("collected", "paid") else total)
    plan = subscription.node("plan")
    return InvoiceFacts(
        id=invoice_number(node) or node.required_identifier("uuid"),
        amount_minor=total,
        currency=currency,
        paid_minor=max(0, total - left),
        number=invoice_number(node),
        subscription_id=subscription.identifier("uuid") or _subscription(node),
        plan=plan.identifier("plan_code") or plan.text("name", 100),
        status=invoice_status(state, left),
        attempt_count=node.integer("dunning_events_count"),
        due_at=node.moment("due_on"),
        issued_at=node.moment("created_at") or node.moment("date"),
        told_at=node.moment("updated_at"),
    )


def _subscription(node: Node) -> str:
    """Of the list of subscriptions the first; older invoices name one."""
    ids = node.values.get("subscription_ids")
    first = ids[0] if isinstance(ids, list) and ids else None
    return first[:100] if isinstance(first, str) else node.identifier("subscription_id")


def payment(node: Node, account: Node, status: str) -> PaymentFacts:
    """A purchase. The currency is not told: it is that of its invoice."""
    amount = node.required_amount("amount_in_cents", "USD")
    outcome = OUTCOMES.get(status)
    gateway_reference = node.text("reference", 200)
    return PaymentFacts(
        charge_id=node.required_identifier("id"),
        amount_minor=amount,
        currency="",
        captured_minor=amount if outcome is Outcome.SUCCEEDED else None,
        invoice_id=invoice_number(node) or node.number("invoice_id"),
        method=method(account, node.text("payment_method", 40)),
        decline=decline(node) if outcome in (Outcome.DECLINED, Outcome.ERRORED) else None,
        occurred_at=node.moment("date"),
        undone=status == "void",
        gateway_reference="" if FILTERED in gateway_reference else gateway_reference,
    )


def decline(node: Node) -> DeclineFacts:
    """The gateway's codes where they are told, else Recurly's own kind of failure."""
    failure = _NOISE.sub("_", node.text("failure_type", 100).lower()).strip("_")
    return DeclineFacts(
        raw_code=node.code("gateway_error_codes") or _FAILURES.get(failure, failure),
        message=node.text("message"),
        gateway=node.text("gateway", 40).lower(),
    )


def refund(node: Node) -> RefundFacts:
    """A refund names its invoice and not the payment that it gives back."""
    return RefundFacts(
        id=node.required_identifier("id"),
        amount_minor=node.required_amount("amount_in_cents", "USD"),
        currency="",
        status=REFUND_STATUSES[OUTCOMES.get(node.text("status", 40).lower(), Outcome.AWAITING)],
        invoice_id=invoice_number(node) or node.number("invoice_id"),
        failure_reason=node.text("message") if node.text("status", 40).lower() != "success" else "",
    )


def method(account: Node, told: str = "", *, updated: bool = False) -> MethodFacts | None:
    """An account has one billing info that is charged: the account's code stands for it."""
    code = account.number("account_code")
    if not code:
        return None
    return MethodFacts(token=code, kind=_METHODS.get(told, told), is_default=True, updated=updated)
