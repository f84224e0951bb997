"""Token names: a name alone says how its charges end and which card stands behind it."""

import hashlib
import re
from dataclasses import dataclass
from enum import StrEnum

from providers.sandbox.server.steps import Decline, decline_for

# Real decline codes contain "_card_<word>" with these; there the word is part of the code, not a shared card.
_WORDS_AFTER_CARD = frozenset({"number", "chargeback"})
_SHARED_CARD = re.compile(r"(?P<rest>.+)_card_(?P<card>[A-Za-z0-9-]+)")
_SUFFIX_CARD = re.compile(r"(?:^|_)card_(?P<card>[A-Za-z0-9-]+)")
_MASTERCARD = re.compile(r"_mc(?=_|$)")
_DECLINE = re.compile(r"tok_decline_(?P<code>.+?)(?:_then_ok_(?P<times>[0-9]{1,9}))?")


class Behaviour(StrEnum):
    OK = "ok"
    DECLINE = "decline"


@dataclass(frozen=True, slots=True)
class Card:
    """What a provider tells about a stored card; `fingerprint` is equal for tokens of the same card."""

    brand: str
    last4: str
    fingerprint: str
    exp_month: int
    exp_year: int


@dataclass(frozen=True, slots=True)
class TokenName:
    """A token name taken apart. `times` is how often it declines before it succeeds; None means always."""

    base: str
    behaviour: Behaviour
    decline: Decline | None
    times: int | None
    card: Card


def parse_token(name: str) -> TokenName:
    """Take a token name apart; a name of no known shape declines with `invalid_token`."""
    base, _, suffix = name.partition("__")
    plain, shared = _without_markers(base)
    if shared is None and (match := _SUFFIX_CARD.search(suffix)):
        shared = match["card"]
    card = _card("mastercard" if _MASTERCARD.search(name) else "visa", name, shared)
    if plain == "tok_ok":
        return TokenName(base, Behaviour.OK, None, None, card)
    if match := _DECLINE.fullmatch(plain):
        times = int(match["times"]) if match["times"] is not None else None
        return TokenName(base, Behaviour.DECLINE, decline_for(match["code"]), times, card)
    return TokenName(base, Behaviour.DECLINE, decline_for("invalid_token"), None, card)


def _without_markers(base: str) -> tuple[str, str | None]:
    """`base` without trailing `_mc` and `_card_<x>`, in any order, and the x."""
    shared: str | None = None
    while True:
        match = _SHARED_CARD.fullmatch(base)
        if base.endswith("_mc"):
            base = base.removesuffix("_mc")
        elif match and shared is None and match["rest"] != "tok_decline" and match["card"] not in _WORDS_AFTER_CARD:
            base, shared = match["rest"], match["card"]
        else:
            return base, shared


def _card(brand: str, name: str, shared: str | None) -> Card:
    seed = hashlib.sha256((shared if shared is not None else f"token {name}").encode()).digest()
    number = int.from_bytes(seed[:8])
    return Card(
        brand=brand,
        last4=f"{number % 10_000:04d}",
        fingerprint=f"fp_{shared}" if shared is not None else f"fp_{seed.hex()[:16]}",
        exp_month=number // 10_000 % 12 + 1,
        exp_year=2032 + number // 120_000 % 6,
    )
