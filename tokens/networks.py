"""Names of card and bank networks, and the many ways in which providers spell them."""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

CARD_NETWORKS = (
    "visa",
    "mastercard",
    "maestro",
    "amex",
    "discover",
    "diners",
    "jcb",
    "unionpay",
    "elo",
)
BANK_NETWORKS = ("ach", "sepa", "bacs")
UNKNOWN = "unknown"
NETWORKS = (*CARD_NETWORKS, *BANK_NETWORKS, UNKNOWN)
# As people read them.
NETWORK_NAMES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "visa": "Visa",
        "mastercard": "Mastercard",
        "maestro": "Maestro",
        "amex": "American Express",
        "discover": "Discover",
        "diners": "Diners Club",
        "jcb": "JCB",
        "unionpay": "UnionPay",
        "elo": "Elo",
        "ach": "ACH",
        "sepa": "SEPA",
        "bacs": "Bacs",
    }
)

_ALIASES = {
    "visa": "visa",
    "vi": "visa",
    "visadebit": "visa",
    "visacredit": "visa",
    "visaelectron": "visa",
    "electron": "visa",
    "vpay": "visa",
    "visastandarddebit": "visa",
    "visastandardcredit": "visa",
    "mastercard": "mastercard",
    "mc": "mastercard",
    "mcdebit": "mastercard",
    "mccredit": "mastercard",
    "mastercarddebit": "mastercard",
    "mastercardcredit": "mastercard",
    "eurocard": "mastercard",
    "maestro": "maestro",
    "ukmaestro": "maestro",
    "maestrouk": "maestro",
    "switch": "maestro",
    "solo": "maestro",
    "amex": "amex",
    "americanexpress": "amex",
    "ax": "amex",
    "discover": "discover",
    "discovercard": "discover",
    "diners": "diners",
    "dinersclub": "diners",
    "dinersclubinternational": "diners",
    "jcb": "jcb",
    "unionpay": "unionpay",
    "chinaunionpay": "unionpay",
    "cup": "unionpay",
    "elo": "elo",
    "elodebit": "elo",
    "elocredit": "elo",
    "ach": "ach",
    "achdebit": "ach",
    "achdirectdebit": "ach",
    "usbankaccount": "ach",
    "echeck": "ach",
    "sepa": "sepa",
    "sepadebit": "sepa",
    "sepadirectdebit": "sepa",
    "sepacore": "sepa",
    "bacs": "bacs",
    "bacsdebit": "bacs",
    "bacsdirectdebit": "bacs",
}
_NOISE = re.compile(r"[^a-z0-9]+")


def normalise_network(name: str | None) -> str:
    """The name this project uses, or `unknown` for anything it has no rules for. Never raises."""
    return _ALIASES.get(_NOISE.sub("", (name or "").casefold()), UNKNOWN)
