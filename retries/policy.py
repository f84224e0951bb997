"""Retry policies: a JSON document per merchant, versioned, that says per segment and category when to try
again.

The form is published as `policy.schema.json`; `presets/*.json` are the shipped documents. Pure: a document
in, frozen dataclasses out. A running case keeps the version it started with, so parsing an old document must
never change meaning.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import time, timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from retries.categories import Category, RetryClass
from retries.documents import FOLDER, DocumentError, Problem, pointer, schema_problems
from retries.segments import Segment, read_segments
from retries.timing import Fixed, QuietHours, Strategy, TimingError, build_strategy, duration_of, next_delay

SCHEMA = "policy.schema.json"
PRESETS = ("standard", "doubling", "high_value", "low_value")
DEFAULT_MAX_ATTEMPTS = 3
Path = tuple[str | int, ...]
NEVER = "never"
_WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_REPLACED = (
    "horizon",
    "grace",
    "final_action",
    "unknown_code",
    "quiet_hours",
    "messages",
    "alert_at_first_failure",
)
_MERGED = ("categories", "budgets")
# What a message step without categories is about; the payer never hears of fraud checks or of our own
# troubles.
PAYER_CATEGORIES = frozenset(
    {
        Category.HARD_DECLINE,
        Category.INSUFFICIENT_FUNDS,
        Category.SOFT_DECLINE,
        Category.AUTHENTICATION_REQUIRED,
    }
)


class PolicyError(DocumentError):
    """A policy document is not acceptable; `problems` names each field by JSON pointer."""

    code = "policy_invalid"


class FinalAction(StrEnum):
    """What happens to an invoice whose case ends without money."""

    LEAVE_OPEN = "leave_open"
    CANCEL = "cancel"
    WRITE_OFF = "write_off"
    WEBHOOK = "webhook"


class Trigger(StrEnum):
    """What set off a try; each has its own budget, all share the network's."""

    AUTOMATIC = "automatic"
    CARD_UPDATE = "card_update"
    STAFF = "staff"
    CUSTOMER = "customer"


class Audience(StrEnum):
    CUSTOMER = "customer"
    STAFF = "staff"


@dataclass(frozen=True, slots=True)
class CategoryStrategy:
    """How one category is tried again. `max_attempts` counts retries after the first failure, 0 is never."""

    category: Category
    name: str
    max_attempts: int
    delays: Strategy

    def delay(self, attempt_number: int, seed: str) -> timedelta | None:
        """Time from the failure to retry number `attempt_number` (from 1), None if there is none of that
        number."""
        if attempt_number > self.max_attempts:
            return None
        return next_delay(self.delays, attempt_number, seed)


# Stands where no retry is granted; `max_attempts` is 0 there, so nobody asks it for a delay.
_NO_DELAYS = Fixed((timedelta(),))


@dataclass(frozen=True, slots=True)
class MessageStep:
    """A message due `after` that long from the opening of the case, once so many automatic retries have
    failed."""

    after: timedelta
    template: str
    after_failed_retries: int
    audience: Audience
    categories: frozenset[Category]

    def concerns(self, category: Category, failed_retries: int) -> bool:
        """Whether a case of that category with so many failed automatic retries gets this message."""
        return category in self.categories and failed_retries >= self.after_failed_retries


@dataclass(frozen=True, slots=True)
class QuietRule:
    """Quiet hours in the customer's zone and what keeps them."""

    hours: QuietHours
    messages: bool
    retries: bool


@dataclass(frozen=True, slots=True)
class SegmentPolicy:
    """What holds for one segment. No automatic try later than `horizon` after the case opened; after `grace`
    the case gets its `final_action`. `budgets`: the most tries per trigger, None for no limit of ours.
    `alert_at_first_failure`: staff hear of the first failure at once."""

    strategies: Mapping[Category, CategoryStrategy]
    unknown_code: CategoryStrategy
    horizon: timedelta
    grace: timedelta
    final_action: FinalAction
    quiet: QuietRule | None
    messages: tuple[MessageStep, ...]
    budgets: Mapping[Trigger, int | None]
    alert_at_first_failure: bool


