"""How the simulator's cards behave: a pure, hash-seeded model of why a charge fails and when it works again.

A token is `tok_sim_<profile>__<suffix>`. `token_name` writes a suffix that holds the card's network and
funding and the minute of its first failure; any other suffix works too: its facts then come from a hash and
its trouble returns every CYCLE. Tokens with the sandbox's names (`tok_ok`, ...) do as they do there.

Calibration, held by tests (published: fixed schedules recover 47-57 %, 90 % of it within ten days): over the
decline mix of a mixed book tries on days 1, 3, 5 and 7 recover about 52 %, no schedule of retries alone more
than 65 %; low funds recover best, hard declines never.
"""

import hashlib
import math
import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import accumulate

from providers.base import CardFacts, DeclineFacts
from providers.sandbox.server.tokens import parse_token

CYCLE = timedelta(days=30)
_BASE_YEAR = 2028
NETWORKS = {"v": "visa", "m": "mastercard", "a": "amex", "d": "discover"}
FUNDINGS = {"c": "credit", "d": "debit"}

_NAME = re.compile(r"tok_sim_(?P<profile>[a-z]+)(?:__(?P<suffix>.*))?")
_SUFFIX = re.compile(r"(?P<network>[vmad])(?P<funding>[cd])-(?P<minute>[0-9a-z]{1,8})-(?P<serial>[0-9a-z]+)")
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True, slots=True)
class Profile:
    """One kind of trouble. `codes`: decline code, ISO 8583 code, weight.

    A share `clears` of the cards gets over it, after `dead_days` and an exponential time of mean `mean_days`;
    the others never approve. A card that will get over it approves a single charge with chance `before` while
    the trouble lasts and `after` when it is over. A share `returns` of the cards fails anew every CYCLE.
    `hidden_funds`: the share that is low funds in truth.
    """

    codes: Sequence[tuple[str, str, float]]
    clears: float = 0.0
    dead_days: float = 0.0
    mean_days: float = 0.0
    before: float = 0.0
    after: float = 0.0
    returns: float = 0.0
    hidden_funds: float = 0.0


PROFILES: Mapping[str, Profile] = {
    "funds": Profile(
        (("insufficient_funds", "51", 1.0),),
        clears=0.86, dead_days=0.6, mean_days=3.8, before=0.04, after=0.90, returns=0.35,
    ),
    # A temporary hold: velocity and withdrawal limits, an issuer that wants to be asked again.
    "flaky": Profile(
        (
            ("try_again_later", "", 0.4),
            ("card_velocity_exceeded", "65", 0.3),
            ("withdrawal_count_limit_exceeded", "65", 0.15),
            ("call_issuer", "01", 0.15),
        ),
        clears=0.78, dead_days=0.4, mean_days=3.2, before=0.05, after=0.88, returns=0.15,
    ),
    # Half of the unexplained refusals are low funds in truth.
    "generic": Profile(
        (("do_not_honor", "05", 0.75), ("generic_decline", "05", 0.25)),
        clears=0.42, dead_days=0.6, mean_days=4.0, before=0.05, after=0.65, returns=0.30, hidden_funds=0.5,
    ),
    "hard": Profile(
        (
            ("incorrect_number", "14", 0.55),
            ("transaction_not_allowed", "57", 0.20),
            ("restricted_card", "62", 0.10),
            ("account_closed", "14", 0.10),
            ("revocation_of_authorization", "R1", 0.05),
        ),
    ),
    "fraud": Profile((("stolen_card", "43", 0.45), ("lost_card", "41", 0.3), ("fraudulent", "59", 0.25))),
    # Works again once the network's account updater has re-dated the card.
    "expired": Profile(
        (("expired_card", "54", 1.0),), clears=0.6, dead_days=1.0, mean_days=4.0, after=0.96
    ),
    "auth": Profile((("authentication_required", "1A", 1.0),)),
    "outage": Profile(
        (
            ("issuer_not_available", "91", 0.5),
            ("processing_error", "96", 0.3),
            ("service_unavailable", "", 0.2),
        ),
        clears=1.0, dead_days=2 / 1440, mean_days=14 / 1440, after=0.97,
    ),
}  # fmt: skip

