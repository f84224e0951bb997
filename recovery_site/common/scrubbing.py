"""Keep card numbers and secrets out of logs and stored payloads, by key name and by Luhn (DESIGN section 14).

Two errors are possible and both hurt: a card number that stays, and a provider's reference that goes. So
digit runs go only when they stand alone and pass Luhn, and key names by a closed list; `number` alone, which
providers use for invoices too, counts as a card's only beside or below something that says card.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Final, NamedTuple

FILTERED: Final = "[filtered]"
MAX_DEPTH: Final = 64

# Compared in lower case without separators, so cardNumber, card_number and card-number are one name.
_SECRET_NAMES: Final = frozenset(
    {
        "authorization", "ccnumber", "cookie", "creditcardnumber", "cvc", "cvc2", "cvn", "cvv", "cvv2",
        "iban", "pan", "passphrase", "passwd", "password", "pin", "pinblock", "primaryaccountnumber",
        "proxyauthorization", "pwd", "rawpan", "secret", "securitycode", "setcookie", "track1", "track2",
        "trackdata", "verificationvalue",
    }
)  # fmt: skip
_SECRET_ENDINGS: Final = (
    "apikey", "cardcvc", "cardcvv", "cardnumber", "cardpan", "encryptednumber", "encryptedsecuritycode",
    "password", "privatekey", "secret", "secretkey", "signingkey",
)  # fmt: skip
_CARD_CONTEXT: Final = ("card", "paymentmethod", "bank", "fundingsource")
_CARD_SIBLINGS: Final = frozenset(
    {"cvc", "cvv", "expmonth", "expyear", "expirationdate", "expirationmonth", "expirationyear", "expirydate",
     "expirymonth", "expiryyear", "securitycode", "verificationvalue"}
)  # fmt: skip
_NUMBER_NAMES: Final = frozenset({"number", "accountnumber"})
# Lengths and first digits of card numbers (ISO/IEC 7812 ranges of the networks): an invoice's own `number`, such as
# a year and month with a count, has others and stays.
_ISSUED: Final = re.compile(
    r"(?:4[0-9]{12,18}|5[0-9]{12,18}|6[0-9]{11,18}|3[0-9]{13,15}|2(?:2[2-9]|[3-6][0-9]|7[01])[0-9]{13})"
)
# Names under which a mapping is a thing of its own (such as a card authorisation), not a secret.
_OBJECT_NAMES: Final = frozenset({"authorization", "number", "pan", "accountnumber"})
# Adyen's payment references are bare 16-digit numbers, Visa's transaction ids have 15 digits: one in ten passes Luhn,
# losing one loses a payment. Billers and switches hand them on under names of their own.
_PROVIDER_REFERENCE: Final = re.compile(
    r"(?:.*pspreference|originalreference|networktransactionid|networktxreference|connectortransactionid|idatgateway)"
)
_TIME_NAME: Final = re.compile(r".*(?:at|time|timestamp|date|created|updated|modified|version|expires|until|ms)")
_EPOCH: Final = re.compile(r"1[0-9]{12}(?:[0-9]{3}){0,2}")

_NOT_LETTERS: Final = re.compile(r"[^a-z0-9]+")
# A run of 13 to 19 digits, or the groups printed on cards, found at every start by look-ahead. Joined to
# letters, to more digits or by a hyphen or dot to either, it is part of an id, a UUID or a decimal and stays.
_DIGITS: Final = re.compile(
    r"(?<![0-9A-Za-z_])(?<![0-9A-Za-z_][.\-])(?=("
    r"[0-9]{13,19}"
    r"|[0-9]{4}(?P<a>[ \-])[0-9]{4}(?P=a)[0-9]{4}(?P=a)[0-9]{1,4}(?:(?P=a)[0-9]{1,3})?"
    r"|[0-9]{4}(?P<b>[ \-])[0-9]{6}(?P=b)[0-9]{4,5}"
    r")(?![0-9A-Za-z_]|[.\-][0-9A-Za-z]))",
    re.ASCII,
)
# What every one of them begins with: one step per character tells the many texts without.
_MANY_DIGITS: Final = re.compile(r"[0-9][0-9 \-]{11}")
# No open-ended run stands before what is looked for: a text of a megabyte must not cost its square.
_NAMED_SECRET: Final = re.compile(
    r"""(?ix)
    (?: api[_\-]?key | password | secret (?:[_\-]?key)? | private[_\-]?key
      | (?<![a-z0-9]) (?: pwd | passwd | passphrase | cv[cv]2? | cvn | pan | card[_\-]?number
                        | security[_\-]?code | track[12] ) )
    ["']? \s* [:=] \s* ["']?
    (?P<value> [^\s"'&,;{}\[\]()<>]+ )
    """
)
_CREDENTIALS: Final = re.compile(r"(?i)\b(?:bearer|basic)\s+(?P<value>[A-Za-z0-9._~+/=\-]{6,})")
_KEYS: Final = re.compile(r"\b(?P<value>(?:sk|rk)_(?:live|test)_[0-9A-Za-z]+|whsec_[0-9A-Za-z+/=_\-]+)")
_ADDRESSES: Final = re.compile(r"[a-z][a-z0-9+.\-]{0,30}://[^\s/:@]*:(?P<value>[^\s/@]+)@")
_SHAPES: Final = (_NAMED_SECRET, _KEYS, _ADDRESSES, _CREDENTIALS)


def passes_luhn(digits: str) -> bool:
    """ISO/IEC 7812-1 check digit over a string of ASCII digits."""
    total = 0
    for position, digit in enumerate(reversed(digits)):
        value = int(digit)
        if position % 2:
            value = value * 2 - 9 if value > 4 else value * 2
        total += value
    return total % 10 == 0


def scrub_text(text: str) -> str:
    """`text` with card numbers, credentials and `name=value` secrets replaced by "[filtered]".

    Returns the same object when there is nothing to replace.
    """
    if not _suspicious(text):
        return text
    spans = [match.span("value") for shape in _SHAPES for match in shape.finditer(text)]
    spans += [match.span(1) for match in _DIGITS.finditer(text) if passes_luhn(re.sub(r"[ \-]", "", match[1]))]
    return _replace(text, spans) if spans else text


def _suspicious(text: str) -> bool:
    """Whether any of the shapes may be in it: most texts of a webhook are ids and words, there are hundreds, and
    looking for a word costs a fiftieth of a search by expression."""
    if ":" in text or "=" in text:  # a named secret, or one in an address
        return True
    if "_" in text and ("_live_" in text or "_test_" in text or "whsec_" in text):
        return True
    if len(text) < 12:
        return False
    if not text.isascii():  # beyond ASCII there are letters that count as equal to others without case
        return True
    low = text.lower()
    return "bearer" in low or "basic" in low or _MANY_DIGITS.search(text) is not None


def scrub(value: object) -> object:
    """A copy of a JSON-like structure without secrets; keys, order and everything harmless stay as they are.

    Never fails: what is nested deeper than MAX_DEPTH goes too, other types are returned unchanged.
    """
    return _scrub(value, _NO_KEY, card=False, depth=0)


def is_secret_name(name: str) -> bool:
    """True for key names whose value must never be kept, wherever they stand."""
    return _key(name).secret


def _replace(text: str, spans: list[tuple[int, int]]) -> str:
    parts, end = [], 0
    for start, stop in sorted(spans):
        if start >= end:
            parts += [text[end:start], FILTERED]
        end = max(end, stop)
    return "".join([*parts, text[end:]])


class _Key(NamedTuple):
    """What a key name says about its value; `shown` is the name as it is kept."""

    shown: str
    plain: str
    secret: bool
    number: bool
    reference: bool
    card: bool


@lru_cache(maxsize=4096)
def _key(name: str) -> _Key:
    """Webhooks of one provider have the same few hundred names, again and again."""
    plain = _NOT_LETTERS.sub("", name.lower())
    return _Key(
        shown=scrub_text(name),
        plain=plain,
        secret=plain in _SECRET_NAMES or plain.endswith(_SECRET_ENDINGS),
        number=plain in _NUMBER_NAMES,
        reference=_PROVIDER_REFERENCE.fullmatch(plain) is not None,
        card=any(word in plain for word in _CARD_CONTEXT),
    )


def _scrub(value: object, key: _Key, *, card: bool, depth: int) -> object:
    """`key` is what `value` stands under, `card` whether that is inside card data."""
    if depth > MAX_DEPTH:
        return FILTERED
    if isinstance(value, str):  # first, because most values are and the check for a mapping is dear
        if key.secret or (key.number and (card or _is_issued(value))):
            return FILTERED if value else value
        return value if key.reference else scrub_text(value)
    if isinstance(value, Mapping):
        return _scrub_mapping(value, key, card=card, depth=depth)
    if isinstance(value, list | tuple):
        items = [_scrub(item, key, card=card, depth=depth + 1) for item in value]
        return tuple(items) if isinstance(value, tuple) else items
    if value is None or isinstance(value, bool | float):
        return value
    if key.secret or (key.number and (card or _is_issued(value))):
        return FILTERED
    if isinstance(value, bytes | bytearray):
        return scrub_text(value.decode("utf-8", errors="replace"))
    if isinstance(value, int):
        return _scrub_integer(value, key.plain)
    return value


def _scrub_mapping(value: Mapping[object, object], key: _Key, *, card: bool, depth: int) -> dict[object, object] | str:
    if key.secret and key.plain not in _OBJECT_NAMES:
        return FILTERED
    keys = [_key(name) if isinstance(name, str) else _NO_KEY for name in value]
    inside = card or key.card
    beside = inside or not _CARD_SIBLINGS.isdisjoint([one.plain for one in keys])
    scrubbed: dict[object, object] = {}
    for one, (name, item) in zip(keys, value.items(), strict=True):
        # "number" in card data is the card's own; deeper down only when that level says card again.
        here = beside if one.number else False
        new_name = one.shown if isinstance(name, str) else name
        scrubbed[new_name] = _scrub(item, one, card=here, depth=depth + 1)
    return scrubbed


def _is_issued(value: object) -> bool:
    return _ISSUED.fullmatch(re.sub(r"[ \-]", "", str(value))) is not None


def _scrub_integer(value: int, name: str) -> object:
    if not 10**12 <= value < 10**19:
        return value
    digits = str(value)
    if _TIME_NAME.fullmatch(name) and _EPOCH.fullmatch(digits):
        return value  # milliseconds, microseconds or nanoseconds since 1970
    return FILTERED if passes_luhn(digits) else value


# What stands under no name at all: the whole, or a value whose key is no text.
_NO_KEY: Final = _key("")
