"""From answers of Adyen's Checkout API to charge results. Raises RecordMalformed for what makes no sense."""

from collections.abc import Mapping
from typing import Any

from providers.adyen import facts
from providers.adyen.amounts import from_adyen
from providers.adyen.facts import Node
from providers.base import CardFacts, ChargeResult, DeclineFacts, Outcome
from providers.wire.reading import RecordMalformed, amount, by_node, currency, identifier, kept, part, required, text
from recovery_site.common.errors import InvalidInput

_AWAITED = frozenset({"Pending", "Received", "PresentToShopper"})
# The payer is wanted, who is not here; without the action in the answer nobody can go on with such a payment.
_NEEDS_ACTION = frozenset({"RedirectShopper", "ChallengeShopper", "IdentifyShopper"})
_REFUSED = frozenset({"Refused", "Cancelled", "Error"})


def payment_result(payment: Mapping[str, Any]) -> ChargeResult:
    """The answer to one payment request. Adyen captures what it authorised by itself, unless told otherwise."""
    code = required(payment, "resultCode")
    extra = Node(part(payment, "additionalData"), "additionalData")
    told: dict[str, Any] = {
        "provider_id": identifier(payment, "pspReference"),
        "payment_id": identifier(payment, "pspReference"),
        "reference": identifier(payment, "merchantReference"),
        "token": by_node(facts.token, extra),
        "card": by_node(_card, extra),
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


def _decline(payment: Mapping[str, Any], extra: Node, result: str) -> DeclineFacts:
    """The reason in Adyen's words, which its webhooks use too; the network's codes from the additional data."""
    reason = text(payment, "refusalReason") or text(payment, "refusalReasonCode") or result
    return by_node(lambda node: facts.decline(node, reason[:100]), extra)


def _card(extra: Node) -> CardFacts | None:
    """The card as far as it is described."""
    brand = extra.text("cardPaymentMethod", 40) or extra.text("paymentMethod", 40)
    card = facts.card(extra, brand)
    return card if card != CardFacts() else None
