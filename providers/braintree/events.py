"""What each kind of Braintree notification means here: an event of the house, or a reason to leave it alone."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, ClassVar

from providers import reading
from providers.base import (
    PAYMENT_KINDS,
    CardFacts,
    CustomerFacts,
    DeclineFacts,
    DisputeFacts,
    DisputeStatus,
    EventKind,
    Ignored,
    InboundItem,
    InvoiceFacts,
    Meaning,
    MethodFacts,
    Outcome,
    PaymentEvent,
    PaymentFacts,
    RefundFacts,
    RefundStatus,
    Thin,
)
from providers.braintree.results import CLOSED, LATE, REFUSED, SETTLED, outcome_of
from providers.countries import country_code

PROVIDER = "braintree"
# The money came, or would have, and did not after all.
_UNDONE = LATE | CLOSED
_INSTRUMENTS: Mapping[str, str] = {
    "credit-card": "card",
    "apple-pay-card": "card",
    "android-pay-card": "card",
    "visa-checkout-card": "card",
    "samsung-pay-card": "card",
    "us-bank-account": "ach",
    "sepa-debit-account": "sepa",
    "paypal-account": "paypal",
    "venmo-account": "venmo",
}
_REASONS = (
    "processor-response-text",
    "processor-settlement-response-text",
    "network-response-text",
    "merchant-advice-code-text",
)
_DISPUTES = {
    "dispute_won": DisputeStatus.WON,
    "dispute_lost": DisputeStatus.LOST,
    "dispute_accepted": DisputeStatus.LOST,
    "dispute_auto_accepted": DisputeStatus.LOST,
    "dispute_expired": DisputeStatus.LOST,
}


@dataclass(frozen=True, slots=True)
class Node(reading.Node):
    """One object of Braintree's XML: everything is text, amounts are decimals in major units."""

    OWNER: ClassVar[str] = "Braintree"
    AS_TEXT: ClassVar[bool] = True

    def required_decimal(self, name: str, currency: str) -> int:
        value = self.decimal_amount(name, currency)
        if value is None:
            raise self.wrong(name, "is missing")
        return value


@dataclass(frozen=True, slots=True)
class Notice:
    """One notification, taken apart."""

    item: InboundItem
    subject: Node
    at: datetime


def meaning(item: InboundItem) -> Meaning:
    """The meaning of one notification. Raises InvalidInput where a field that is needed is impossible."""
    handler = _HANDLERS.get(item.event_type)
    if handler is None:
        return Ignored(_IGNORED.get(item.event_type, "This kind carries nothing that a payment recovery needs."))
    envelope = Node(item.payload, "notification")
    return handler(
        Notice(item, Node(envelope.node("subject").values, "subject"), envelope.required_moment("timestamp"))
    )


def _told(notice: Notice, kind: EventKind, **known: Any) -> PaymentEvent:
    return notice.item.told(PROVIDER, kind, notice.at, **known)


def _payer(transaction: Node) -> CustomerFacts | None:
    shown = transaction.node("customer")
    customer = shown.number("id") or transaction.number("customer-id")
    if not customer:
        return None
    return CustomerFacts(
        id=customer,
        email=shown.text("email", 254),
        name=shown.full_name("first-name", "last-name", "company"),
        country=country_code(transaction.node("billing").text("country-code-alpha2", 3)),
    )


def _instrument(holder: Node) -> MethodFacts | None:
    """The payment method inside a transaction or a notification, whatever it is."""
    for name, kind in _INSTRUMENTS.items():
        shown = holder.node(name)
        token = shown.identifier("token")
        if token:
            return MethodFacts(token=token, kind=kind, card=_card(shown) if kind == "card" else None)
    return None


def _card(shown: Node) -> CardFacts:
    debit, prepaid = (shown.text(name, 10).lower() == "yes" for name in ("debit", "prepaid"))
    return CardFacts(
        fingerprint=shown.identifier("unique-number-identifier"),
        network=shown.text("card-type", 40).lower(),
        last4=shown.text("last-4", 4),
        exp_month=shown.month("expiration-month"),
        exp_year=shown.year("expiration-year"),
        funding="prepaid" if prepaid else "debit" if debit else "",
        country=country_code(shown.text("country-of-issuance", 60)),
        bin=shown.text("bin", 8),
        issuer=_known(shown.text("issuing-bank", 100)),
    )


def _known(text: str) -> str:
    return "" if text.lower() == "unknown" else text


