"""From Chargebee's resources to the facts of providers/base.py. Webhooks and API answers carry the same resources."""

from collections.abc import Mapping

from providers.base import (
    REFUND_STATUSES,
    CardFacts,
    CustomerFacts,
    DeclineFacts,
    DisputeFacts,
    DisputeStatus,
    InvoiceFacts,
    MethodFacts,
    Outcome,
    PaymentFacts,
    RefundFacts,
)
from providers.chargebee.reading import Node
from providers.countries import country_code

_INVOICE_STATUSES = {"voided": "void", "payment_due": "open", "not_paid": "open", "posted": "open"}
# What became of a transaction. A `timeout` has surely failed: the gateway did not take the connection. Where it broke
# off later the status is `needs_attention`, and nobody knows until a later event of the same transaction tells.
OUTCOMES: Mapping[str, Outcome] = {
    "success": Outcome.SUCCEEDED,
    "in_progress": Outcome.AWAITING,
    "needs_attention": Outcome.AWAITING,
    "failure": Outcome.DECLINED,
    "timeout": Outcome.DECLINED,
    "late_failure": Outcome.DECLINED,
    "voided": Outcome.ERRORED,
}
_UNSENT = "timeout"
_ENDED_DUNNING = frozenset({"exhausted", "stopped", "success"})
# Which scheme a direct debit belongs to is not told: it follows from the currency.
_DEBITS = {"USD": "ach", "EUR": "sepa", "GBP": "bacs", "AUD": "becs", "CAD": "acss"}
_BANK_METHODS = frozenset({"direct_debit", "ach_credit", "sepa_credit", "bank_transfer"})
_PLAN_LINES = frozenset({"plan", "plan_item_price", "plan_setup"})


def customer(node: Node) -> CustomerFacts | None:
    """The payer, where the event carries it."""
    customer_id = node.identifier("id")
    if not customer_id:
        return None
    return CustomerFacts(
        id=customer_id,
        email=node.text("email", 254),
        name=node.full_name("first_name", "last_name", "company"),
        country=country_code(node.node("billing_address").text("country", 60)),
        locale=node.text("locale", 16),
    )


def invoice(node: Node, subscription: Node | None = None) -> InvoiceFacts:
    """The biller's view: what is owed in money is what was paid and what is due, after credits and adjustments."""
    currency = node.currency("currency_code")
    paid = node.amount("amount_paid", currency) or 0
    due = node.amount("amount_due", currency)
    owed = node.required_amount("total", currency) if due is None else paid + due
    line = _plan_line(node)
    ended = node.text("dunning_status", 40) in _ENDED_DUNNING
    return InvoiceFacts(
        id=node.required_identifier("id"),
        amount_minor=owed,
        currency=currency,
        paid_minor=paid,
        number=node.text("id", 100),
        description=line.text("description"),
        subscription_id=node.identifier("subscription_id"),
        plan=line.identifier("entity_id"),
        interval=subscription.text("billing_period_unit", 40) if subscription else "",
        status=_invoice_status(node, currency, due),
        attempt_count=_tries(node),
        next_retry_at=None if ended else node.instant("next_retry_at"),
        charge_id=_newest_payment(node),
        due_at=node.instant("due_date"),
        issued_at=node.instant("date"),
        told_at=node.version(),
    )


def _invoice_status(node: Node, currency: str, due: int | None) -> str:
    status = node.text("status", 40)
    written_off = node.amount("write_off_amount", currency) or 0
    if written_off > 0 and due == 0 and status != "voided":
        return "uncollectible"
    return _INVOICE_STATUSES.get(status, status)


def _tries(node: Node) -> int | None:
    """How often it was tried: every payment that was linked to it, by dunning or before. Only the newest are listed,
    and dunning begins after the first."""
    linked = {entry.identifier("txn_id") for entry in node.nodes("linked_payments")}
    dunned = [entry.identifier("transaction_id") for entry in node.nodes("dunning_attempts")]
    known = len({*linked, *dunned} - {""})
    return max(known, len(dunned) + 1 if dunned else 0) or None


def _newest_payment(node: Node) -> str:
    """The payment that the invoice's status speaks of: of a paid one the newest that succeeded."""
    entries = node.nodes("linked_payments")
    if node.text("status") == "paid":
        entries = tuple(entry for entry in entries if entry.text("txn_status") == "success")
    dated = [(entry.integer("txn_date", maximum=2**40) or 0, entry.identifier("txn_id")) for entry in entries]
    return max(dated)[1] if dated else ""


def _plan_line(node: Node) -> Node:
    lines = node.nodes("line_items")
    chosen = [line for line in lines if line.text("entity_type") in _PLAN_LINES] or list(lines)
    return chosen[0] if chosen else Node({}, f"{node.path}.line_items[0]")


def payment(node: Node, content: Node) -> PaymentFacts:
    """A transaction of the type payment; `content` is what stands around it."""
    currency = node.currency("currency_code")
    amount = node.required_amount("amount", currency)
    outcome = OUTCOMES.get(node.text("status", 40))
    linked = node.first("linked_invoices").identifier("invoice_id")
    return PaymentFacts(
        charge_id=node.required_identifier("id"),
        payment_id=node.identifier("id_at_gateway"),
        amount_minor=amount,
        currency=currency,
        captured_minor=amount if outcome is Outcome.SUCCEEDED else None,
        invoice_id=content.node("invoice").identifier("id") or linked,
        reference=node.identifier("reference_number"),
        method=transaction_method(node, content),
        decline=decline(node) if outcome in (Outcome.DECLINED, Outcome.ERRORED) else None,
        occurred_at=node.instant("date"),
        undone=node.text("status", 40) in ("late_failure", "voided"),
        gateway_reference=node.identifier("id_at_gateway"),
    )


