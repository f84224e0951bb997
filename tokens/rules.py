"""The networks' retry rules: dated data from `network_rules.toml`, which apply, and stricter merchant limits.

Nothing here counts attempts; that is `tokens.budgets`.
"""

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

from tokens.networks import NETWORKS, normalise_network

DEFAULT_PATH = Path(__file__).parent / "network_rules.toml"
FORMAT = 1
VISA_LIMITS = (15, 20)
ALL_NETWORKS = "*"
FAR_FUTURE = datetime.max.replace(tzinfo=UTC)

MAX_RETRIES_PER_DAY = "max_retries_per_day"
MAX_RETRY_COUNT_FOR_THIRTY_DAY = "max_retry_count_for_thirty_day"
# What a merchant may limit even where the network has no rule of that name: more rules can only be stricter.
ADDABLE = {MAX_RETRIES_PER_DAY: timedelta(hours=24), MAX_RETRY_COUNT_FOR_THIRTY_DAY: timedelta(days=30)}


class RuleError(ValueError):
    """The rule data or a merchant's limit is not acceptable; the message says what to change."""


class WindowKind(StrEnum):
    ROLLING = "rolling"
    CALENDAR_MONTH = "calendar_month"


class Key(StrEnum):
    """What attempts are counted together: of one card, of one card with one amount and currency, of one
    invoice."""

    CARD = "card"
    CARD_AMOUNT = "card_amount"
    INVOICE = "invoice"


class Counts(StrEnum):
    DECLINES = "declines"
    ALL = "all"


Word = TypeVar("Word", bound=StrEnum)


@dataclass(frozen=True, slots=True)
class Rule:
    """At most `limit` counted attempts within the window. `valid_from` inclusive, `valid_to` exclusive, None
    = open."""

    network: str
    name: str
    window_kind: WindowKind
    window: timedelta | None
    limit: int
    key: Key
    counts: Counts
    valid_from: datetime | None
    valid_to: datetime | None
    source: str
    variant: str = ""

    def active_at(self, at: datetime) -> bool:
        return (self.valid_from is None or self.valid_from <= at) and (self.valid_to is None or at < self.valid_to)

    def leaves_at(self, attempt_at: datetime) -> datetime:
        """The first instant at which an attempt made at `attempt_at` is no longer in the window.

        Never decreases when `attempt_at` grows, on which `tokens.budgets` relies.
        """
        try:
            if self.window is not None:
                return attempt_at.astimezone(UTC) + self.window
            start = attempt_at.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
            year, month = (start.year, start.month + 1) if start.month < 12 else (start.year + 1, 1)
            return start.replace(year=year, month=month)
        except (OverflowError, ValueError):
            return FAR_FUTURE  # a clock that claims the year 9999 blocks, it does not crash

    @property
    def window_text(self) -> str:
        """`30 days`, `24 hours` or `calendar month (UTC)`, for people."""
        if self.window is None:
            return "calendar month (UTC)"
        hours = self.window // timedelta(hours=1)
        return f"{hours // 24} days" if hours % 24 == 0 and hours > 24 else f"{hours} hours"

    def __str__(self) -> str:
        return f"{self.network} {self.name}: {self.limit} per {self.window_text} and {self.key}"


@dataclass(frozen=True, slots=True)
class RuleOverride:
    """A merchant's own, stricter limit for one rule name of one network, or of all of them (`*`)."""

    network: str
    name: str
    limit: int