def _decline(shown: Node) -> DeclineFacts:
    """The processor's code, or why the gateway stopped it: then no network has seen it."""
    status = shown.text("status", 40)
    reason = shown.code("gateway-rejection-reason")
    if status == "gateway_rejected" and reason:
        return DeclineFacts(raw_code=f"gateway_rejected:{reason}", sent_to_network=False)
    settlement = shown.code("processor-settlement-response-code") if status.startswith("settlement") else ""
    # "51 : DECLINED": the network's code in front of the processor's words.
    additional = shown.text("additional-processor-response", 60).partition(":")[0].strip()
    return DeclineFacts(
        raw_code=settlement or shown.code("processor-response-code") or status,
        network_code=shown.text("network-response-code", 40) or (additional if len(additional) <= 3 else ""),
        advice_code=shown.text("merchant-advice-code", 40),
        # soft_declined or hard_declined: what a code means that is in no table, or that means either.
        provider_advice=shown.text("processor-response-type", 40),
        message=next(filter(None, map(shown.text, _REASONS)), ""),
    )


def _payment(shown: Node, invoice_id: str) -> PaymentFacts:
    currency = shown.currency("currency-iso-code")
    amount = shown.required_decimal("amount", currency)
    outcome = _outcome(shown)
    return PaymentFacts(
        charge_id=shown.required_identifier("id"),
        # A retry names the transaction that it repeats; both are tries of one payment.
        payment_id=shown.identifier("retried-transaction-id") or shown.required_identifier("id"),
        amount_minor=amount,
        currency=currency,
        captured_minor=amount if outcome is Outcome.SUCCEEDED else None,
        invoice_id=invoice_id,
        reference=shown.identifier("order-id"),
        method=_instrument(shown),
        decline=_decline(shown) if outcome in (Outcome.DECLINED, Outcome.ERRORED) else None,
        occurred_at=shown.moment("created-at"),
        undone=shown.text("status", 40) in _UNDONE,
        network_reference=shown.text("network-transaction-id", 100),
    )


def _outcome(shown: Node) -> Outcome | None:
    return outcome_of(shown.text("status", 40), shown.text("payment-instrument-type", 40))


def _kind(shown: Node) -> EventKind | None:
    outcome = _outcome(shown)
    return None if outcome is None else PAYMENT_KINDS[outcome]


def _invoice_of(subscription: Node, shown: Node) -> str:
    """Braintree has no invoices: a billing cycle of a subscription is one."""
    cycle = subscription.integer("current-billing-cycle")
    name = subscription.identifier("id")
    return f"{name}:{cycle}" if name and cycle is not None else shown.identifier("order-id")


def _thin(notice: Notice, shown: Node, **named: str) -> Thin:
    """Without a currency an amount in major units is no amount: the transaction is read through the API."""
    return Thin(
        provider=PROVIDER,
        event_id=notice.item.event_id,
        event_type=notice.item.event_type,
        occurred_at=notice.at,
        customer=_payer(shown),
        **named,
    )


def _tells_currency(shown: Node) -> bool:
    return bool(shown.text("currency-iso-code", 3))


def _charged(notice: Notice) -> Meaning:
    subscription = notice.subject.node("subscription")
    shown = subscription.first("transactions")
    if not shown:
        return Ignored("The notification carries no transaction.")
    if not _tells_currency(shown):
        name = _invoice_of(subscription, shown)
        return _thin(notice, shown, charge_id=shown.required_identifier("id"), invoice_id=name)
    kind = _kind(shown)
    if kind is None:
        return Ignored("The transaction's status is not one that says whether money moved.")
    payment = _payment(shown, _invoice_of(subscription, shown))
    failures = subscription.integer("failure-count")
    invoice = InvoiceFacts(
        id=payment.invoice_id,
        amount_minor=payment.amount_minor,
        currency=payment.currency,
        subscription_id=subscription.identifier("id"),
        plan=subscription.identifier("plan-id"),
        status=subscription.text("status", 40).lower().replace(" ", "_"),
        attempt_count=failures or None,
        token=subscription.identifier("payment-method-token"),
        issued_at=subscription.moment("billing-period-start-date"),
    )
    return _told(notice, kind, customer=_payer(shown), payment=payment, invoice=invoice if invoice.id else None)


def _transaction(notice: Notice) -> Meaning:
    shown = notice.subject.node("transaction")
    if shown.text("type", 20) == "credit":
        return _refund(notice)
    if not _tells_currency(shown):
        name = shown.identifier("order-id")
        return _thin(notice, shown, charge_id=shown.required_identifier("id"), invoice_id=name)
    kind = _kind(shown)
    if kind is None:
        return Ignored("The transaction's status is not one that says whether money moved.")
    return _told(notice, kind, customer=_payer(shown), payment=_payment(shown, shown.identifier("order-id")))


