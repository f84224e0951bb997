"""What Adyen's notifications mean here: items of the standard webhook, and webhooks about stored payment methods."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

from providers.adyen import facts
from providers.adyen.facts import Node
from providers.base import (
    CardFacts,
    CustomerFacts,
    DisputeFacts,
    DisputeStatus,
    EventKind,
    Ignored,
    InboundItem,
    InvoiceFacts,
    MethodFacts,
    PaymentEvent,
    PaymentFacts,
    Proof,
    RefundFacts,
    RefundStatus,
)
from providers.countries import country_code

PROVIDER = "adyen"
Meaning = PaymentEvent | Ignored
# Adyen says that its Auto Rescue goes on and not until when; its longest window is 48 days, a month is usual.
RESCUE_WINDOW = timedelta(days=30)
_BANKS = {
    "ach": "ach",
    "sepadirectdebit": "sepa",
    "directdebit_GB": "bacs",
    "becsdirectdebit": "becs",
    "eft_directdebit_CA": "acss",
}
_DISPUTES = {
    "NOTIFICATION_OF_CHARGEBACK": DisputeStatus.OPEN,
    "CHARGEBACK": DisputeStatus.OPEN,
    "DISPUTE_OPENED_WITH_CHARGEBACK": DisputeStatus.OPEN,
    "CHARGEBACK_REVERSED": DisputeStatus.WON,
    "PREARBITRATION_WON": DisputeStatus.WON,
    "PREARBITRATION_LOST": DisputeStatus.LOST,
    "SECOND_CHARGEBACK": DisputeStatus.LOST,
}


@dataclass(frozen=True, slots=True)
class Notice:
    """One item, taken apart. `vouched`: whether a password covers what the signature leaves out."""

    item: InboundItem
    node: Node
    extra: Node
    success: bool
    vouched: bool

    @property
    def payment_id(self) -> str:
        """The payment: of modifications, disputes and rescues the original one."""
        return self.node.identifier("originalReference") or self.node.identifier("pspReference")

    @property
    def invoice_id(self) -> str:
        return self.node.identifier("merchantReference") or self.extra.identifier("merchantOrderReference")


def meaning(item: InboundItem) -> Meaning:
    """The meaning of one item. Raises InvalidInput where a field that is needed is impossible."""
    node = Node(item.payload, "notification")
    if "eventCode" not in item.payload:
        return _webhook(item, node)
    handler = _HANDLERS.get(item.event_type)
    if handler is None:
        return Ignored(_IGNORED.get(item.event_type, "This event code carries nothing that a payment recovery needs."))
    success = node.flag("success") is True
    return handler(Notice(item, node, node.node("additionalData"), success, item.proof is Proof.SIGNED))


def _told(notice: Notice, kind: EventKind, **known: Any) -> PaymentEvent:
    return notice.item.told(PROVIDER, kind, notice.node.required_moment("eventDate"), **known)


def _money(notice: Notice) -> tuple[int, str]:
    money = notice.node.node("amount")
    currency = money.currency()
    return money.required_amount("value", currency), currency


def _payer(notice: Notice) -> CustomerFacts | None:
    names = ("shopperReference", "tokenization.shopperReference", "recurring.shopperReference")
    shopper = next(filter(None, (notice.extra.identifier(name) for name in names)), "")
    if not shopper:
        return None
    return CustomerFacts(
        id=shopper,
        email=notice.extra.text("shopperEmail", 254),
        country=country_code(notice.extra.text("shopperCountry", 60)),
        locale=notice.extra.text("shopperLocale", 16),
    )


def _method(notice: Notice) -> MethodFacts | None:
    extra = notice.extra
    token = facts.token(extra)
    if not token:
        return None
    brand = notice.node.text("paymentMethod", 40)
    kind = _BANKS.get(brand, "card")
    status = extra.text("realtimeAccountUpdaterStatus", 40).lower()
    return MethodFacts(
        token=token,
        kind=kind,
        card=facts.card(notice.extra, brand) if kind == "card" else None,
        updated=status in ("cardchanged", "cardexpirychanged"),
    )


def _payment(notice: Notice, *, settled: bool, failed: bool, undone: bool = False) -> PaymentFacts:
    amount, currency = _money(notice)
    return PaymentFacts(
        charge_id=notice.payment_id,
        amount_minor=amount,
        currency=currency,
        captured_minor=amount if settled else None,
        invoice_id=notice.invoice_id,
        reference=notice.extra.identifier("metadata.attempt") or notice.node.identifier("merchantReference"),
        method=_method(notice),
        decline=facts.decline(notice.extra, notice.node.code("reason"), trusted=notice.vouched) if failed else None,
        occurred_at=notice.node.moment("eventDate"),
        undone=undone,
        network_reference=notice.extra.text("networkTxReference", 100),
    )


def _authorisation(notice: Notice) -> Meaning:
    """Adyen captures what it authorised by itself, unless told otherwise, so an authorisation is a payment."""
    kind = EventKind.PAYMENT_SUCCEEDED if notice.success else EventKind.PAYMENT_FAILED
    payment = _payment(notice, settled=notice.success, failed=not notice.success)
    return _told(notice, kind, customer=_payer(notice), payment=payment, invoice=_rescued_invoice(notice))


def _rescued_invoice(notice: Notice) -> InvoiceFacts | None:
    """While Auto Rescue is at it, Adyen retries by itself and nobody else should."""
    scheduled = notice.extra.flag("retry.rescueScheduled") if notice.extra.has("retry.rescueScheduled") else None
    number = notice.extra.integer("retry.orderAttemptNumber") if notice.extra.has("retry.orderAttemptNumber") else None
    if scheduled is None and number is None:
        return None
    amount, currency = _money(notice)
    occurred_at = notice.node.required_moment("eventDate")
    return InvoiceFacts(
        id=notice.invoice_id,
        amount_minor=amount,
        currency=currency,
        attempt_count=number,
        next_retry_at=occurred_at + RESCUE_WINDOW if scheduled and not notice.success else None,
        issued_at=occurred_at,
    )


def _pending(notice: Notice) -> Meaning:
    payment = _payment(notice, settled=False, failed=False)
    return _told(notice, EventKind.PAYMENT_PENDING, customer=_payer(notice), payment=payment)


def _capture(notice: Notice) -> Meaning:
    if not notice.success:
        return _undone(notice)
    if not notice.node.identifier("originalReference"):
        return Ignored("The capture does not name its payment.")
    payment = _payment(notice, settled=True, failed=False)
    return _told(notice, EventKind.PAYMENT_SUCCEEDED, customer=_payer(notice), payment=payment)


def _undone(notice: Notice) -> Meaning:
    """The authorisation ran out or could not be captured: the money did not come after all."""
    payment = _payment(notice, settled=False, failed=True, undone=True)
    return _told(notice, EventKind.PAYMENT_FAILED, customer=_payer(notice), payment=payment)


def _refund(notice: Notice, *, fails: bool = False) -> Meaning:
    """Also a cancelled authorisation: the merchant gave the money back before it had it."""
    amount, currency = _money(notice)
    if not notice.node.identifier("originalReference"):
        return Ignored("The refund does not name its payment.")
    if amount == 0:
        return Ignored("A refund of zero moves no money.")
    done = notice.success and not fails
    refund = RefundFacts(
        id=notice.node.required_identifier("pspReference"),
        amount_minor=amount,
        currency=currency,
        status=RefundStatus.SUCCEEDED if done else RefundStatus.FAILED,
        charge_id=notice.node.identifier("originalReference"),
        reference=notice.node.identifier("merchantReference"),
        failure_reason="" if done else notice.node.text("reason"),
    )
    return _told(notice, EventKind.REFUND_UPDATED, refunds=(refund,))


def _dispute(notice: Notice, status: DisputeStatus | None = None) -> Meaning:
    """A returned direct debit comes as a chargeback too, and is final."""
    amount, currency = _money(notice)
    is_return = notice.node.text("paymentMethod", 40) in _BANKS
    chosen = status or _DISPUTES[notice.item.event_type]
    if is_return and chosen is DisputeStatus.OPEN and notice.item.event_type == "CHARGEBACK":
        chosen = DisputeStatus.LOST
    dispute = DisputeFacts(
        id=notice.node.required_identifier("pspReference"),
        amount_minor=amount,
        currency=currency,
        status=chosen,
        charge_id=notice.payment_id,
        reason_code=notice.extra.text("chargebackReasonCode", 60) or facts.leading_code(notice.node.text("reason")),
        is_return=is_return,
        respond_by=notice.extra.moment("defensePeriodEndsAt"),
    )
    return _told(notice, EventKind.DISPUTE_UPDATED, dispute=dispute)


def _dispute_ended(notice: Notice) -> Meaning:
    """How it ended stands in the part that nobody signed."""
    ends = {"won": DisputeStatus.WON, "lost": DisputeStatus.LOST, "undefended": DisputeStatus.LOST}
    status = ends.get(notice.extra.text("disputeStatus", 40).lower())
    if status is None or not notice.vouched:
        return Ignored("Nobody vouches for how the dispute ended, or it has not; a later notification moves the money.")
    return _dispute(notice, status)


def _rescue(notice: Notice) -> Meaning:
    amount, currency = _money(notice)
    invoice = InvoiceFacts(
        id=notice.invoice_id,
        amount_minor=amount,
        currency=currency,
        paid_minor=amount if notice.success else 0,
        status="paid" if notice.success else "",
        amount_told=amount > 0,
    )
    kind = EventKind.INVOICE_PAID if notice.success and amount > 0 else EventKind.INVOICE_UPDATED
    return _told(notice, kind, customer=_payer(notice), invoice=invoice)


def _rescue_goes_on(notice: Notice, *, ends: bool = False) -> Meaning:
    """Only when Adyen tries next is of interest: never, once the rescue was called off."""
    money = notice.node.node("amount")
    invoice = InvoiceFacts(
        id=notice.invoice_id,
        amount_minor=0,
        currency=money.currency(),
        next_retry_at=None if ends else notice.node.required_moment("eventDate") + RESCUE_WINDOW,
        amount_told=False,
    )
    return _told(notice, EventKind.INVOICE_UPDATED, customer=_payer(notice), invoice=invoice)


def _contract(notice: Notice) -> Meaning:
    customer = _payer(notice)
    if customer is None or not notice.success:
        return Ignored("No payment method of a known shopper was stored.")
    token = notice.extra.identifier("recurring.recurringDetailReference") or notice.node.required_identifier(
        "pspReference"
    )
    brand = notice.node.text("paymentMethod", 40)
    kind = _BANKS.get(brand, "card")
    method = MethodFacts(token=token, kind=kind, card=facts.card(notice.extra, brand) if kind == "card" else None)
    return _told(notice, EventKind.METHOD_UPDATED, customer=customer, method=method)


def _webhook(item: InboundItem, node: Node) -> Meaning:
    """A webhook about a stored payment method: signed as a whole."""
    kinds = {
        "recurring.token.created": EventKind.METHOD_UPDATED,
        "recurring.token.alreadyExisting": EventKind.METHOD_UPDATED,
        "recurring.token.updated": EventKind.METHOD_UPDATED,
        "recurring.token.disabled": EventKind.METHOD_REMOVED,
    }
    kind = kinds.get(item.event_type)
    if kind is None:
        return Ignored(_IGNORED.get(item.event_type, "This webhook carries nothing that a payment recovery needs."))
    data = node.node("data")
    shopper = data.identifier("shopperReference")
    brand = data.text("type", 40)
    rail = _BANKS.get(brand, "card")
    method = MethodFacts(
        token=data.required_identifier("storedPaymentMethodId"),
        kind=rail,
        card=CardFacts(network=brand.lower()) if rail == "card" and brand else None,
        updated=item.event_type == "recurring.token.updated",
    )
    if not shopper:
        return Ignored("The payment method belongs to no shopper.")
    at = node.required_moment("createdAt")
    return item.told(PROVIDER, kind, at, customer=CustomerFacts(id=shopper), method=method)


_HANDLERS: Mapping[str, Callable[[Notice], Meaning]] = {
    "AUTHORISATION": _authorisation,
    "PENDING": _pending,
    "CAPTURE": _capture,
    "CAPTURE_FAILED": _undone,
    "EXPIRE": _undone,
    "CANCELLATION": _refund,
    "TECHNICAL_CANCEL": _refund,
    "CANCEL_OR_REFUND": _refund,
    "REFUND": _refund,
    "REFUND_WITH_DATA": _refund,
    "REFUND_FAILED": partial(_refund, fails=True),
    "REFUNDED_REVERSED": partial(_refund, fails=True),
    **dict.fromkeys(_DISPUTES, _dispute),
    "DISPUTE_DEFENSE_PERIOD_ENDED": _dispute_ended,
    "ISSUER_RESPONSE_TIMEFRAME_EXPIRED": _dispute_ended,
    "AUTORESCUE": _rescue,
    "AUTORESCUE_NEXT_ATTEMPT": _rescue_goes_on,
    "CANCEL_AUTORESCUE": partial(_rescue_goes_on, ends=True),
    "RECURRING_CONTRACT": _contract,
}
_BANK_DATA = "A bank changed the number of an account; Adyen keeps the stored payment method, whose id stays."
_EARLY = "A warning moves no money; a dispute may follow and is handled then."
_IGNORED: Mapping[str, str] = {
    "NOTIFICATION_OF_FRAUD": _EARLY,
    "REQUEST_FOR_INFORMATION": _EARLY,
    "INFORMATION_SUPPLIED": _EARLY,
    "OFFER_CLOSED": "The shopper left before paying; nothing was charged.",
    "REPORT_AVAILABLE": "A report; its payments have notifications of their own.",
    "ach.notificationOfChange": _BANK_DATA,
    "eft.notificationOfChange": _BANK_DATA,
}