@dataclass(frozen=True, slots=True)
class Policy:
    """A parsed document. `segments` are its rules in order (see `segments.segment_of`), `by_segment` what
    holds for each of them, `default` what holds for everybody else."""

    name: str
    default: SegmentPolicy
    segments: tuple[Segment, ...] = ()
    by_segment: Mapping[str, SegmentPolicy] = field(default_factory=dict)

    def for_segment(self, segment: str) -> SegmentPolicy:
        """What holds for cases of that segment, the document's own values for one that it does not name."""
        return self.by_segment.get(segment, self.default)

    def alerts_at_first_failure(self, segment: str) -> bool:
        """Whether staff are told of the first failure of such a customer at once."""
        return self.for_segment(segment).alert_at_first_failure

    def strategy_for(
        self,
        segment: str,
        category: Category | str,
        known: bool = True,
        retry_class: RetryClass | None = None,
    ) -> CategoryStrategy:
        """The strategy for a failure of `category`, the one for unknown codes if only a default decided
        (`known`).

        A network error that the table says to retry *later* (an issuer that cannot be reached) is an outage,
        and spaced like one: three tries at once would be burnt before anybody is back.
        """
        chosen = self.for_segment(segment)
        if not known:
            return chosen.unknown_code
        if category == Category.NETWORK_ERROR and retry_class is RetryClass.LATER:
            return chosen.strategies[Category.SERVICE_UNAVAILABLE]
        return chosen.strategies[Category(category)]


def parse_policy(document: object, *, default_max_attempts: int = DEFAULT_MAX_ATTEMPTS) -> Policy:
    """Check and read a policy document.

    `default_max_attempts` (RETRY_MAX_ATTEMPTS) holds where a strategy sets none. Raises PolicyError.
    """
    if default_max_attempts < 1:
        raise ValueError("RETRY_MAX_ATTEMPTS must be at least 1.")
    problems = schema_problems(document, SCHEMA)
    if problems or not isinstance(document, Mapping):
        raise PolicyError(problems or [Problem("", "Give an object.")])
    reader = _Reader(default_max_attempts)
    default = reader.segment(document, {}, ())
    rows = document.get("segments", ())
    segments = read_segments(rows, ("segments",), reader.problems)
    by_segment = {row["name"]: reader.segment(document, row, ("segments", index)) for index, row in enumerate(rows)}
    if reader.problems:
        raise PolicyError(reader.problems)
    return Policy(document["name"], default, segments, MappingProxyType(by_segment))


def preset_document(name: str) -> dict[str, Any]:
    """A shipped document as it stands in its file. Raises PolicyError for another name."""
    if name not in PRESETS:
        raise PolicyError([Problem("", f"There is no preset {name!r}; use one of {', '.join(PRESETS)}.")])
    document: dict[str, Any] = json.loads((FOLDER / "presets" / f"{name}.json").read_text(encoding="utf-8"))
    return document