def _refund(notice: Notice) -> Meaning:
    shown = notice.subject.node("transaction")
    if not _tells_currency(shown):
        return _thin(notice, shown, refund_id=shown.required_identifier("id"))
    currency = shown.currency("currency-iso-code")
    status = shown.text("status", 40)
    failed = notice.item.event_type == "refund_failed" or status in REFUSED | _UNDONE
    settled = RefundStatus.SUCCEEDED if status in SETTLED or status == "settling" else RefundStatus.PENDING
    refund = RefundFacts(
        id=shown.required_identifier("id"),
        amount_minor=shown.required_decimal("amount", currency),
        currency=currency,
        status=RefundStatus.FAILED if failed else settled,
        charge_id=shown.identifier("refunded-transaction-id"),
        reference=shown.identifier("order-id"),
        failure_reason=_decline(shown).raw_code if failed else "",
    )
    return _told(notice, EventKind.REFUND_UPDATED, refunds=(refund,))


def _dispute(notice: Notice) -> Meaning:
    shown = notice.subject.node("dispute")
    currency = shown.currency("currency-iso-code")
    amount = shown.decimal_amount("amount-disputed", currency)
    dispute = DisputeFacts(
        id=shown.required_identifier("id"),
        amount_minor=shown.required_decimal("amount", currency) if amount is None else amount,
        currency=currency,
        status=_DISPUTES.get(notice.item.event_type, DisputeStatus.OPEN),
        charge_id=shown.node("transaction").identifier("id"),
        reason_code=shown.text("reason-code", 60) or shown.text("reason", 60),
        respond_by=shown.moment("reply-by-date"),
    )
    return _told(notice, EventKind.DISPUTE_UPDATED, dispute=dispute)


def _method(notice: Notice, holder: str) -> Meaning:
    about = notice.subject.node(holder)
    inner = _instrument(about.node("payment-method") or about)
    token = about.identifier("token") or (inner.token if inner else "")
    if not token:
        return Ignored("The notification names no payment method.")
    same = inner if inner is not None and inner.token == token else None
    method = MethodFacts(token=token, kind=inner.kind if inner else "", card=same.card if same else None, updated=True)
    return _told(notice, EventKind.METHOD_UPDATED, customer=_owner(about.node("payment-method")), method=method)


def _owner(holder: Node) -> CustomerFacts | None:
    for name in _INSTRUMENTS:
        customer = holder.node(name).number("customer-id")
        if customer:
            return CustomerFacts(id=customer)
    return None


def _method_removed(notice: Notice) -> Meaning:
    method = _instrument(notice.subject)
    if method is None:
        about = notice.subject.node("granted-payment-instrument-revoked") or notice.subject
        token = about.identifier("token")
        if not token:
            return Ignored("The notification names no payment method.")
        method = MethodFacts(token=token, kind="")
    return _told(notice, EventKind.METHOD_REMOVED, customer=_owner(notice.subject), method=method)


def _subscription_ended(notice: Notice) -> Meaning:
    subscription = notice.subject.node("subscription")
    customer = _payer(subscription.first("transactions"))
    name = subscription.required_identifier("id")
    return _told(notice, EventKind.SUBSCRIPTION_ENDED, customer=customer, subscription_id=name)


_HANDLERS: Mapping[str, Callable[[Notice], Meaning]] = {
    "subscription_charged_successfully": _charged,
    "subscription_charged_unsuccessfully": _charged,
    "transaction_settled": _transaction,
    "transaction_settlement_declined": _transaction,
    "transaction_retried": _transaction,
    "refund_failed": _refund,
    **dict.fromkeys(("dispute_opened", "dispute_under_review", "dispute_disputed", *_DISPUTES), _dispute),
    "payment_method_customer_data_updated": partial(_method, holder="payment-method-customer-data-updated-metadata"),
    "recipient_updated_granted_payment_method": partial(_method, holder="granted-payment-instrument-update"),
    "grantor_updated_granted_payment_method": partial(_method, holder="granted-payment-instrument-update"),
    "payment_method_revoked_by_customer": _method_removed,
    "granted_payment_method_revoked": _method_removed,
    "subscription_canceled": _subscription_ended,
    "subscription_expired": _subscription_ended,
}
_CHARGES_TELL = "Its charges send notifications of their own."
_IGNORED: Mapping[str, str] = {
    **dict.fromkeys(
        (
            "subscription_went_past_due",
            "subscription_went_active",
            "subscription_trial_ended",
            "subscription_billing_skipped",
        ),
        _CHARGES_TELL,
    ),
    "check": "Braintree's test notification.",
    "account_updater_daily_report": "A link to a report; a changed card is learned from the next charge with it.",
    "transaction_disbursed": "The money reached the merchant's bank; the payment was told before.",
    "transaction_reviewed": "A person's decision at Braintree; the transaction tells what became of it.",
}