@dataclass(frozen=True, slots=True)
class RuleBook:
    """All rules of all networks and dates."""

    rules: tuple[Rule, ...]

    def for_network(
        self, network: str, *, visa_limit: int = 15, overrides: Sequence[RuleOverride] = ()
    ) -> tuple[Rule, ...]:
        """The network's rules of every date, with the merchant's limits applied: what a search through time
        needs.

        An unknown network gets the cautious rules kept for it. A stored override that a newer rule made too
        loose is silently held to the network's figure, so that charging goes on within the rule; `active` and
        `check_override` refuse it. Raises RuleError if `visa_limit` is neither 15 nor 20, or an override is
        below 1.
        """
        if visa_limit not in VISA_LIMITS:
            raise RuleError(f"The Visa limit is {visa_limit}; set it to 15 or 20.")
        name = normalise_network(network)
        rules = [rule for rule in self.rules if rule.network == name and rule.variant in ("", str(visa_limit))]
        for override in overrides:
            if _concerns(override, name):
                rules = _tightened(rules, name, override)
        return tuple(rules)

    def active(
        self,
        network: str,
        at: datetime,
        *,
        visa_limit: int = 15,
        overrides: Sequence[RuleOverride] = (),
    ) -> tuple[Rule, ...]:
        """The rules that hold for the network at `at` (aware).

        Raises RuleError if an override for this network is looser than the rule it names or names none.
        """
        require_aware(at, "at")
        for override in overrides:
            if _concerns(override, normalise_network(network)):
                self.check_override(override, at, visa_limit=visa_limit)
        rules = self.for_network(network, visa_limit=visa_limit, overrides=overrides)
        return tuple(rule for rule in rules if rule.active_at(at))

    def check_override(self, override: RuleOverride, at: datetime, *, visa_limit: int = 15) -> None:
        """Refuse a merchant's limit that is looser than the rule in force at `at`. Raises RuleError.

        A limit for all networks (`*`) lowers what is higher and leaves the rest alone, so it is never too
        loose.
        """
        _check_limit(override)
        if override.network == ALL_NETWORKS:
            known = override.name in ADDABLE or any(rule.name == override.name for rule in self.rules)
        else:
            rules = self.active(override.network, at, visa_limit=visa_limit)
            limits = [rule.limit for rule in rules if rule.name == override.name]
            known = override.name in ADDABLE or bool(limits)
            if limits and override.limit > min(limits):
                raise RuleError(
                    f"The limit {override.name} = {override.limit} for {override.network} is looser than the "
                    f"network's {min(limits)}; give {min(limits)} or less."
                )
        if not known:
            raise RuleError(
                f"{override.network} has no rule {override.name!r} to make stricter; "
                f"use {MAX_RETRIES_PER_DAY} or {MAX_RETRY_COUNT_FOR_THIRTY_DAY}."
            )


def overrides_from_mapping(document: Mapping[str, Mapping[str, int]]) -> tuple[RuleOverride, ...]:
    """Read `{"mastercard": {"max_retries_per_day": 5}}` as settings write it. Raises RuleError."""
    overrides = []
    for network, limits in document.items():
        if network != ALL_NETWORKS and network not in NETWORKS:
            raise RuleError(f"Unknown network {network!r} in the limits; use one of {', '.join(NETWORKS)} or *.")
        for name, limit in limits.items():
            if isinstance(limit, bool) or not isinstance(limit, int):
                raise RuleError(f"The limit {name} for {network} is {limit!r}; write a whole number.")
            override = RuleOverride(network, name, limit)
            _check_limit(override)
            overrides.append(override)
    return tuple(overrides)


@cache
def load_rules(path: Path = DEFAULT_PATH) -> RuleBook:
    """Read and check the rule file once. Raises RuleError with the place of the first mistake."""
    rules = tuple(rule for index, row in enumerate(read_document(path)["rule"]) for rule in _parse_rule(row, index))
    for network in NETWORKS:
        _check_network(network, [rule for rule in rules if rule.network == network])
    return RuleBook(rules)