class _Reader:
    """Reads a document that fits the schema, noting what the schema cannot see."""

    def __init__(self, default_max_attempts: int) -> None:
        self.default_max_attempts = default_max_attempts
        self.problems: list[Problem] = []

    def segment(self, base: Mapping[str, Any], own: Mapping[str, Any], path: Path) -> SegmentPolicy:
        """The document's values with those of one segment laid over them."""
        merged = dict(base)
        merged.update({name: own[name] for name in _REPLACED if name in own})
        merged.update({name: {**base.get(name, {}), **own.get(name, {})} for name in _MERGED})

        def at(name: str) -> Path:
            return (*path, name) if name in own else (name,)

        horizon = self.duration(merged["horizon"], at("horizon"))
        grace = self.duration(merged["grace"], at("grace"))
        if grace < horizon:
            self.problem(at("grace"), "The grace period ends before the horizon; make it at least as long.")
        messages = self.messages(merged.get("messages", ()), at("messages"), grace)
        return SegmentPolicy(
            strategies=self.strategies(merged["categories"], base, own, path),
            unknown_code=self.strategy(Category.SOFT_DECLINE, merged["unknown_code"], at("unknown_code")),
            horizon=horizon,
            grace=grace,
            final_action=FinalAction(merged["final_action"]),
            quiet=self.quiet(merged.get("quiet_hours"), at("quiet_hours")),
            messages=messages,
            budgets=MappingProxyType({trigger: merged["budgets"].get(trigger.value) for trigger in Trigger}),
            alert_at_first_failure=merged.get("alert_at_first_failure", False),
        )

    def strategies(
        self,
        merged: Mapping[str, Any],
        base: Mapping[str, Any],
        own: Mapping[str, Any],
        path: Path,
    ) -> Mapping[Category, CategoryStrategy]:
        found = {}
        for category in Category:
            if category.value not in merged:
                self.problem(("categories", category.value), "This category is missing; add a strategy for it.")
                continue
            prefix = path if category.value in own.get("categories", {}) else ()
            where = (*prefix, "categories", category.value)
            found[category] = self.strategy(category, merged[category.value], where)
        return MappingProxyType(found)

    def strategy(self, category: Category, document: Mapping[str, Any], path: Path) -> CategoryStrategy:
        name = document["strategy"]
        if name == NEVER:
            return CategoryStrategy(category, NEVER, 0, _NO_DELAYS)
        parameters = {key: value for key, value in document.items() if key not in ("strategy", "max_attempts")}
        max_attempts = document.get("max_attempts", self.default_max_attempts)
        try:
            return CategoryStrategy(category, name, max_attempts, build_strategy(name, parameters))
        except TimingError as error:
            parts = error.field.split("/") if error.field else ["strategy"]
            self.problem((*path, *parts), str(error))
            return CategoryStrategy(category, name, 0, _NO_DELAYS)

    def messages(self, documents: Sequence[Mapping[str, Any]], path: Path, grace: timedelta) -> tuple[MessageStep, ...]:
        steps = []
        for index, document in enumerate(documents):
            audience = Audience(document.get("audience", Audience.CUSTOMER))
            usual = PAYER_CATEGORIES if audience is Audience.CUSTOMER else frozenset(Category)
            named = frozenset(Category(name) for name in document.get("categories", ()))
            after = self.duration(document["after"], (*path, index, "after"))
            if after > grace:
                self.problem(
                    (*path, index, "after"),
                    "This lies after the grace period, so it is never sent; shorten it.",
                )
            retries = document.get("after_failed_retries", 0)
            steps.append(MessageStep(after, document["template"], retries, audience, named or usual))
        return tuple(steps)

    def quiet(self, document: Mapping[str, Any] | None, path: Path) -> QuietRule | None:
        if document is None:
            return None
        applies_to = document.get("applies_to", ("messages",))
        days = document.get("weekdays", _WEEKDAYS)
        start, end = (time.fromisoformat(document[name]) if name in document else None for name in ("start", "end"))
        try:
            hours = QuietHours(start, end, frozenset(_WEEKDAYS.index(day) for day in days))
        except TimingError as error:
            self.problem((*path, error.field), str(error))
            return None
        return QuietRule(hours, messages="messages" in applies_to, retries="retries" in applies_to)

    def duration(self, text: str, path: Path) -> timedelta:
        try:
            return duration_of(text, "")
        except TimingError as error:
            self.problem(path, str(error))
            return timedelta()

    def problem(self, path: Path, message: str) -> None:
        found = Problem(pointer(path), message)
        if found not in self.problems:
            self.problems.append(found)
