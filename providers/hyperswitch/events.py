"""What Hyperswitch's events mean here: payments with their tries, refunds, disputes, mandates."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from functools import partial

from providers.base import (
    CustomerFacts,
    DeclineFacts,
    DisputeFacts,
    DisputeStatus,
    EventKind,
    Ignored,
    InboundItem,
    MethodFacts,
    PaymentEvent,
    PaymentFacts,
    RefundFacts,
    RefundStatus,
)
from providers.countries import country_code
from providers.hyperswitch import facts
from providers.hyperswitch.reading import Node

PROVIDER = "hyperswitch"
# The type under which an earlier try of a payment is stored beside the payment's own event.
EARLIER_TRY = "payment_failed.attempt"
Meaning = PaymentEvent | Ignored
_DISPUTES = {
    "dispute_won": DisputeStatus.WON,
    "dispute_cancelled": DisputeStatus.WON,
    "dispute_lost": DisputeStatus.LOST,
    "dispute_accepted": DisputeStatus.LOST,
    "dispute_expired": DisputeStatus.LOST,
}
_REFUND_FAILURES = ("error_code", "issuer_error_code", "unified_code", "error_message")
_BANKS = {"ach": "ach", "sepa": "sepa", "bacs": "bacs", "becs": "becs"}


def meaning(item: InboundItem) -> Meaning:
    """The meaning of one event body. Raises InvalidInput where a field that is needed is impossible."""
    handler = _HANDLERS.get(item.event_type)
    if handler is None:
        return Ignored(_IGNORED.get(item.event_type, "This event type carries nothing that a payment recovery needs."))
    envelope = Node(item.payload, "event")
    return handler(item, envelope, Node(envelope.node("content").node("object").values, "object"))


def _at(envelope: Node, shown: Node) -> datetime:
    """When this state came to be: events are ordered by the object's own time."""
    return shown.moment("updated") or shown.moment("updated_at") or envelope.required_moment("timestamp")


def _payer(shown: Node) -> CustomerFacts | None:
    inner = shown.node("customer")
    customer = shown.identifier("customer_id") or inner.identifier("id")
    if not customer:
        return None
    address = shown.node("billing").node("address")
    return CustomerFacts(
        id=customer,
        email=inner.text("email", 254) or shown.text("email", 254),
        name=inner.text("name", 200) or shown.text("name", 200),
        country=country_code(address.text("country", 60)),
    )


def _payment(kind: EventKind, item: InboundItem, envelope: Node, shown: Node) -> Meaning:
    currency = shown.currency()
    payment_id = shown.required_identifier("payment_id")
    settled = kind is EventKind.PAYMENT_SUCCEEDED
    payment = PaymentFacts(
        charge_id=_try_id(shown, payment_id),
        payment_id=payment_id,
        amount_minor=_amount(shown, currency),
        currency=currency,
        captured_minor=shown.amount("amount_received", currency) if settled else None,
        invoice_id=_invoice_id(shown),
        reference=facts.reference(shown),
        method=_method(shown),
        decline=facts.decline(shown) if kind is EventKind.PAYMENT_FAILED else None,
        occurred_at=shown.first("attempts").moment("created_at") or shown.moment("created"),
        gateway_reference=shown.identifier("connector_transaction_id"),
    )
    return item.told(PROVIDER, kind, _at(envelope, shown), customer=_payer(shown), payment=payment)


def _amount(shown: Node, currency: str) -> int:
    amount = shown.amount("amount", currency)
    return shown.required_amount("net_amount", currency) if amount is None else amount


def _earlier_try(item: InboundItem, envelope: Node, shown: Node) -> Meaning:
    """A try that failed before Hyperswitch went on by itself; networks count it like any other."""
    tried = envelope.node("attempt")
    currency = shown.currency()
    payment = PaymentFacts(
        charge_id=tried.required_identifier("attempt_id"),
        payment_id=shown.required_identifier("payment_id"),
        amount_minor=tried.amount("amount", currency) or _amount(shown, currency),
        currency=currency,
        invoice_id=_invoice_id(shown),
        method=_method(shown),
        decline=DeclineFacts(
            raw_code=tried.code("error_code") or tried.code("unified_code"),
            message=tried.text("error_message"),
            gateway=tried.text("connector", 40).lower(),
        ),
        occurred_at=tried.moment("created_at"),
        gateway_reference=tried.identifier("connector_transaction_id"),
    )
    occurred_at = tried.moment("modified_at") or tried.moment("created_at") or _at(envelope, shown)
    return item.told(PROVIDER, EventKind.PAYMENT_FAILED, occurred_at, customer=_payer(shown), payment=payment)