def decline(node: Node) -> DeclineFacts:
    """Why a transaction failed: the gateway's own words, which Chargebee passes on."""
    detail = node.node("error_detail")
    codes = (
        detail.code("decline_code"),
        node.code("error_code"),
        detail.code("error_code"),
        detail.code("error_category"),
        detail.code("error_cause_id"),  # only the name of a family
    )
    unsent = node.text("status", 40) == _UNSENT
    return DeclineFacts(
        raw_code=next(filter(None, codes), _UNSENT if unsent else ""),
        network_code=detail.text("network_error_code", 40),
        advice_code=detail.text("processor_advice_code", 40),
        provider_advice=detail.text("recommendation_code", 40),
        message=node.text("error_text") or detail.text("error_message"),
        gateway=node.text("gateway", 40).lower(),
        sent_to_network=not unsent,
    )


def refund(node: Node, content: Node) -> RefundFacts:
    """A transaction of the type refund. Which payment it gives back it tells itself, or its invoice does."""
    currency = node.currency("currency_code")
    paid = content.node("invoice")
    credited = node.first("linked_credit_notes").identifier("cn_reference_invoice_id")
    return RefundFacts(
        id=node.required_identifier("id"),
        amount_minor=node.required_amount("amount", currency),
        currency=currency,
        status=REFUND_STATUSES[OUTCOMES.get(node.text("status"), Outcome.AWAITING)],
        charge_id=node.identifier("refunded_txn_id") or node.identifier("reference_transaction_id"),
        invoice_id=paid.identifier("id") or credited,
        reference=node.identifier("reference_number"),
        reason=node.first("linked_credit_notes").text("cn_reason_code"),
        failure_reason=node.code("error_code") or node.text("error_text"),
    )


def reversal(node: Node) -> DisputeFacts:
    """A transaction of the type payment_reversal: money that came was taken back."""
    currency = node.currency("currency_code")
    return DisputeFacts(
        id=node.required_identifier("id"),
        amount_minor=node.required_amount("amount", currency),
        currency=currency,
        status=DisputeStatus.LOST,
        charge_id=node.identifier("reference_transaction_id") or node.identifier("reversal_transaction_id"),
        invoice_id=node.first("linked_invoices").identifier("invoice_id"),
        reason_code=node.text("error_code", 60),
        is_return=node.text("payment_method") in _BANK_METHODS,
    )


def chargeback(node: Node) -> DisputeFacts:
    """A credit note that was made because of a chargeback."""
    currency = node.currency("currency_code")
    return DisputeFacts(
        id=node.required_identifier("id"),
        amount_minor=node.required_amount("total", currency),
        currency=currency,
        status=DisputeStatus.OPEN,
        invoice_id=node.identifier("reference_invoice_id"),
        reason_code="chargeback",
    )


def transaction_method(node: Node, content: Node) -> MethodFacts | None:
    """The payment source that a transaction used; the card beside it is its card only if it says so."""
    token = node.identifier("payment_source_id")
    if not token:
        return None
    kind = method_kind(node.text("payment_method", 40), node.text("currency_code", 3))
    shown = content.node("card")
    details = node.packed("payment_method_details", "card")
    face = shown if shown.identifier("payment_source_id") in ("", token) else Node({}, shown.path)
    facts = card(face or details) or _masked(node)
    return MethodFacts(token=token, kind=kind, card=facts if kind == "card" else None)


def method(content: Node, *, updated: bool) -> MethodFacts | None:
    """The payment method an event is about: the source itself, its card, or the customer's primary one."""
    source, shown, payer = content.node("payment_source"), content.node("card"), content.node("customer")
    token = (
        source.identifier("id")
        or shown.identifier("payment_source_id")
        or payer.identifier("primary_payment_source_id")
    )
    if not token:
        return None
    told = source.text("type", 40) or payer.node("payment_method").text("type", 40)
    kind = "card" if shown else method_kind(told or "card", payer.text("preferred_currency_code", 3))
    return MethodFacts(
        token=token,
        kind=kind,
        card=card(source.node("card") or shown) if kind == "card" else None,
        is_default=payer.identifier("primary_payment_source_id") == token,
        updated=updated,
    )


def method_kind(told: str, currency: str) -> str:
    """`direct_debit` in EUR -> `sepa`; wallets and unheard-of methods keep their own names."""
    if told == "direct_debit":
        return _DEBITS.get(currency.upper(), told)
    return told


def card(node: Node) -> CardFacts | None:
    if not node:
        return None
    facts = CardFacts(
        network=node.text("card_type", 40).lower() or node.text("brand", 40).lower(),
        last4=node.text("last4", 4) or node.text("masked_number", 30)[-4:],
        exp_month=node.month("expiry_month"),
        exp_year=node.year("expiry_year"),
        funding=_told(node.text("funding_type", 20).lower()),
        country=country_code(node.text("issuing_country", 60)),
        bin=node.text("iin", 8).rstrip("*"),
    )
    return facts if facts != CardFacts() else None


def _masked(node: Node) -> CardFacts | None:
    last4 = node.text("masked_card_number", 30)[-4:]
    return CardFacts(last4=last4) if last4.isdigit() else None


def _told(text: str) -> str:
    return "" if text in ("not_known", "not_applicable", "unknown") else text