# Mastercard's advice codes that name a wait, in days; the advice fits the time the card will really need.
_WAITS = (("24", 1 / 24), ("25", 1.0), ("26", 2.0), ("27", 4.0), ("28", 6.0), ("29", 8.0), ("30", 10.0))
_FIXED_ADVICE = {
    "flaky": ("02", 0.5),
    "generic": ("02", 0.2),
    "hard": ("03", 0.6),
    "fraud": ("03", 0.7),
    "expired": ("01", 0.8),
}
_FUNDS_ADVICE_SHARE = 0.45


@dataclass(frozen=True, slots=True)
class Verdict:
    """The issuer's answer; `decline` is None exactly when it approved."""

    decline: DeclineFacts | None

    @property
    def approved(self) -> bool:
        return self.decline is None


@dataclass(frozen=True, slots=True)
class _Token:
    name: str
    profile: str
    network: str
    funding: str
    failed_at: datetime | None
    """First failure, or None where the name does not tell."""


def token_name(profile: str, *, network: str, funding: str, failed_at: datetime, serial: str) -> str:
    """A token whose trouble starts at `failed_at` (whole minutes); `serial`: small letters and digits."""
    if profile not in PROFILES:
        raise ValueError(f"Unknown profile {profile!r}; use one of {', '.join(PROFILES)}.")
    letters = {value: key for key, value in NETWORKS.items()}[network] + funding[0]
    return f"tok_sim_{profile}__{letters}-{_base36(int(failed_at.timestamp()) // 60)}-{serial}"


def is_random(token: str) -> bool:
    """True for a token of a known profile, False for a scripted or unknown name."""
    return _read(token) is not None


