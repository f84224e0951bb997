"""What Adyen's additional data, all of them optional, say of cards and refusals: in notifications and answers alike."""

import re
from dataclasses import dataclass
from typing import ClassVar

from providers import reading
from providers.adyen.amounts import from_adyen
from providers.base import CardFacts, DeclineFacts
from providers.countries import country_code

_TRIES = 10
# What the real-time account updater has found out about a refused card that no new one stands for.
_CARD_GONE = frozenset({"closeaccount", "contactcardaccountholder"})
_LEADING_CODE = re.compile(r"\s*([0-9A-Za-z]{1,10})\b")


@dataclass(frozen=True, slots=True)
class Node(reading.Node):
    """One object of Adyen's JSON; numbers and truth values may be text, and `null` may be a word."""

    OWNER: ClassVar[str] = "Adyen"
    AS_TEXT: ClassVar[bool] = True

    def text(self, name: str, limit: int = reading.MAX_TEXT) -> str:
        value = reading.Node.text(self, name, limit)
        return "" if value == "null" else value

    def _minor(self, value: int, currency: str) -> int:
        return from_adyen(value, currency)


def leading_code(value: str) -> str:
    """`51 : Insufficient funds` -> `51`."""
    found = _LEADING_CODE.match(value)
    return found[1] if found and ":" in value else value[:10] if value.isalnum() else ""


def token(extra: Node) -> str:
    """The stored payment method, by its new name or the old."""
    stored = extra.identifier("tokenization.storedPaymentMethodId")
    return stored or extra.identifier("recurring.recurringDetailReference")


def card(extra: Node, brand: str) -> CardFacts:
    month, _, year = extra.text("expiryDate", 10).partition("/")
    dated = month.isascii() and month.isdigit() and year.isascii() and year.isdigit() and 1 <= int(month) <= 12
    return CardFacts(
        fingerprint=extra.identifier("alias") if extra.text("aliasType") == "Default" else "",
        network=(extra.text("paymentMethodVariant", 40) or brand).lower(),
        last4=extra.text("cardSummary", 4),
        exp_month=int(month) if dated else None,
        exp_year=int(year) if dated and len(year) == 4 else None,
        funding=(extra.text("fundingSource", 20) or extra.text("cardFunction", 20)).lower(),
        country=country_code(extra.text("issuerCountry", 60) or extra.text("cardIssuingCountry", 60)),
        bin=extra.text("issuerBin", 8) or extra.text("cardBin", 8),
        issuer=extra.text("cardIssuingBank", 100),
    )


def decline(extra: Node, reason: str, *, trusted: bool = True) -> DeclineFacts:
    """`reason` in Adyen's words. None of it is signed in a notification: `trusted` says whether a password vouches."""
    raw = extra.text("refusalReasonRaw") or extra.text("domesticRefusalReasonRaw") or _newest_answer(extra)
    advice = extra.text("realtimeAccountUpdaterStatus", 40)
    return DeclineFacts(
        raw_code=reason or extra.code("inferredRefusalReason") or extra.code("refusalReasonRaw"),
        network_code=leading_code(raw) or leading_code(extra.text("acquirerResponseCode", 10)),
        advice_code=leading_code(extra.text("merchantAdviceCode")),
        provider_advice=advice if advice.lower() in _CARD_GONE else "",
        message=extra.text("inferredRefusalReason") or raw or reason,
        sent_to_network=not reason.lower().startswith("validation"),
        trusted=trusted,
    )


def _newest_answer(extra: Node) -> str:
    """The network's answer to the last of the tries that Adyen made within one payment."""
    names = [f"retry.attempt{number}.rawResponse" for number in range(1, _TRIES + 1)]
    return next((told for name in reversed(names) if (told := extra.text(name))), "")
