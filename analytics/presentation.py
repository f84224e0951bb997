"""From figures to what the dashboard's templates print: words, shares, shapes and the addresses of the rows
behind them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from analytics.charts import (
    DASH,
    ColumnChart,
    Part,
    Series,
    Shape,
    bar_width,
    column_chart,
    cumulative,
    percent,
    spark_bars,
    split_bar,
)
from analytics.period import Period
from analytics.rollups.sql import LAST_NUMBER
from analytics.selectors.attempts import ByNumber, CodeCount, FailuresByDay
from analytics.selectors.cases import AtRisk, Cohorts, RecoveredMoney, Tally, TimeToRecover
from analytics.selectors.invoices import NO_CODE, InvoiceFilter
from analytics.words import CATEGORY_NAMES, category_name, state_label, state_tone


@dataclass(frozen=True, slots=True)
class StepLine:
    """One next step of one currency's open cases."""

    label: str
    tone: str
    cases: int
    amount_minor: int
    share: str
    query: str


@dataclass(frozen=True, slots=True)
class RiskBlock:
    """Revenue at risk in one currency."""

    currency: str
    total_minor: int
    parts: tuple[tuple[Part, str], ...]
    lines: tuple[StepLine, ...]


def risk_blocks(risk: AtRisk) -> list[RiskBlock]:
    """One block per currency, the one with most cases first."""
    blocks = []
    for currency in risk.currencies:
        rows, total = risk.of(currency), risk.total_minor(currency)
        parts = split_bar({row.step: row.amount_minor for row in rows})
        lines = tuple(
            StepLine(
                label=state_label("step", row.step),
                tone=state_tone("step", row.step),
                cases=row.cases,
                amount_minor=row.amount_minor,
                share=percent(row.amount_minor, total),
                query=InvoiceFilter(case="OPEN", next_step=row.step, currency=currency).query(),
            )
            for row in rows
        )
        blocks.append(RiskBlock(currency, total, tuple((part, state_tone("step", part.key)) for part in parts), lines))
    return blocks


@dataclass(frozen=True, slots=True)
class MoneyLine:
    """Recovered money of one currency with its daily bars."""

    money: RecoveredMoney
    bars: tuple[Shape, ...]


def recovered_lines(found: Sequence[RecoveredMoney], period: Period) -> list[MoneyLine]:
    return [MoneyLine(money, spark_bars([money.net_by_day.get(day, 0) for day in period.dates])) for money in found]


@dataclass(frozen=True, slots=True)
class RateLine:
    """A tally in percent: of cases and of the amount."""

    label: str
    tally: Tally
    by_count: str
    by_amount: str
    parts: tuple[tuple[Part, str], ...]


_STANDING = {"recovered": "success", "open": "warning", "lost": "neutral"}


def rate_line(label: str, tally: Tally) -> RateLine:
    """One cohort's line: rates, and how its cases stand."""
    parts = split_bar({"recovered": tally.recovered, "open": tally.open, "lost": tally.lost})
    return RateLine(
        label=label,
        tally=tally,
        by_count=percent(tally.recovered, tally.total),
        by_amount=percent(tally.recovered_minor, tally.amount_minor),
        parts=tuple((part, _STANDING[part.key]) for part in parts),
    )


def cohort_lines(found: Cohorts, period: Period) -> list[RateLine]:
    """Newest cohort first; cohorts without cases are left out."""
    word = "" if period.days <= 7 else "From "
    lines = [rate_line(f"{word}{day_text(first)}", tally) for first, tally in found.by_bucket.items() if tally.total]
    return lines[::-1]


# Bottom of the stack first: what ends a card, then what time may heal, then what is ours or the provider's.
_STACK = tuple(CATEGORY_NAMES)


def failure_chart(found: FailuresByDay) -> ColumnChart:
    """Stacked columns per day; categories that did not occur are left out."""
    known = [category for category in _STACK if found.totals.get(category)]
    others = sorted(category for category in found.totals if category not in CATEGORY_NAMES)
    series = [
        Series(
            key=category.lower() if category in CATEGORY_NAMES else "other",
            name=category_name(category),
            values=tuple(counts.get(category, 0) for counts in found.days.values()),
        )
        for category in (*known, *others)
    ]
    return column_chart([day_text(day) for day in found.days], series)


