"""From Hyperswitch's payments and refunds to charge results. Raises RecordMalformed for what makes no sense."""

from collections.abc import Mapping
from typing import Any

from providers.base import CardFacts, ChargeResult, DeclineFacts, Outcome
from providers.wire.reading import RecordMalformed, amount, currency, identifier, instant, kept, part, required, text

REFERENCE_KEY = "attempt"
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
    told: dict[str, Any] = {
        "provider_id": required(payment, "payment_id"),
        "payment_id": required(payment, "payment_id"),
        "amount_minor": amount(payment),
        "currency": currency(payment),
        "token": identifier(payment, "payment_method_id"),
        "customer": identifier(payment, "customer_id"),
        "reference": reference(payment),
        "card": card(payment),
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
        return ChargeResult(outcome=Outcome.DECLINED, decline=decline(payment), **told)
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
        reference=reference(refund),
        decline=DeclineFacts(raw_code=failure[:100]) if outcome is Outcome.DECLINED else None,
        created_at=instant(refund, "created_at"),
        raw=kept(refund, *_RECORDED),
    )


def reference(record: Mapping[str, Any]) -> str:
    """Our attempt's public id, if we made it."""
    return identifier(part(record, "metadata"), REFERENCE_KEY)


def decline(payment: Mapping[str, Any]) -> DeclineFacts:
    """Why a payment failed; the issuer's own code and the network's advice where they are told."""
    details = part(payment, "error_details")
    issuer = part(details, "issuer_details")
    network = part(issuer, "network_details") or part(payment, "network_details")
    return DeclineFacts(
        raw_code=text(payment, "error_code")[:100] or text(payment, "unified_code")[:100],
        network_code=(text(payment, "issuer_error_code") or text(issuer, "code"))[:40],
        advice_code=(text(network, "advice_code") or text(network, "network_advice_code"))[:40],
        provider_advice=text(part(details, "unified_details"), "recommended_action")[:40],
        message=text(payment, "error_message")[:500],
        gateway=text(payment, "connector")[:40],
    )


def card(payment: Mapping[str, Any]) -> CardFacts | None:
    shown = part(part(payment, "payment_method_data"), "card")
    if not shown:
        return None
    return CardFacts(
        network=text(shown, "card_network").lower()[:40],
        last4=text(shown, "last4")[:4],
        exp_month=_number(shown, "card_exp_month"),
        exp_year=_number(shown, "card_exp_year"),
        funding=text(shown, "card_type").lower()[:20],
    )


def _number(record: Mapping[str, Any], name: str) -> int | None:
    """Hyperswitch writes months and years as text, years with two or four digits."""
    value = text(record, name)
    if not (value.isascii() and value.isdigit() and len(value) <= 4):
        return None
    return int(value) + 2000 if name == "card_exp_year" and len(value) == 2 else int(value)
