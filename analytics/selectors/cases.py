"""What cases say: revenue at risk, cohorts, recovered revenue, time to recover. Definitions:
analytics/definitions.py.
"""

from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass, field
from datetime import date
from math import ceil

from analytics.rollups.reading import Figures
from retries.states import CaseStatus, NextStep


@dataclass(frozen=True, slots=True)
class StepAmount:
    """Open cases with one next step in one currency."""

    step: str
    currency: str
    amount_minor: int
    cases: int


@dataclass(frozen=True, slots=True)
class AtRisk:
    """Everything open now; `steps` has one row per currency and step, currencies by their number of cases."""

    steps: tuple[StepAmount, ...]

    @property
    def currencies(self) -> list[str]:
        totals: dict[str, int] = {}
        for row in self.steps:
            totals[row.currency] = totals.get(row.currency, 0) + row.cases
        return sorted(totals, key=lambda currency: (-totals[currency], currency))

    def of(self, currency: str) -> list[StepAmount]:
        order = {step: rank for rank, step in enumerate(NextStep.values)}
        return sorted((row for row in self.steps if row.currency == currency), key=lambda row: order[row.step])

    def total_minor(self, currency: str) -> int:
        return sum(row.amount_minor for row in self.steps if row.currency == currency)

    def cases(self, step: str = "") -> int:
        return sum(row.cases for row in self.steps if step in ("", row.step))


def revenue_at_risk(figures: Figures) -> AtRisk:
    """The open cases by step and currency."""
    due: Counter[tuple[str, str]] = Counter()
    cases: Counter[tuple[str, str]] = Counter()
    for row in figures.open_cases:
        due[row.step, row.currency] += row.due_minor
        cases[row.step, row.currency] += row.cases
    return AtRisk(tuple(StepAmount(*key, due[key], number) for key, number in cases.items()))


@dataclass(slots=True)
class Tally:
    """Cases of one cohort: how many, how they stand, and their amounts where they share a currency."""

    total: int = 0
    recovered: int = 0
    open: int = 0
    lost: int = 0
    amount_minor: int = 0
    recovered_minor: int = 0

    def add(self, status: str, cases: int, amount_minor: int, recovered_minor: int) -> None:
        self.total += cases
        self.amount_minor += amount_minor
        if status == CaseStatus.RECOVERED:
            self.recovered += cases
            self.recovered_minor += recovered_minor
        elif status == CaseStatus.OPEN:
            self.open += cases
        else:
            self.lost += cases

    @property
    def rate(self) -> float | None:
        """Share of cases recovered, None without cases."""
        return self.recovered / self.total if self.total else None

    @property
    def amount_rate(self) -> float | None:
        """Share of the amount recovered, None without an amount."""
        return self.recovered_minor / self.amount_minor if self.amount_minor else None

    @property
    def final(self) -> bool:
        """True once no case of the cohort can still be recovered by the plan."""
        return self.open == 0


@dataclass(frozen=True, slots=True)
class Cohorts:
    """Cases opened in the period: all, by currency, and by week (or day, in the shortest period)."""

    overall: Tally
    by_currency: dict[str, Tally]
    by_bucket: dict[date, Tally]


def cohorts(figures: Figures) -> Cohorts:
    """Cases by the day they opened, as they stand now."""
    period = figures.period
    buckets = {day: [day] for day in period.dates} if period.days <= 7 else period.weeks
    bucket_of = {day: first for first, days in buckets.items() for day in days}
    found = Cohorts(Tally(), {}, {first: Tally() for first in buckets})
    for row in figures.cases:
        if row.facet != "segment" or row.day is None:
            continue
        facts = (row.status, row.cases, row.amount_minor, row.recovered_minor)
        found.overall.add(*facts)
        found.by_currency.setdefault(row.currency, Tally()).add(*facts)
        found.by_bucket[bucket_of[row.day]].add(*facts)
    return found


@dataclass(slots=True)
class RecoveredMoney:
    """Recovered in one currency: gross, what went back, and net per local day."""

    currency: str
    cases: int = 0
    gross_minor: int = 0
    back_minor: int = 0
    net_by_day: dict[date, int] = field(default_factory=dict)

    @property
    def net_minor(self) -> int:
        return self.gross_minor - self.back_minor


def recovered_money(figures: Figures) -> list[RecoveredMoney]:
    """Cases recovered in the period per currency, most cases first."""
    found: dict[str, RecoveredMoney] = {}
    for row in figures.recoveries:
        money = found.setdefault(row.currency, RecoveredMoney(row.currency))
        money.cases += row.cases
        money.gross_minor += row.gross_minor
        money.back_minor += row.back_minor
        money.net_by_day[row.day] = money.net_by_day.get(row.day, 0) + row.gross_minor - row.back_minor
    return sorted(found.values(), key=lambda money: (-money.cases, money.currency))


TIME_BUCKETS = (
    ("Within 1 day", 1),
    ("1 to 3 days", 3),
    ("3 to 7 days", 7),
    ("7 to 14 days", 14),
    ("14 to 28 days", 28),
)
TIME_BEYOND = "Over 28 days"


@dataclass(frozen=True, slots=True)
class TimeToRecover:
    """Cases opened in the period by how long their recovery took; percentiles in days, of recovered ones."""

    buckets: tuple[tuple[str, int], ...]
    recovered: int
    open: int
    ended: int
    median_days: float | None
    p75_days: float | None
    p90_days: float | None

    @property
    def total(self) -> int:
        return self.recovered + self.open + self.ended


def time_to_recover(figures: Figures) -> TimeToRecover:
    """Cases opened in the period; durations are those of LengthFigure."""
    names = [*(name for name, _ in TIME_BUCKETS), TIME_BEYOND]
    edges = [days * 24 for _, days in TIME_BUCKETS]
    counts, hours = dict.fromkeys(names, 0), Counter[int]()
    open_cases = ended = 0
    for row in figures.lengths:
        if not row.within:
            continue
        if row.hours is not None:
            counts[names[bisect_right(edges, row.hours)]] += row.cases
            hours[row.hours] += row.cases
        elif row.status == CaseStatus.OPEN:
            open_cases += row.cases
        else:
            ended += row.cases
    half, most, nearly_all = (_percentile(hours, share) for share in (0.5, 0.75, 0.9))
    return TimeToRecover(tuple(counts.items()), hours.total(), open_cases, ended, half, most, nearly_all)


def _percentile(hours: Counter[int], share: float) -> float | None:
    """Days within which `share` of the cases were recovered (nearest rank), None without cases."""
    rank, seen = ceil(share * hours.total()), 0
    for hour in sorted(hours):
        seen += hours[hour]
        if seen >= rank:
            return hour / 24
    return None
