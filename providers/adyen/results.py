"""From answers of Adyen's Checkout API to charge results. Raises RecordMalformed for what makes no sense."""

import re
from collections.abc import Mapping
from typing import Any

from providers.adyen.amounts import from_adyen
from providers.base import CardFacts, ChargeResult, DeclineFacts, Outcome
from providers.wire.reading import RecordMalformed, amount, currency, identifier, kept, part, required, text
from recovery_site.common.errors import InvalidInput

_AWAITED = frozenset({"Pending", "Received", "PresentToShopper"})
# The payer is wanted, who is not here; without the action in the answer nobody can go on with such a payment.
_NEEDS_ACTION = frozenset({"RedirectShopper", "ChallengeShopper", "IdentifyShopper"})
_REFUSED = frozenset({"Refused", "Cancelled", "Error"})
_LEADING_CODE = re.compile(r"\s*([0-9A-Za-z]{1,10})\b")


def payment_result(payment: Mapping[str, Any]) -> ChargeResult:
    """The answer to one payment request. Adyen captures what it authorised by itself, unless told otherwise."""
    code = required(payment, "resultCode")
    extra = part(payment, "additionalData")
    told: dict[str, Any] = {
        "provider_id": identifier(payment, "pspReference"),
        "payment_id": identifier(payment, "pspReference"),
        "reference": identifier(payment, "merchantReference"),
        "token": _token(extra),
        "card": card(extra),
        "raw": kept(payment, "pspReference", "resultCode", "refusalReason", "refusalReasonCode"),
        **_money(payment),
    }
    if code == "Authorised":
        required(payment, "pspReference")
        return ChargeResult(outcome=Outcome.SUCCEEDED, **told)
    if code in _AWAITED:
        return ChargeResult(outcome=Outcome.AWAITING, **told)
    if code in _NEEDS_ACTION:
        wanted = DeclineFacts(raw_code="Authentication required", message="The payer has to authenticate.")
        return ChargeResult(outcome=Outcome.DECLINED, decline=wanted, **told)
    if code in _REFUSED:
        return ChargeResult(outcome=Outcome.DECLINED, decline=_decline(payment, extra, code), **told)
    raise RecordMalformed("resultCode")


def refund_result(refund: Mapping[str, Any]) -> ChargeResult:
    """A refund request that Adyen has taken on; its end comes by webhook only."""
    if required(refund, "status") != "received":
        raise RecordMalformed("status")
    return ChargeResult(
        outcome=Outcome.AWAITING,
        provider_id=required(refund, "pspReference"),
        payment_id=identifier(refund, "paymentPspReference"),
        reference=identifier(refund, "reference"),
        raw=kept(refund, "pspReference", "paymentPspReference", "status"),
        **_money(refund),
    )


def _money(record: Mapping[str, Any]) -> dict[str, Any]:
    money = part(record, "amount")
    if not money:
        return {}
    code = currency(money)
    try:
        return {"amount_minor": from_adyen(amount(money, "value"), code), "currency": code}
    except InvalidInput:
        raise RecordMalformed("amount") from None


def _decline(payment: Mapping[str, Any], extra: Mapping[str, Any], result: str) -> DeclineFacts:
    """The reason in Adyen's words, which its webhooks use too; the network's codes from the additional data."""
    reason = text(payment, "refusalReason") or text(payment, "refusalReasonCode") or result
    return DeclineFacts(
        raw_code=reason[:100],
        network_code=leading_code(text(extra, "refusalReasonRaw")),
        advice_code=leading_code(text(extra, "merchantAdviceCode")),
        message=text(extra, "refusalReasonRaw")[:500],
    )


def leading_code(value: str) -> str:
    """`51 : Insufficient funds` -> `51`."""
    found = _LEADING_CODE.match(value)
    return found[1] if found and ":" in value else value[:10] if value.isalnum() else ""


def _token(extra: Mapping[str, Any]) -> str:
    return identifier(extra, "tokenization.storedPaymentMethodId") or identifier(
        extra, "recurring.recurringDetailReference"
    )


def card(extra: Mapping[str, Any]) -> CardFacts | None:
    """The card as far as the additional data, all of it optional, describes it."""
    month, _, year = text(extra, "expiryDate").partition("/")
    facts = CardFacts(
        network=text(extra, "cardPaymentMethod")[:40] or text(extra, "paymentMethod")[:40],
        last4=text(extra, "cardSummary")[:4],
        exp_month=int(month) if month.isascii() and month.isdigit() and len(month) <= 2 else None,
        exp_year=int(year) if year.isascii() and year.isdigit() and len(year) == 4 else None,
        funding=text(extra, "fundingSource").lower()[:20],
    )
    return facts if facts != CardFacts() else None