def decide(token: str, at: datetime, reference: str, declines_so_far: int = 0) -> Verdict:
    """The answer to one charge at `at`; `reference` tells tries of the same minute apart.

    `declines_so_far` counts earlier declines of this token, which `tok_decline_<code>_then_ok_<n>` waits for.
    """
    known = _read(token)
    if known is None:
        return _scripted(token, declines_so_far)
    profile = _true_profile(known)
    began, cycle = _episode(known, at)
    if at < began:
        return Verdict(None)
    clears = _clears(known, began, cycle)
    if clears is None:
        return Verdict(_decline(known, None))
    chance = profile.after if at >= clears else profile.before
    if _share(token, "try", reference, str(int(at.timestamp()) // 60)) < chance:
        return Verdict(None)
    return Verdict(_decline(known, clears - at if at < clears else None))


def usual_decline(token: str, at: datetime) -> DeclineFacts:
    """How a random token is refused at `at`, leaving luck aside; ValueError for other names."""
    known = _read(token)
    if known is None:
        raise ValueError("Only tokens of a known profile have a usual decline.")
    clears = _clears(known, *_episode(known, at))
    return _decline(known, clears - at if clears and at < clears else None)


def clears_at(token: str, at: datetime) -> datetime | None:
    """When the trouble that a token is in at `at` ends (or ended); None if it never does or has no model."""
    known = _read(token)
    return _clears(known, *_episode(known, at)) if known else None


def card_of(token: str, at: datetime) -> CardFacts:
    """What the provider knows at `at` of the card behind a token: an expired one may be re-dated."""
    known = _read(token)
    if known is None:
        scripted = parse_token(token).card
        return CardFacts(
            fingerprint=scripted.fingerprint,
            network=scripted.brand,
            last4=scripted.last4,
            exp_month=scripted.exp_month,
            exp_year=scripted.exp_year,
        )
    number = _number(token, "card")
    month, year = _expiry(known, at, number)
    return CardFacts(
        fingerprint=f"fp_{number:016x}",
        network=known.network,
        last4=f"{number % 10_000:04d}",
        exp_month=month,
        exp_year=year,
        funding=known.funding,
    )


def _scripted(token: str, declines_so_far: int) -> Verdict:
    name = parse_token(token)
    if name.decline is None or (name.times is not None and declines_so_far >= name.times):
        return Verdict(None)
    return Verdict(
        DeclineFacts(
            raw_code=name.decline.code,
            network_code=name.decline.network_code or "",
            advice_code=name.decline.advice_code or "",
        )
    )


def _true_profile(known: _Token) -> Profile:
    profile = PROFILES[known.profile]
    return PROFILES["funds"] if _share(known.name, "hidden") < profile.hidden_funds else profile


def _episode(known: _Token, at: datetime) -> tuple[datetime, int]:
    """Start and number of the trouble that `at` falls into; cards that do not relapse have one for good."""
    if known.failed_at is None:
        phase = timedelta(seconds=_share(known.name, "phase") * CYCLE.total_seconds())
        cycle = (at - datetime.fromtimestamp(0, UTC) - phase) // CYCLE
        return datetime.fromtimestamp(0, UTC) + phase + cycle * CYCLE, cycle
    relapses = _share(known.name, "relapse") < _true_profile(known).returns
    cycle = max((at - known.failed_at) // CYCLE, 0) if relapses else 0
    return known.failed_at + cycle * CYCLE, cycle


def _clears(known: _Token, began: datetime, cycle: int) -> datetime | None:
    profile = _true_profile(known)
    if _share(known.name, "clears", str(cycle)) >= profile.clears:
        return None
    waited = -math.log(1 - _share(known.name, "time", str(cycle))) * profile.mean_days
    clears = began + timedelta(days=profile.dead_days + waited)
    if profile is PROFILES["funds"] and _share(known.name, "payday", str(cycle)) < 0.5:
        payday = _next_payday(clears)
        return payday if payday - clears < timedelta(days=2) else clears
    return clears


def _next_payday(after: datetime) -> datetime:
    """The next 1st or 15th, six in the morning: a modest pull, for no measured payday effect is published."""
    for month in (after.replace(day=1), (after.replace(day=1) + timedelta(days=32)).replace(day=1)):
        for day in (1, 15):
            payday = month.replace(day=day, hour=6, minute=0, second=0, microsecond=0)
            if payday > after:
                return payday
    raise AssertionError("a month holds a payday")


def _decline(known: _Token, still: timedelta | None) -> DeclineFacts:
    """The refusal; `still` is how long the trouble will last, None if it is over or never ends."""
    codes = PROFILES[known.profile].codes
    ends = list(accumulate(weight for _, _, weight in codes))
    code, network_code, _ = codes[bisect_right(ends[:-1], _share(known.name, "code"))]
    return DeclineFacts(raw_code=code, network_code=network_code, advice_code=_advice(known, still))


def _advice(known: _Token, still: timedelta | None) -> str:
    if known.network != "mastercard":
        return ""
    share = _share(known.name, "advice")
    if known.profile == "funds":
        if share >= _FUNDS_ADVICE_SHARE or still is None:
            return ""
        days = still / timedelta(days=1)
        return next((code for code, wait in _WAITS if wait >= days), "30")
    code, told = _FIXED_ADVICE.get(known.profile, ("", 0.0))
    return code if share < told else ""


def _expiry(known: _Token, at: datetime, number: int) -> tuple[int, int]:
    if known.profile != "expired":
        base = known.failed_at.year if known.failed_at else _BASE_YEAR
        return number // 10_000 % 12 + 1, base + 2 + number // 120_000 % 4
    began, cycle = _episode(known, at)
    clears = _clears(known, began, cycle)
    month_before = began.replace(day=1) - timedelta(days=1)
    renewed = clears is not None and at >= clears
    return month_before.month, month_before.year + (4 if renewed else 0)


@lru_cache(maxsize=4096)
def _read(token: str) -> _Token | None:
    match = _NAME.fullmatch(token)
    if match is None or match["profile"] not in PROFILES:
        return None
    told = _SUFFIX.fullmatch(match["suffix"] or "")
    if told is None:
        network = ("visa", "visa", "mastercard", "amex")[_number(token, "network") % 4]
        funding = ("credit", "debit")[_number(token, "funding") % 2]
        return _Token(token, match["profile"], network, funding, None)
    failed_at = datetime.fromtimestamp(int(told["minute"], 36) * 60, UTC)
    return _Token(token, match["profile"], NETWORKS[told["network"]], FUNDINGS[told["funding"]], failed_at)


def _number(*parts: str) -> int:
    """64 bits that depend on the parts only: the same in every process."""
    return int.from_bytes(hashlib.blake2b("\0".join(parts).encode(), digest_size=8).digest())


def _share(*parts: str) -> float:
    """Evenly spread over 0..1, 1 excluded."""
    return (_number(*parts) >> 11) / 2**53


def _base36(number: int) -> str:
    text = ""
    while number:
        number, digit = divmod(number, 36)
        text = _DIGITS[digit] + text
    return text or "0"