def _try_id(shown: Node, payment_id: str) -> str:
    """Each try has an id made of the payment's and its number; refunds and disputes name it so."""
    named = shown.first("attempts").identifier("attempt_id")
    number = shown.integer("attempt_count")
    return named or (f"{payment_id}_{number}" if number else payment_id)


def _invoice_id(shown: Node) -> str:
    metadata = shown.node("metadata")
    named = shown.identifier("merchant_order_reference_id")
    return named or metadata.identifier("invoice_id") or metadata.identifier("invoice")


def _method(shown: Node) -> MethodFacts | None:
    token = (
        shown.identifier("payment_method_id")
        or shown.identifier("mandate_id")
        or shown.identifier("connector_mandate_id")
    )
    if not token:
        return None
    kind = shown.text("payment_method", 20)
    if kind == "bank_debit":
        kind = _BANKS.get(shown.text("payment_method_type", 20), kind)
    return MethodFacts(token=token, kind=kind, card=facts.card(shown))


def _action_required(item: InboundItem, envelope: Node, shown: Node) -> Meaning:
    if shown.flag("off_session") is not True:
        return Ignored("The payer is being asked to authenticate, as any payment at a checkout may.")
    event = _payment(EventKind.PAYMENT_FAILED, item, envelope, shown)
    assert isinstance(event, PaymentEvent)
    assert event.payment is not None
    wanted = DeclineFacts(raw_code="authentication_required", gateway=shown.text("connector", 40).lower())
    return replace(event, payment=replace(event.payment, decline=wanted))


def _refund(status: RefundStatus, item: InboundItem, envelope: Node, shown: Node) -> Meaning:
    currency = shown.currency()
    refund = RefundFacts(
        id=shown.required_identifier("refund_id"),
        amount_minor=shown.required_amount("amount", currency),
        currency=currency,
        status=status,
        payment_id=shown.identifier("payment_id"),
        reference=facts.reference(shown),
        reason=shown.text("reason"),
        failure_reason=next(filter(None, map(shown.text, _REFUND_FAILURES)), ""),
    )
    return item.told(PROVIDER, EventKind.REFUND_UPDATED, _at(envelope, shown), refunds=(refund,))


def _dispute(item: InboundItem, envelope: Node, shown: Node) -> Meaning:
    currency = shown.currency()
    dispute = DisputeFacts(
        id=shown.required_identifier("dispute_id"),
        amount_minor=shown.required_amount("amount", currency),
        currency=currency,
        status=_DISPUTES.get(item.event_type, DisputeStatus.OPEN),
        charge_id=shown.identifier("attempt_id"),
        payment_id=shown.identifier("payment_id"),
        reason_code=shown.text("connector_reason_code", 60) or shown.text("connector_reason", 60),
        respond_by=shown.moment("challenge_required_by"),
    )
    return item.told(PROVIDER, EventKind.DISPUTE_UPDATED, envelope.required_moment("timestamp"), dispute=dispute)


def _mandate_revoked(item: InboundItem, envelope: Node, shown: Node) -> Meaning:
    token = shown.identifier("payment_method_id") or shown.identifier("mandate_id")
    if not token:
        return Ignored("The event names no mandate.")
    method = MethodFacts(token=token, kind=shown.text("payment_method", 20))
    return item.told(
        PROVIDER, EventKind.METHOD_REMOVED, envelope.required_moment("timestamp"), customer=_payer(shown), method=method
    )


_HANDLERS: Mapping[str, Callable[[InboundItem, Node, Node], Meaning]] = {
    "payment_failed": partial(_payment, EventKind.PAYMENT_FAILED),
    "payment_succeeded": partial(_payment, EventKind.PAYMENT_SUCCEEDED),
    "payment_captured": partial(_payment, EventKind.PAYMENT_SUCCEEDED),
    "payment_processing": partial(_payment, EventKind.PAYMENT_PENDING),
    "payment_authorized": partial(_payment, EventKind.PAYMENT_PENDING),
    EARLIER_TRY: _earlier_try,
    "action_required": _action_required,
    "refund_succeeded": partial(_refund, RefundStatus.SUCCEEDED),
    "refund_failed": partial(_refund, RefundStatus.FAILED),
    **dict.fromkeys(("dispute_opened", "dispute_challenged", *_DISPUTES), _dispute),
    "mandate_revoked": _mandate_revoked,
}
_IGNORED: Mapping[str, str] = {
    "payment_cancelled": "Cancelled on purpose: no money moves.",
    "payment_expired": "Nobody went on with the payment; none was tried.",
    "mandate_active": "A payment with the mandate tells of it.",
    "recovery_retry_scheduled": "Hyperswitch plans a retry of its own; the payment tells how it ends.",
    "recovery_limits_exhausted": "Hyperswitch has given up; the last payment told why.",
}