def read_document(path: Path) -> dict[str, list[dict[str, Any]]]:
    """The raw tables `rule` and `advice` of a rule file. Raises RuleError if it is not one."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RuleError(f"The network rules cannot be read from {path.name}: {error.strerror}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RuleError(f"{path.name} is no valid TOML: {error}.") from None
    if document.get("format") != FORMAT:
        raise RuleError(f"{path.name} must say format = {FORMAT}.")
    unknown = document.keys() - {"format", "rule", "advice"}
    tables = {name: document.get(name, []) for name in ("rule", "advice")}
    if unknown or not all(isinstance(rows, list) for rows in tables.values()):
        raise RuleError(f"{path.name} may hold only format, [[rule]] and [[advice]].")
    return tables


def require_aware(at: datetime, name: str) -> None:
    """Raise ValueError for a datetime without a time zone: it would be compared in nobody knows which one."""
    if at.tzinfo is None:
        raise ValueError(f"{name} has no time zone; pass an aware UTC datetime.")


def field(row: Mapping[str, Any], name: str, kind: type, where: str) -> Any:
    """`row[name]` if it has the right type. Raises RuleError naming the place otherwise."""
    value = row.get(name)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise RuleError(f"{where}: {name} is {value!r}; give it as {kind.__name__}.")
    return value


def word(kind: type[Word], row: Mapping[str, Any], name: str, where: str) -> Word:
    """`row[name]` as a member of `kind`. Raises RuleError listing the choices otherwise."""
    text = field(row, name, str, where)
    try:
        return kind(text)
    except ValueError:
        raise RuleError(f"{where}: {name} is {text!r}; use one of {', '.join(kind)}.") from None


def networks_of(row: Mapping[str, Any], where: str) -> list[str]:
    """The `networks` of a row, each one known. Raises RuleError."""
    networks: list[str] = field(row, "networks", list, where)
    if not networks or any(name not in NETWORKS for name in networks):
        raise RuleError(f"{where}: networks is {networks!r}; use some of {', '.join(NETWORKS)}.")
    return networks


_RULE_FIELDS = frozenset(
    {"networks", "name", "window", "hours", "days", "limit", "key", "counts"}
    | {"variant", "valid_from", "valid_to", "source"}
)


def _parse_rule(row: Mapping[str, Any], index: int) -> list[Rule]:
    where = f"rule {index + 1}"
    if unknown := row.keys() - _RULE_FIELDS:
        raise RuleError(f"{where}: unknown field {min(unknown)!r}; use {', '.join(sorted(_RULE_FIELDS))}.")
    window_kind = word(WindowKind, row, "window", where)
    limit = field(row, "limit", int, where)
    valid_from, valid_to = _start_of(row, "valid_from", where), _start_of(row, "valid_to", where)
    if limit < 1:
        raise RuleError(f"{where}: limit is {limit}; at least one attempt must be allowed.")
    if valid_from is not None and valid_to is not None and valid_from >= valid_to:
        raise RuleError(f"{where}: valid_from must lie before valid_to.")
    if not field(row, "source", str, where).strip() or not field(row, "name", str, where).isidentifier():
        raise RuleError(f"{where}: give a name of letters and underscores and the source of the rule.")
    return [
        Rule(
            network=network,
            name=row["name"],
            window_kind=window_kind,
            window=_window(row, window_kind, where),
            limit=limit,
            key=word(Key, row, "key", where),
            counts=word(Counts, row, "counts", where),
            valid_from=valid_from,
            valid_to=valid_to,
            source=row["source"],
            variant=field(row, "variant", str, where) if "variant" in row else "",
        )
        for network in networks_of(row, where)
    ]


def _window(row: Mapping[str, Any], kind: WindowKind, where: str) -> timedelta | None:
    lengths = [name for name in ("hours", "days") if name in row]
    if kind is WindowKind.CALENDAR_MONTH:
        if lengths:
            raise RuleError(f"{where}: a calendar month has no {lengths[0]}.")
        return None
    if len(lengths) != 1 or field(row, lengths[0], int, where) < 1:
        raise RuleError(f"{where}: a rolling window needs either hours or days, at least 1.")
    return timedelta(**{lengths[0]: row[lengths[0]]})


def _start_of(row: Mapping[str, Any], name: str, where: str) -> datetime | None:
    value = row.get(name)
    if value is None:
        return None
    if isinstance(value, datetime) or not isinstance(value, date):
        raise RuleError(f"{where}: {name} is {value!r}; write a date such as 2025-05-19.")
    return datetime.combine(value, time(), UTC)


def _check_network(network: str, rules: Sequence[Rule]) -> None:
    """At every date a network has a rule, and one version of each."""
    variants = {rule.variant for rule in rules if rule.variant} or {""}
    for variant in variants:
        chosen = [rule for rule in rules if rule.variant in ("", variant)]
        if _gap(chosen):
            raise RuleError(f"The rules of {network} leave a time without any rule; close the gap between their dates.")
        for name in {rule.name for rule in chosen}:
            spans = sorted(_span(rule) for rule in chosen if rule.name == name)
            if any(earlier[1] > later[0] for earlier, later in pairwise(spans)):
                raise RuleError(f"{name} of {network} has two versions at one time; let one end where the next starts.")


def _span(rule: Rule) -> tuple[datetime, datetime]:
    return rule.valid_from or datetime.min.replace(tzinfo=UTC), rule.valid_to or FAR_FUTURE


def _gap(rules: Iterable[Rule]) -> bool:
    covered = datetime.min.replace(tzinfo=UTC)
    for start, end in sorted(_span(rule) for rule in rules):
        if start > covered:
            return True
        covered = max(covered, end)
    return covered < FAR_FUTURE


def _concerns(override: RuleOverride, network: str) -> bool:
    return override.network == ALL_NETWORKS or normalise_network(override.network) == network


def _tightened(rules: Sequence[Rule], network: str, override: RuleOverride) -> list[Rule]:
    _check_limit(override)
    lowered = [
        replace(rule, limit=min(rule.limit, override.limit)) if rule.name == override.name else rule for rule in rules
    ]
    if override.name in ADDABLE and all(rule.name != override.name for rule in rules):
        lowered.append(_own_rule(network, override))
    return lowered


def _own_rule(network: str, override: RuleOverride) -> Rule:
    return Rule(
        network=network,
        name=override.name,
        window_kind=WindowKind.ROLLING,
        window=ADDABLE[override.name],
        limit=override.limit,
        key=Key.CARD,
        counts=Counts.DECLINES,
        valid_from=None,
        valid_to=None,
        source="Limit set by the merchant",
    )


def _check_limit(override: RuleOverride) -> None:
    if override.limit < 1:
        raise RuleError(f"The limit {override.name} for {override.network} is {override.limit}; give at least 1.")
