"""Invented customers and plans for the demo. Every address is at example.com or example.org."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random


@dataclass(frozen=True, slots=True)
class Place:
    """`weight` is the share of a merchant's customers, in per cent."""

    country: str
    locale: str
    currency: str
    zones: Sequence[str]
    first_names: Sequence[str]
    last_names: Sequence[str]
    weight: float


@dataclass(frozen=True, slots=True)
class Person:
    id: str
    name: str
    email: str
    place: Place
    timezone: str

    def body(self) -> dict[str, str]:
        """As the generic format's `customer`."""
        return {
            "id": self.id,
            "name": self.name,
            "email": self.email,
            "country": self.place.country,
            "timezone": self.timezone,
            "locale": self.place.locale,
        }


@dataclass(frozen=True, slots=True)
class Plan:
    """`amount` in minor units, the same figure in USD and EUR; `weight` is relative."""

    name: str
    amount: int
    interval: str
    weight: float


@dataclass(frozen=True, slots=True)
class Trade:
    """What kind of business a merchant is; `credit_share` by Recurly's card split for B2B and B2C."""

    plans: Sequence[Plan]
    credit_share: float
    companies: bool


_ENGLISH = (
    "Olivia",
    "Liam",
    "Emma",
    "Noah",
    "Ava",
    "James",
    "Sophia",
    "Ethan",
    "Grace",
    "Daniel",
    "Maya",
    "Owen",
)
_SURNAMES = (
    "Carter",
    "Nguyen",
    "Brooks",
    "Patel",
    "Reed",
    "Flores",
    "Hayes",
    "Kim",
    "Bennett",
    "Ward",
    "Diaz",
    "Shaw",
)

PLACES: Sequence[Place] = (
    Place(
        "US",
        "en-US",
        "USD",
        ("America/New_York", "America/Chicago", "America/Denver", "America/Los_Angeles"),
        _ENGLISH,
        _SURNAMES,
        44,
    ),
    Place("CA", "en-CA", "USD", ("America/Toronto", "America/Vancouver"), _ENGLISH, _SURNAMES, 7),
    Place("GB", "en-GB", "USD", ("Europe/London",), _ENGLISH, ("Hughes", "Clarke", "Evans", "Khan", "Webb"), 10),
    Place(
        "DE",
        "de-DE",
        "EUR",
        ("Europe/Berlin",),
        ("Lena", "Jonas", "Mia", "Felix", "Hannah", "Lukas", "Aylin", "Paul"),
        ("Schmidt", "Weber", "Becker", "Yilmaz", "Hoffmann", "Koch", "Richter", "Krause"),
        15,
    ),
    Place(
        "FR",
        "fr-FR",
        "EUR",
        ("Europe/Paris",),
        ("Camille", "Hugo", "Jade", "Louis", "Chloe", "Nathan"),
        ("Martin", "Bernard", "Moreau", "Petit", "Garnier", "Roux"),
        10,
    ),
    Place(
        "ES",
        "es-ES",
        "EUR",
        ("Europe/Madrid", "Atlantic/Canary"),
        ("Lucia", "Mateo", "Martina", "Pablo", "Carmen", "Diego"),
        ("Garcia", "Navarro", "Torres", "Romero", "Vega", "Castro"),
        8,
    ),
    Place(
        "NL",
        "nl-NL",
        "EUR",
        ("Europe/Amsterdam",),
        ("Sanne", "Daan", "Fleur", "Bram"),
        ("de Vries", "Bakker", "Visser", "Smit"),
        6,
    ),
)

TRADES: Sequence[Trade] = (
    Trade(
        (
            Plan("Starter", 29_00, "month", 40),
            Plan("Team", 99_00, "month", 30),
            Plan("Business", 249_00, "month", 17),
            Plan("Scale", 990_00, "month", 5),
            Plan("Team yearly", 990_00, "year", 6),
            Plan("Business yearly", 2490_00, "year", 2),
        ),
        credit_share=0.65,
        companies=True,
    ),
    Trade(
        (
            Plan("Basic", 7_99, "month", 38),
            Plan("Plus", 12_99, "month", 34),
            Plan("Family", 19_99, "month", 20),
            Plan("Plus yearly", 119_00, "year", 8),
        ),
        credit_share=0.53,
        companies=False,
    ),
)
_COMPANIES = ("Studio", "Labs", "Works", "Foods", "Logistics", "Media", "Dental", "Design")

# Share of declines by reason, credit and debit (Recurly, 836 merchants, 2014-2016), as the issuer's profiles.
# "Other" is spread over what the study does not name: expired cards, authentication, outages.
DECLINE_MIX: Mapping[str, Mapping[str, float]] = {
    "credit": {
        "generic": 51.74,
        "flaky": 25.48,
        "funds": 6.94,
        "fraud": 5.15,
        "hard": 1.67 + 1.51,
        "expired": 2.80,
        "auth": 1.60,
        "outage": 1.91,
    },
    "debit": {
        "generic": 37.77,
        "flaky": 10.05,
        "funds": 28.99,
        "fraud": 6.03,
        "hard": 8.32 + 1.51,
        "expired": 2.10,
        "auth": 1.20,
        "outage": 1.33,
    },
}
NETWORK_MIX: Mapping[str, float] = {"visa": 55, "mastercard": 32, "amex": 9, "discover": 4}


def person(rng: Random, trade: Trade) -> Person:
    """A customer of this trade."""
    place = rng.choices(PLACES, [place.weight for place in PLACES])[0]
    first, last = rng.choice(place.first_names), rng.choice(place.last_names)
    serial = f"{rng.getrandbits(48):012x}"
    host = "example.com" if rng.random() < 0.7 else "example.org"
    mailbox = f"{first}.{last}.{serial[:4]}".lower().replace(" ", "")
    name = f"{last} {rng.choice(_COMPANIES)}" if trade.companies and rng.random() < 0.6 else f"{first} {last}"
    return Person(f"cus_{serial}", name, f"{mailbox}@{host}", place, rng.choice(place.zones))


def plan(rng: Random, trade: Trade) -> Plan:
    return rng.choices(trade.plans, [plan.weight for plan in trade.plans])[0]


def card_kind(rng: Random, trade: Trade, place: Place) -> tuple[str, str]:
    """Network and funding of a customer's card; Discover is an American card."""
    funding = "credit" if rng.random() < trade.credit_share else "debit"
    network = rng.choices(list(NETWORK_MIX), list(NETWORK_MIX.values()))[0]
    if (network == "discover" and place.country != "US") or (network == "amex" and funding == "debit"):
        network = "visa"
    return network, funding


def trouble(rng: Random, funding: str) -> str:
    """The issuer profile of a card whose renewal fails."""
    mix = DECLINE_MIX[funding]
    return rng.choices(list(mix), list(mix.values()))[0]
