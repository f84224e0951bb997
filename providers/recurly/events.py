"""What Recurly's notifications mean here: the classic XML tells facts, the JSON names only what to read."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

from providers.base import (
    INVOICE_KINDS,
    PAYMENT_KINDS,
    CustomerFacts,
    EventKind,
    Ignored,
    InboundItem,
    Meaning,
    MethodFacts,
    PaymentEvent,
    Proof,
    Thin,
)
from providers.recurly import facts
from providers.recurly.reading import Node

PROVIDER = "recurly"


@dataclass(frozen=True, slots=True)
class RecurlyEvent:
    """One notification, taken apart. XML has no time of its own: it is as old as what it is about."""

    item: InboundItem
    body: Node
    account: Node
    received_at: datetime
    trusted: bool


Handler = Callable[[RecurlyEvent], Meaning]
_NO_PAYER = "The notification names no account."


def meaning(item: InboundItem) -> Meaning:
    """The meaning of one notification. Raises InvalidInput where a field that is needed is impossible."""
    handler = _HANDLERS.get(item.event_type)
    if handler is None:
        return Ignored(
            _IGNORED.get(item.event_type, "This notification carries nothing that a payment recovery needs.")
        )
    body = Node(item.payload, "notification")
    return handler(
        RecurlyEvent(
            item=item,
            body=body,
            account=body.node("account") or body,
            received_at=item.received_at or datetime.now(UTC),
            trusted=item.proof is Proof.SIGNED,
        )
    )


def _told(event: RecurlyEvent, kind: EventKind, occurred_at: datetime | None, **known: Any) -> PaymentEvent:
    return event.item.told(PROVIDER, kind, occurred_at or event.received_at, trusted=event.trusted, **known)


# --- XML -------------------------------------------------------------------------------------------------------------


def _payment(event: RecurlyEvent, *, status: str = "") -> Meaning:
    shown = event.body.node("transaction")
    if not shown:
        return Ignored("The notification carries no transaction.")
    if shown.text("action", 40) in ("credit", "refund"):
        return _refund(event)
    if shown.text("action", 40) == "verify":
        return Ignored("A card was verified; no money was asked for.")
    told = status or shown.text("status", 40).lower()
    outcome = facts.OUTCOMES.get(told)
    if outcome is None:
        return Ignored("The transaction's status is not one that says whether money moved.")
    return _told(
        event,
        PAYMENT_KINDS[outcome],
        shown.moment("date"),
        customer=facts.customer(event.account),
        payment=facts.payment(shown, event.account, told),
    )


def _refund(event: RecurlyEvent) -> Meaning:
    shown = event.body.node("transaction")
    if not shown:
        return Ignored("The notification carries no transaction.")
    return _told(event, EventKind.REFUND_UPDATED, shown.moment("date"), refunds=(facts.refund(shown),))


def _invoice(event: RecurlyEvent) -> Meaning:
    shown = event.body.node("invoice")
    if not shown:
        return Ignored("The notification carries no invoice.")
    invoice = facts.invoice(shown, event.body.node("subscription"))
    kind = INVOICE_KINDS.get(invoice.status, EventKind.INVOICE_UPDATED)
    return _told(event, kind, invoice.told_at, customer=facts.customer(event.account), invoice=invoice)


def _billing_info(event: RecurlyEvent) -> Meaning:
    customer = facts.customer(event.account)
    method = facts.method(event.account, updated=True)
    if customer is None or method is None:
        return Ignored(_NO_PAYER)
    return _told(event, EventKind.METHOD_UPDATED, None, customer=customer, method=method)


def _subscription(event: RecurlyEvent) -> Meaning:
    subscription = event.body.node("subscription")
    ended_at = subscription.moment("expires_at") or subscription.moment("canceled_at")
    return _told(
        event,
        EventKind.SUBSCRIPTION_ENDED,
        min(ended_at, event.received_at) if ended_at else None,
        customer=facts.customer(event.account),
        subscription_id=subscription.required_identifier("uuid"),
    )


# --- JSON ------------------------------------------------------------------------------------------------------------


def _account(event: RecurlyEvent) -> CustomerFacts | None:
    code = event.body.number("account_code")
    return CustomerFacts(id=code) if code else None


def _thin(event: RecurlyEvent, **named: str) -> Meaning:
    if not any(named.values()):
        return Ignored("The notification names nothing that could be read.")
    return Thin(
        provider=PROVIDER,
        event_id=event.item.event_id,
        event_type=event.item.event_type,
        occurred_at=event.body.moment("event_time") or event.received_at,
        customer=_account(event),
        **named,
    )


def _thin_payment(event: RecurlyEvent) -> Meaning:
    return _thin(event, charge_id=event.body.identifier("uuid"), invoice_id=facts.invoice_number(event.body))


def _thin_refund(event: RecurlyEvent) -> Meaning:
    return _thin(event, refund_id=event.body.identifier("uuid"))


def _thin_invoice(event: RecurlyEvent) -> Meaning:
    return _thin(event, invoice_id=facts.invoice_number(event.body))


def _thin_billing_info(event: RecurlyEvent, *, updated: bool) -> Meaning:
    customer = _account(event)
    if customer is None:
        return Ignored(_NO_PAYER)
    method = MethodFacts(token=customer.id, kind="", is_default=True, updated=updated)
    occurred_at = event.body.moment("event_time")
    return _told(event, EventKind.METHOD_UPDATED, occurred_at, customer=customer, method=method)


def _thin_subscription(event: RecurlyEvent) -> Meaning:
    subscription = event.body.identifier("uuid") or event.body.identifier("id")
    if not subscription:
        return Ignored("The notification names no subscription.")
    return _told(
        event,
        EventKind.SUBSCRIPTION_ENDED,
        event.body.moment("event_time"),
        customer=_account(event),
        subscription_id=subscription,
    )


_XML: Mapping[str, Handler] = {
    "failed_payment_notification": partial(_payment, status="declined"),
    "successful_payment_notification": partial(_payment, status="success"),
    "processing_payment_notification": partial(_payment, status="processing"),
    "scheduled_payment_notification": partial(_payment, status="scheduled"),
    "void_payment_notification": partial(_payment, status="void"),
    "transaction_status_updated_notification": _payment,
    "successful_refund_notification": _refund,
    "billing_info_updated_notification": _billing_info,
    "canceled_subscription_notification": _subscription,
    "expired_subscription_notification": _subscription,
    **dict.fromkeys(
        (
            "new_invoice_notification",
            "processing_invoice_notification",
            "past_due_invoice_notification",
            "closed_invoice_notification",
            "updated_invoice_notification",
            "new_charge_invoice_notification",
            "processing_charge_invoice_notification",
            "past_due_charge_invoice_notification",
            "paid_charge_invoice_notification",
            "failed_charge_invoice_notification",
            "reopened_charge_invoice_notification",
            "updated_charge_invoice_notification",
            "new_dunning_event_notification",
        ),
        _invoice,
    ),
}
_JSON: Mapping[str, Handler] = {
    **dict.fromkeys(
        (
            "payment.failed",
            "payment.succeeded",
            "payment.processing",
            "payment.scheduled",
            "payment.voided",
            "payment.transaction_status_updated",
        ),
        _thin_payment,
    ),
    "payment.refunded": _thin_refund,
    **dict.fromkeys(
        (
            "charge_invoice.paid",
            "charge_invoice.past_due",
            "charge_invoice.failed",
            "charge_invoice.processing",
            "charge_invoice.closed",
            "charge_invoice.reopened",
            "charge_invoice.updated",
            "dunning_event.created",
        ),
        _thin_invoice,
    ),
    "billing_info.created": partial(_thin_billing_info, updated=False),
    "billing_info.updated": partial(_thin_billing_info, updated=True),
    "subscription.canceled": _thin_subscription,
    "subscription.expired": _thin_subscription,
}
_HANDLERS: Mapping[str, Handler] = {**_XML, **_JSON}

_CREDITS = "A credit changes its invoice; a refund of money has a notification of its own."
_INVOICES_TELL = "Its invoices and payments send notifications of their own."
_STILL_GOOD = "The card is still good."
_IGNORED: Mapping[str, str] = {
    "charge_invoice.created": "A new invoice is only owed; a failed payment has a notification of its own.",
    "credit_payment.created": _CREDITS,
    "new_credit_payment_notification": _CREDITS,
    "voided_credit_payment_notification": _CREDITS,
    "new_credit_invoice_notification": _CREDITS,
    "processing_credit_invoice_notification": _CREDITS,
    "closed_credit_invoice_notification": _CREDITS,
    "voided_credit_invoice_notification": _CREDITS,
    "billing_info_update_failed_notification": "The payment method that was known before stays.",
    "billing_info.update_failed": "The payment method that was known before stays.",
    "billing_info.deleted": "A charge without a payment method is refused by Recurly; a new one is told when it comes.",
    "subscription.renewal.cc_will_expire": _STILL_GOOD,
    "subscription_renewal.cc_will_expire": _STILL_GOOD,
    "new_subscription_notification": _INVOICES_TELL,
    "updated_subscription_notification": _INVOICES_TELL,
    "renewed_subscription_notification": _INVOICES_TELL,
    "reactivated_account_notification": _INVOICES_TELL,
    "subscription.created": _INVOICES_TELL,
    "subscription.updated": _INVOICES_TELL,
    "subscription.renewed": _INVOICES_TELL,
    "subscription.paused": "A pause makes no new invoices; those there are stay owed.",
    "subscription_paused_notification": "A pause makes no new invoices; those there are stay owed.",
    "new_account_notification": "An account without a failed payment needs nothing.",
    "account.created": "An account without a failed payment needs nothing.",
    "account.updated": "Payment methods and invoices send notifications of their own.",
}
