"""What each Stripe event type means here: an event of the house, or a reason to leave it alone."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Any

from providers.base import DeclineFacts, EventKind, Ignored, MethodFacts, PaymentEvent, PaymentFacts
from providers.stripe import facts, methods
from providers.stripe.reading import Node

PROVIDER = "stripe"
# From this API version on neither payment intents nor charges name their invoice (the basil release).
BASIL = "2025-03-31"


@dataclass(frozen=True, slots=True)
class StripeEvent:
    """One event, taken apart; `previous` holds the old values of what changed, `request` what caused it."""

    id: str
    type: str
    occurred_at: datetime
    api_version: str
    object: Node
    previous: Node
    request: Node
    account: str

    @property
    def names_invoice(self) -> bool:
        """Whether the object could name its invoice: it has the key, or a version that always had it."""
        return self.object.has("invoice") or (bool(self.api_version) and self.api_version[:10] < BASIL)


Meaning = PaymentEvent | Ignored
Handler = Callable[[StripeEvent], Meaning]


def meaning(event_id: str, event_type: str, payload: Mapping[str, Any]) -> Meaning:
    """The meaning of one event body. Raises InvalidInput where a field that is needed is impossible."""
    if payload.get("object") == "v2.core.event":
        return Ignored("A thin event names only an id; the classic event of the same change carries the facts.")
    handler = _HANDLERS.get(event_type)
    if handler is None:
        reason = _IGNORED.get(event_type, "This event type carries nothing that a payment recovery needs.")
        return Ignored(reason)
    envelope = Node(payload, "event")
    data = envelope.node("data")
    what = event_type.split(".")[0]
    return handler(
        StripeEvent(
            id=event_id,
            type=event_type,
            occurred_at=envelope.required_instant("created"),
            api_version=envelope.text("api_version", 40),
            object=Node(data.node("object").values, what),
            previous=Node(data.node("previous_attributes").values, f"{what}.previous_attributes"),
            request=envelope.node("request"),
            account=envelope.identifier("account"),
        )
    )


def _told(event: StripeEvent, kind: EventKind, **known: Any) -> PaymentEvent:
    return PaymentEvent(
        kind=kind,
        provider=PROVIDER,
        event_id=event.id,
        event_type=event.type,
        occurred_at=event.occurred_at,
        # Stripe takes keys of up to 255 characters.
        idempotency_key=event.request.text("idempotency_key", 255),
        account=event.account,
        **known,
    )


def _stage(kind: EventKind) -> Mapping[str, bool]:
    return {"failed": kind is EventKind.PAYMENT_FAILED, "settled": kind is EventKind.PAYMENT_SUCCEEDED}


def _invoice(kind: EventKind, event: StripeEvent) -> Meaning:
    if event.object.text("status") == "draft":
        return Ignored("A draft invoice is not owed yet; invoice.finalized will tell.")
    return _told(
        event,
        kind,
        customer=methods.invoice_customer(event.object),
        invoice=facts.invoice(event.object),
        payment=facts.invoice_failure(event.object) if kind is EventKind.INVOICE_FAILED else None,
        method=methods.described(methods.invoice_method(event.object)),
    )


def _action_required(event: StripeEvent) -> Meaning:
    """The one invoice failure whose type is its reason: the payer must authenticate; nothing to look up."""
    owed = facts.invoice(event.object)
    payment = PaymentFacts(
        charge_id=owed.charge_id,
        payment_id=owed.payment_id,
        amount_minor=max(0, owed.amount_minor - owed.paid_minor),
        currency=owed.currency,
        invoice_id=owed.id,
        method=methods.invoice_method(event.object),
        decline=DeclineFacts(raw_code="authentication_required"),
        occurred_at=event.occurred_at,
    )
    customer = methods.invoice_customer(event.object)
    return _told(event, EventKind.INVOICE_FAILED, customer=customer, invoice=owed, payment=payment)


def _linked(event: StripeEvent) -> Meaning:
    """From basil on the only webhook that says which invoice a payment belongs to."""
    payment = event.object.node("payment")
    payment_id = payment.identifier("payment_intent")
    charge_id = payment.identifier("charge")
    invoice_id = event.object.identifier("invoice")
    if not invoice_id or not (payment_id or charge_id):
        return Ignored("The invoice was paid outside Stripe; invoice.paid tells the amount.")
    currency = event.object.currency()
    amount = event.object.amount("amount_requested", currency)
    linked = PaymentFacts(
        charge_id=charge_id,
        payment_id=payment_id,
        amount_minor=event.object.required_amount("amount_paid", currency) if amount is None else amount,
        currency=currency,
        invoice_id=invoice_id,
    )
    return _told(event, EventKind.PAYMENT_LINKED, payment=linked)


def _intent(kind: EventKind, event: StripeEvent) -> Meaning:
    payment = facts.intent_payment(event.object, names_invoice=event.names_invoice, **_stage(kind))
    return _told(event, kind, customer=methods.customer(event.object), payment=payment)


def _charge(kind: EventKind, event: StripeEvent) -> Meaning:
    if kind is EventKind.PAYMENT_SUCCEEDED and event.object.flag("captured") is False:
        # Only authorised: the money moves when the merchant captures, and charge.captured tells that.
        kind = EventKind.PAYMENT_PENDING
    payment = facts.charge_payment(event.object, names_invoice=event.names_invoice, **_stage(kind))
    return _told(event, kind, customer=methods.customer(event.object), payment=payment)


def _charge_refunded(event: StripeEvent) -> Meaning:
    charge = event.object
    if charge.flag("captured") is False:
        return Ignored("An authorisation was released before any money was taken.")
    before = event.previous.amount("amount_refunded", charge.currency()) if event.previous.has("amount_refunded") else 0
    refunds = facts.charge_refunds(charge, before or 0)
    if not refunds:
        return Ignored("The charge's refunded amount did not grow; the refund's own event tells what happened.")
    stage = _stage(EventKind.PAYMENT_SUCCEEDED)
    payment = facts.charge_payment(charge, names_invoice=event.names_invoice, **stage)
    customer = methods.customer(charge)
    return _told(event, EventKind.REFUND_UPDATED, customer=customer, payment=payment, refunds=refunds)


def _refund(event: StripeEvent) -> Meaning:
    told = facts.refund(event.object, failed=event.type == "refund.failed")
    if not (told.charge_id or told.payment_id):
        return Ignored("The refund belongs to no charge: it was paid out of the customer's balance.")
    return _told(event, EventKind.REFUND_UPDATED, refunds=(told,))


def _dispute(event: StripeEvent) -> Meaning:
    return _told(event, EventKind.DISPUTE_UPDATED, dispute=facts.dispute(event.object))


def _method(event: StripeEvent, *, automatic: bool = False) -> Meaning:
    method = methods.payment_method(event.object, event.previous, automatic=automatic)
    customer = methods.customer(event.object)
    if not method.token or customer is None:
        return Ignored("The payment method belongs to no customer.")
    return _told(event, EventKind.METHOD_UPDATED, customer=customer, method=method)


def _method_removed(event: StripeEvent) -> Meaning:
    """A detached method has lost its customer; who it was stands among the previous values."""
    method = methods.payment_method(event.object, Node({}, event.previous.path), automatic=False)
    if not method.token:
        return Ignored("The event names no payment method.")
    customer = methods.customer(event.object) or methods.customer(event.previous)
    return _told(event, EventKind.METHOD_REMOVED, customer=customer, method=method)


def _customer_updated(event: StripeEvent) -> Meaning:
    """Only a change of the default method matters: any other would look like a new card and start a retry."""
    settings = event.object.node("invoice_settings")
    if event.previous.node("invoice_settings").has("default_payment_method"):
        method = methods.named_method(settings, "default_payment_method")
    elif event.previous.has("default_source"):
        method = methods.default_source(event.object)
    else:
        return Ignored("The customer's default payment method did not change.")
    if method is None:
        return Ignored("The customer has no default payment method any more; events about the method itself follow.")
    customer = methods.expanded_customer(event.object)
    return _told(event, EventKind.METHOD_UPDATED, customer=customer, method=replace(method, is_default=True))


def _mandate(event: StripeEvent) -> Meaning:
    if event.object.text("status") != "inactive":
        return Ignored("The mandate can still be used.")
    token = event.object.identifier("payment_method")
    if not token:
        return Ignored("The mandate names no payment method.")
    stripe_type = event.object.node("payment_method_details").code("type")
    method = MethodFacts(token=token, kind=methods.method_kind(stripe_type))
    return _told(event, EventKind.METHOD_REMOVED, method=method)


def _subscription_ended(event: StripeEvent) -> Meaning:
    subscription = event.object.required_identifier("id")
    customer = methods.customer(event.object)
    return _told(event, EventKind.SUBSCRIPTION_ENDED, customer=customer, subscription_id=subscription)


_HANDLERS: Mapping[str, Handler] = {
    "invoice.payment_failed": partial(_invoice, EventKind.INVOICE_FAILED),
    "invoice.payment_action_required": _action_required,
    "invoice.paid": partial(_invoice, EventKind.INVOICE_PAID),
    "invoice.payment_succeeded": partial(_invoice, EventKind.INVOICE_PAID),
    "invoice.finalized": partial(_invoice, EventKind.INVOICE_UPDATED),
    "invoice.updated": partial(_invoice, EventKind.INVOICE_UPDATED),
    "invoice.overdue": partial(_invoice, EventKind.INVOICE_UPDATED),
    "invoice.voided": partial(_invoice, EventKind.INVOICE_VOIDED),
    "invoice.marked_uncollectible": partial(_invoice, EventKind.INVOICE_UNCOLLECTIBLE),
    "invoice_payment.paid": _linked,
    "invoice_payment.created": _linked,
    "invoice_payment.updated": _linked,
    "payment_intent.payment_failed": partial(_intent, EventKind.PAYMENT_FAILED),
    "payment_intent.succeeded": partial(_intent, EventKind.PAYMENT_SUCCEEDED),
    "payment_intent.processing": partial(_intent, EventKind.PAYMENT_PENDING),
    "payment_intent.amount_capturable_updated": partial(_intent, EventKind.PAYMENT_PENDING),
    "charge.failed": partial(_charge, EventKind.PAYMENT_FAILED),
    "charge.expired": partial(_charge, EventKind.PAYMENT_FAILED),
    "charge.succeeded": partial(_charge, EventKind.PAYMENT_SUCCEEDED),
    "charge.captured": partial(_charge, EventKind.PAYMENT_SUCCEEDED),
    "charge.pending": partial(_charge, EventKind.PAYMENT_PENDING),
    "charge.refunded": _charge_refunded,
    "charge.refund.updated": _refund,
    "refund.created": _refund,
    "refund.updated": _refund,
    "refund.failed": _refund,
    "charge.dispute.created": _dispute,
    "charge.dispute.updated": _dispute,
    "charge.dispute.closed": _dispute,
    "charge.dispute.funds_withdrawn": _dispute,
    "charge.dispute.funds_reinstated": _dispute,
    "payment_method.attached": _method,
    "payment_method.updated": _method,
    "payment_method.automatically_updated": partial(_method, automatic=True),
    "payment_method.card_automatically_updated": partial(_method, automatic=True),
    "payment_method.detached": _method_removed,
    "customer.source.created": _method,
    "customer.source.updated": _method,
    "customer.source.expiring": _method,
    "customer.source.deleted": _method_removed,
    "customer.updated": _customer_updated,
    "customer.subscription.deleted": _subscription_ended,
    "mandate.updated": _mandate,
}

_FRAUD_WARNING = "A warning moves no money and names no amount; a dispute may follow and is handled then."
_IGNORED: Mapping[str, str] = {
    "invoice.created": "A new invoice is a draft and not owed yet; invoice.finalized will tell.",
    "invoice.upcoming": "A preview of an invoice that does not exist yet.",
    "invoice.deleted": "Only drafts can be deleted, and those are not owed.",
    "invoice.sent": "The invoice was mailed; nothing about its payment changed.",
    "invoice.will_be_due": "The invoice is not due yet.",
    "invoice.finalization_failed": "The invoice could not be finalised, so it is not owed yet.",
    "invoice.payment_attempt_required": "The invoice waits for a payment that its owner starts; none failed.",
    "invoice.overpaid": "The invoice is paid; the surplus is refunded in Stripe.",
    "payment_intent.created": "Nothing was tried yet.",
    "payment_intent.requires_action": (
        "The payer is being asked to authenticate, as any payment at a checkout may; a failure and an"
        " invoice that waits for it have events of their own."
    ),
    "payment_intent.canceled": (
        "Cancelled on purpose: no money moves. A payment of ours that still waits is settled by reconciliation."
    ),
    "payment_intent.partially_funded": "Part of a bank transfer arrived; payment_intent.succeeded will tell.",
    "charge.updated": "Details of a charge changed that do not touch its outcome.",
    "radar.early_fraud_warning.created": _FRAUD_WARNING,
    "radar.early_fraud_warning.updated": _FRAUD_WARNING,
    "customer.created": "A customer without a failed payment needs nothing.",
    "customer.deleted": "Its payment methods and subscriptions send events of their own.",
    "customer.subscription.created": "Its invoices send events of their own.",
    "customer.subscription.updated": "Its invoices send events of their own.",
    "customer.subscription.paused": "A pause makes no new invoices; those there are stay owed.",
    "customer.subscription.resumed": "Its invoices send events of their own.",
    "setup_intent.succeeded": "payment_method.attached tells of the new payment method.",
    "setup_intent.setup_failed": "Storing a payment method failed; no payment was tried.",
    "checkout.session.completed": "The payment behind the checkout sends events of its own.",
}
