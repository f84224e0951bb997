"""Which segment a customer's case belongs to: JSON rules over facts, first match wins.

A condition is `{"field", "op", "value"}`, `{"all": [...]}`, `{"any": [...]}` or `{"not": ...}`. A fact that
is not known makes a comparison neither true nor false, so neither it nor its negation matches (three-valued
logic).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from retries.documents import Problem, pointer

STANDARD = "standard"
DEEPEST = 10
_NUMBERS = frozenset(
    {
        "amount_minor",
        "lifetime_value_minor",
        "tenure_days",
        "settled_invoices",
        "invoices",
        "failed_cases",
        "recovered_cases",
    }
)
_TEXTS = frozenset({"country", "currency"})
_NUMBER_OPS = frozenset({"<", "<=", ">", ">=", "==", "!=", "in", "not_in"})
_TEXT_OPS = frozenset({"==", "!=", "in", "not_in"})


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentFacts:
    """What is known of a case's customer and invoice; None where it is not.

    Amounts in minor units of the invoice's `currency` (ISO 4217), `tenure_days` in whole days since the
    customer was first seen, `country` as ISO 3166 alpha-2; counts are of this customer, `settled_invoices`
    the paid ones.
    """

    amount_minor: int | None = None
    lifetime_value_minor: int | None = None
    currency: str | None = None
    tenure_days: int | None = None
    country: str | None = None
    settled_invoices: int | None = None
    invoices: int | None = None
    failed_cases: int | None = None
    recovered_cases: int | None = None


@dataclass(frozen=True, slots=True)
class Comparison:
    field: str
    op: str
    value: int | str | frozenset[int | str]

    def holds(self, facts: SegmentFacts) -> bool | None:
        """True or false, None if the fact is not known."""
        fact: int | str | None = getattr(facts, self.field)
        if isinstance(fact, str):
            fact = fact.upper() or None
        if fact is None:
            return None
        if isinstance(self.value, frozenset):
            return (fact in self.value) == (self.op == "in")
        if self.op in ("==", "!="):
            return (fact == self.value) == (self.op == "==")
        if not isinstance(fact, int) or not isinstance(self.value, int):
            return None
        return {
            "<": fact < self.value,
            "<=": fact <= self.value,
            ">": fact > self.value,
            ">=": fact >= self.value,
        }[self.op]


@dataclass(frozen=True, slots=True)
class AllOf:
    parts: tuple["Condition", ...]

    def holds(self, facts: SegmentFacts) -> bool | None:
        answers = [part.holds(facts) for part in self.parts]
        if False in answers:
            return False
        return None if None in answers else True


@dataclass(frozen=True, slots=True)
class AnyOf:
    parts: tuple["Condition", ...]

    def holds(self, facts: SegmentFacts) -> bool | None:
        answers = [part.holds(facts) for part in self.parts]
        if True in answers:
            return True
        return None if None in answers else False


@dataclass(frozen=True, slots=True)
class Not:
    part: "Condition"

    def holds(self, facts: SegmentFacts) -> bool | None:
        answer = self.part.holds(facts)
        return None if answer is None else not answer


Condition = Comparison | AllOf | AnyOf | Not


@dataclass(frozen=True, slots=True)
class Segment:
    """A name and the condition under which a case belongs to it."""

    name: str
    when: Condition


def segment_of(segments: Sequence[Segment], facts: SegmentFacts) -> str:
    """The name of the first segment whose condition holds for certain, `standard` if none does."""
    return next((segment.name for segment in segments if segment.when.holds(facts) is True), STANDARD)


def read_segments(
    rows: Sequence[Mapping[str, Any]], path: Sequence[str | int], problems: list[Problem]
) -> tuple[Segment, ...]:
    """Read a list of objects with `name` and `when`; what is wrong is added to `problems` with its JSON
    pointer."""
    segments: list[Segment] = []
    for index, row in enumerate(rows):
        here = [*path, index]
        if row["name"] == STANDARD:
            text = "This name is for everybody else; change the document's own values instead."
            problems.append(Problem(pointer([*here, "name"]), text))
        if row["name"] in [segment.name for segment in segments]:
            problems.append(Problem(pointer([*here, "name"]), "There is a segment of this name above; rename one."))
        segments.append(Segment(row["name"], read_condition(row["when"], [*here, "when"], problems)))
    return tuple(segments)


_NOTHING = AllOf(())


def read_condition(document: object, path: Sequence[str | int], problems: list[Problem], depth: int = 0) -> Condition:
    """Read one condition; what is wrong is added to `problems`, and something that always holds stands in for
    it."""
    if depth >= DEEPEST:
        problems.append(Problem(pointer(path), f"Conditions are nested more than {DEEPEST} deep; flatten them."))
        return _NOTHING
    if not isinstance(document, Mapping):
        problems.append(
            Problem(pointer(path), "A condition is an object with field, op and value, or all, any or not.")
        )
        return _NOTHING
    keys = set(document)
    if keys in ({"all"}, {"any"}):
        (word,) = keys
        parts = document[word]
        if not isinstance(parts, list) or not parts:
            problems.append(Problem(pointer([*path, word]), "Give a list of at least one condition."))
            return _NOTHING
        conditions = tuple(
            read_condition(part, [*path, word, index], problems, depth + 1) for index, part in enumerate(parts)
        )
        return AllOf(conditions) if word == "all" else AnyOf(conditions)
    if keys == {"not"}:
        return Not(read_condition(document["not"], [*path, "not"], problems, depth + 1))
    if keys == {"field", "op", "value"}:
        return _read_comparison(document, path, problems)
    problems.append(Problem(pointer(path), "A condition has field, op and value, or one of all, any and not."))
    return _NOTHING


def _read_comparison(document: Mapping[str, Any], path: Sequence[str | int], problems: list[Problem]) -> Condition:
    name, op, value = document["field"], document["op"], document["value"]
    if not isinstance(name, str) or name not in _NUMBERS | _TEXTS:
        choices = ", ".join(sorted(_NUMBERS | _TEXTS))
        problems.append(Problem(pointer([*path, "field"]), f"There is no fact {name!r}; use one of {choices}."))
        return _NOTHING
    ops = _NUMBER_OPS if name in _NUMBERS else _TEXT_OPS
    if not isinstance(op, str) or op not in ops:
        problems.append(
            Problem(pointer([*path, "op"]), f"{name} cannot be compared by {op!r}; use {', '.join(sorted(ops))}.")
        )
        return _NOTHING
    values = value if op in ("in", "not_in") else [value]
    kind = int if name in _NUMBERS else str
    valid = isinstance(values, list) and values and all(_is(item, kind) for item in values)
    if not valid:
        shape = "a list of " if op in ("in", "not_in") else ""
        what = "whole numbers" if kind is int else "codes such as DE or EUR"
        problems.append(Problem(pointer([*path, "value"]), f"{name} {op} needs {shape}{what}."))
        return _NOTHING
    read = [item.upper() if isinstance(item, str) else item for item in values]
    return Comparison(name, op, frozenset(read) if op in ("in", "not_in") else read[0])


def _is(value: object, kind: type) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)
