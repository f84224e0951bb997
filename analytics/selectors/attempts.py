"""What attempts say: failures by category and day, decline codes, success by attempt number. Pure over the figures."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

from analytics.rollups.reading import Figures
from analytics.rollups.sql import LAST_NUMBER

_CODES_SHOWN = 9


@dataclass(frozen=True, slots=True)
class FailuresByDay:
    """Failed attempts per local day and category; `totals` by category, most frequent first."""

    days: Mapping[date, Mapping[str, int]]
    totals: Mapping[str, int]

    @property
    def total(self) -> int:
        return sum(self.totals.values())


def failures_by_day(figures: Figures) -> FailuresByDay:
    days: dict[date, Counter[str]] = {day: Counter() for day in figures.period.dates}
    totals: Counter[str] = Counter()
    for row in figures.attempts:
        if row.facet == "network" and row.day is not None and row.failed:
            days[row.day][row.category] += row.failed
            totals[row.category] += row.failed
    return FailuresByDay(days, dict(sorted(totals.items(), key=lambda item: (-item[1], item[0]))))


@dataclass(frozen=True, slots=True)
class CodeCount:
    """One provider's code in the period; an empty code is a failure that nobody has explained. `cases` are those that
    opened in the period and began with this code, `recovered` how many of them are recovered."""

    provider: str
    code: str
    category: str
    attempts: int
    cases: int
    recovered: int


def top_decline_codes(figures: Figures) -> list[CodeCount]:
    """The most frequent codes of the period, by failed attempts."""
    providers = {pk: one.provider for pk, one in figures.connections.items()}
    attempts: Counter[tuple[str, str, str]] = Counter()
    for row in figures.attempts:
        if row.facet == "code" and row.failed:
            attempts[providers[row.connection_pk], row.key, row.category] += row.failed
    cases: Counter[tuple[str, str, str]] = Counter()
    recovered: Counter[tuple[str, str, str]] = Counter()
    for case in figures.cases:
        if case.facet == "code":
            key = providers[case.connection_pk], case.key, case.category
            cases[key] += case.cases
            recovered[key] += case.cases if case.status == "RECOVERED" else 0
    most = sorted(attempts.items(), key=lambda item: (-item[1], item[0][1]))[:_CODES_SHOWN]
    return [CodeCount(*key, failed, cases[key], recovered[key]) for key, failed in most]


@dataclass(frozen=True, slots=True)
class NumberRow:
    """Attempt `number` (LAST_NUMBER: that and later): tries with an outcome, successes, recoveries at it."""

    number: int
    tried: int
    succeeded: int
    recovered: int

    @property
    def success_rate(self) -> float | None:
        return self.succeeded / self.tried if self.tried else None


@dataclass(frozen=True, slots=True)
class ByNumber:
    """Recoveries of the period by attempt number, and those paid without an attempt known here."""

    rows: tuple[NumberRow, ...]
    outside: int

    @property
    def recovered(self) -> int:
        return self.outside + sum(row.recovered for row in self.rows)


def recovered_by_number(figures: Figures) -> ByNumber:
    """The cases recovered in the period, and the attempts made in it."""
    recovered: Counter[int] = Counter()
    for recovery in figures.recoveries:
        recovered[recovery.number] += recovery.cases
    tried: Counter[int] = Counter()
    succeeded: Counter[int] = Counter()
    for row in figures.attempts:
        if row.facet == "number":
            tried[int(row.key)] += row.finished
            succeeded[int(row.key)] += row.succeeded
    rows = [NumberRow(n, tried[n], succeeded[n], recovered[n]) for n in range(1, LAST_NUMBER + 1)]
    while rows and not (rows[-1].tried or rows[-1].recovered):
        rows.pop()
    return ByNumber(tuple(rows), recovered[0])