@dataclass(frozen=True, slots=True)
class LegendLine:
    """A category's total with the address of its rows."""

    key: str
    name: str
    attempts: int
    query: str


def failure_legend(found: FailuresByDay, period: Period) -> list[LegendLine]:
    """Most frequent first."""
    return [
        LegendLine(
            key=category.lower() if category in CATEGORY_NAMES else "other",
            name=category_name(category),
            attempts=attempts,
            query=InvoiceFilter(failed=str(period.days), category=category).query(),
        )
        for category, attempts in found.totals.items()
    ]


@dataclass(frozen=True, slots=True)
class CodeLine:
    """A decline code as a bar."""

    code: CodeCount
    key: str
    category: str
    width: str
    query: str


def code_lines(codes: Sequence[CodeCount], period: Period) -> list[CodeLine]:
    most = max((code.attempts for code in codes), default=0)
    return [
        CodeLine(
            code=code,
            key=code.category.lower() if code.category in CATEGORY_NAMES else "other",
            category=category_name(code.category),
            width=bar_width(code.attempts, most),
            query=InvoiceFilter(failed=str(period.days), code=code.code or NO_CODE).query(),
        )
        for code in codes
    ]


@dataclass(frozen=True, slots=True)
class NumberLine:
    """One attempt number: share of recoveries, running share, success when tried."""

    label: str
    recovered: int
    share: str
    running: str
    tried: str
    success: str
    width: str


def number_lines(found: ByNumber) -> list[NumberLine]:
    """The attempt numbers in order, then what was paid outside."""
    total = found.recovered
    counts = [row.recovered for row in found.rows]
    most = max((*counts, found.outside), default=0)
    lines = [
        NumberLine(
            label=f"Attempt {row.number}{'+' if row.number == LAST_NUMBER else ''}",
            recovered=row.recovered,
            share=percent(row.recovered, total),
            running=percent(running, total),
            tried=f"{row.tried:,}",
            success=percent(row.succeeded, row.tried),
            width=bar_width(row.recovered, most),
        )
        for row, running in zip(found.rows, cumulative(counts), strict=True)
    ]
    if found.outside:
        share = percent(found.outside, total)
        lines.append(NumberLine("Outside", found.outside, share, "", "", "", bar_width(found.outside, most)))
    return lines


@dataclass(frozen=True, slots=True)
class TimeLine:
    """One bucket of the time to recover, or the cases that are not recovered."""

    label: str
    cases: int
    share: str
    tone: str
    width: str


def time_lines(found: TimeToRecover) -> list[TimeLine]:
    """Recovered cases by time, then the open and the ended ones, all as shares of the whole cohort."""
    rows = [(label, cases, "success") for label, cases in found.buckets]
    rows += [("Still open", found.open, "warning"), ("Ended unrecovered", found.ended, "neutral")]
    most = max(cases for _, cases, _ in rows)
    return [
        TimeLine(label, cases, percent(cases, found.total), tone, bar_width(cases, most)) for label, cases, tone in rows
    ]


def percentile_text(days: float | None) -> str:
    """`5 h`, `2.4 days`, or a dash."""
    if days is None:
        return DASH
    return f"{days:.1f} days" if days >= 1 else f"{days * 24:.0f} h" if days * 24 >= 1 else "under 1 h"


def day_text(day: date) -> str:
    """`4 Nov`."""
    return f"{day.day} {day:%b}"


def chart_rows(chart: ColumnChart) -> Sequence[tuple[str, Mapping[str, int], int]]:
    """The chart as a table for those who cannot see it: label, values by series name, total; days without any
    left out.
    """
    return [
        (
            column.label,
            dict(zip([one.name for one in chart.series], column.values, strict=True)),
            column.total,
        )
        for column in chart.columns
        if column.total
    ]
