"""Reports as tables: what a page shows, prints and exports as CSV.

A row leads to the invoices it counts (`query`); a table is named by the definition that says what it counts.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from analytics.charts import bar_width, percent
from analytics.definitions import DEFINITIONS, Definition
from analytics.presentation import number_lines
from analytics.rollups.reading import Figures
from analytics.selectors.attempts import recovered_by_number
from analytics.selectors.breakdowns import (
    FailureLine,
    attempts_by_sender,
    cases_by_policy,
    failures_by,
    recoveries_by_source,
)
from analytics.selectors.budgets import budget_use
from analytics.selectors.cases import Tally
from analytics.selectors.invoices import NO_CODE, InvoiceFilter
from analytics.selectors.operations import duration_text
from analytics.words import category_name, network_name, sender_name, source_name
from recovery_site.common.money import format_money, to_decimal


@dataclass(frozen=True, slots=True)
class Row:
    """`cells` are texts under the table's `head`; `width` 0..100 draws a bar of `tone` or `category` in the row.

    `sums`: the row in a CSV, one line per currency under the table's `sums_head`.
    """

    label: str
    cells: tuple[str, ...]
    query: str = ""
    width: str = ""
    tone: str = "accent"
    category: str = ""
    sums: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class Table:
    """`head` names label and cells; `note` is said below, `empty` instead of no rows.

    A table with money has a `sums_head`: people read all currencies in one cell, a spreadsheet cannot add that up.
    """

    key: str
    head: tuple[str, ...]
    rows: tuple[Row, ...]
    note: str = ""
    empty: str = "Nothing in this period"
    sums_head: tuple[str, ...] = ()

    @property
    def csv_head(self) -> tuple[str, ...]:
        return (self.head[0], *self.sums_head) if self.sums_head else self.head

    @property
    def csv_rows(self) -> Iterator[tuple[str, ...]]:
        for row in self.rows:
            for cells in row.sums if self.sums_head else (row.cells,):
                yield row.label, *cells

    @property
    def definition(self) -> Definition:
        return DEFINITIONS[self.key]

    @property
    def bars(self) -> bool:
        return any(row.width for row in self.rows)


_CASES = ("Cases", "Recovered")
_OF_ATTEMPTS = ("Failed", "Attempts", "Share failed", *_CASES)
# Where every attempt of a row has failed: a code or a category is what a failure has.
_OF_FAILURES = ("Failed", "Share of failures", *_CASES)


def _table(
    key: str,
    what: str,
    lines: Iterable[tuple[str, FailureLine, str, str]],
    head: Sequence[str] = _OF_ATTEMPTS,
) -> Table:
    """Rows from (label, line, query, category)."""
    kept = [one for one in lines if one[1].failed or one[1].tally.total]
    most = max((line.failed for _, line, _, _ in kept), default=0)
    every = sum(line.failed for _, line, _, _ in kept)

    def shares(line: FailureLine) -> tuple[str, ...]:
        if head is _OF_FAILURES:
            return (percent(line.failed, every),)
        return f"{line.attempts:,}", percent(line.failed, line.attempts)

    rows = tuple(
        Row(
            label,
            (
                f"{line.failed:,}",
                *shares(line),
                f"{line.tally.total:,}",
                percent(line.tally.recovered, line.tally.total),
            ),
            query,
            bar_width(line.failed, most),
            category=category,
        )
        for label, line, query, category in kept
    )
    return Table(key, (what, *head), rows)


def by_category(figures: Figures) -> Table:
    days = str(figures.period.days)
    lines = failures_by(figures, "network", lambda row: row.category)
    return _table(
        "failures_by_category",
        "Category",
        (
            (category_name(key), line, InvoiceFilter(failed=days, category=key).query(), key.lower())
            for key, line in lines.items()
            if key
        ),
        _OF_FAILURES,
    )


def by_code(figures: Figures) -> Table:
    days = str(figures.period.days)
    lines = failures_by(figures, "code", lambda row: row.key)
    told = (
        (key or "No code told", line, InvoiceFilter(failed=days, code=key or NO_CODE).query(), "")
        for key, line in lines.items()
        if line.failed
    )
    return _table("top_decline_codes", "Code", told, _OF_FAILURES)


def by_network(figures: Figures) -> Table:
    days = str(figures.period.days)
    return _table(
        "failures_by_network",
        "Network",
        (
            (network_name(key), line, InvoiceFilter(failed=days, network=key).query() if key else "", "")
            for key, line in failures_by(figures, "network", lambda row: row.key).items()
        ),
    )


def by_country(figures: Figures) -> Table:
    days = str(figures.period.days)
    return _table(
        "failures_by_country",
        "Country",
        (
            (key or "Not told", line, InvoiceFilter(failed=days, country=key or NO_CODE).query(), "")
            for key, line in failures_by(figures, "country", lambda row: row.key).items()
        ),
    )


def by_connection(figures: Figures) -> Table:
    days = str(figures.period.days)
    names = figures.connections
    lines = failures_by(figures, "network", lambda row: str(row.connection_pk))
    return _table(
        "failures_by_connection",
        "Connection",
        (
            (str(names[int(key)]), line, InvoiceFilter(failed=days, connection=names[int(key)].public_id).query(), "")
            for key, line in lines.items()
        ),
    )


def by_number(figures: Figures) -> Table:
    found = recovered_by_number(figures)
    rows = tuple(
        Row(
            line.label,
            (f"{line.recovered:,}", line.share, line.running or "", line.tried, line.success),
            width=line.width,
            tone="success",
        )
        for line in number_lines(found)
    )
    head = ("Attempt", "Recovered", "Share", "Running share", "Tried", "Success when tried")
    return Table("recovered_by_attempt", head, rows)


def by_sender(figures: Figures) -> Table:
    made = attempts_by_sender(figures)
    most = max((line.attempts for line in made.values()), default=0)
    rows = tuple(
        Row(
            sender_name(key),
            (f"{line.attempts:,}", f"{line.finished:,}", percent(line.succeeded, line.finished)),
            width=bar_width(line.attempts, most),
        )
        for key, line in made.items()
    )
    return Table("attempts_by_sender", ("Sent by", "Attempts", "With an outcome", "Succeeded"), rows)


def by_source(figures: Figures) -> Table:
    found = recoveries_by_source(figures)
    counts = [line.cases for line in found.values()]
    most, total = max(counts, default=0), sum(counts)
    rows = tuple(
        Row(
            source_name(source),
            (f"{line.cases:,}", percent(line.cases, total), _money(line.net_minor)),
            width=bar_width(line.cases, most),
            tone="success",
            sums=tuple(
                (currency, str(cases), percent(cases, total), _decimal(line.net_minor[currency], currency))
                for currency, cases in sorted(line.cases_by_currency.items())
            ),
        )
        for source, line in found.items()
    )
    return Table(
        "recovered_by_source",
        ("Source", "Cases", "Share", "Net"),
        rows,
        empty="Nothing recovered yet",
        sums_head=("Currency", "Cases", "Share", "Net"),
    )


def by_policy(figures: Figures) -> Table:
    rows = []
    for (version, segment), currencies in cases_by_policy(figures).items():
        total = sum(tally.total for tally in currencies.values())
        won = sum(tally.recovered for tally in currencies.values())
        still = sum(tally.open for tally in currencies.values())
        cells = (
            f"{total:,}",
            f"{still:,}",
            f"{won:,}",
            percent(won, total) + ("*" if still else ""),
            ", ".join(
                f"{percent(tally.recovered_minor, tally.amount_minor)} {currency}"
                for currency, tally in sorted(currencies.items())
            ),
        )
        query = InvoiceFilter(opened=str(figures.period.days), segment=segment, policy=str(version)).query()
        rows.append(
            Row(
                f"Version {version}, {segment.replace('_', ' ')}",
                cells,
                query,
                bar_width(won, total),
                tone="success",
                sums=tuple(_policy_sums(currency, tally) for currency, tally in sorted(currencies.items())),
            )
        )
    return Table(
        "recovery_by_policy",
        ("Policy and segment", "Cases", "Open", "Recovered", "Rate", "By amount"),
        tuple(rows),
        note="* not final: open cases can still be recovered.",
        empty="No case opened in this period",
        sums_head=("Currency", "Cases", "Open", "Recovered", "Rate", "Amount", "Recovered amount", "By amount"),
    )


def _policy_sums(currency: str, tally: Tally) -> tuple[str, ...]:
    return (
        currency,
        str(tally.total),
        str(tally.open),
        str(tally.recovered),
        percent(tally.recovered, tally.total),
        _decimal(tally.amount_minor, currency),
        _decimal(tally.recovered_minor, currency),
        percent(tally.recovered_minor, tally.amount_minor),
    )


def by_budget(figures: Figures) -> Table:
    rows = []
    for use in budget_use(figures.merchant, figures.period.end):
        window = "a calendar month" if use.seconds is None else duration_text(use.seconds)
        what = "per card and amount" if use.key == "card_amount" else "per card"
        rows.append(
            Row(
                f"{network_name(use.network)}: {use.limit} in {window}, {what}",
                (f"{use.cards:,}", f"{use.unused:,}", f"{use.half:,}", f"{use.more:,}", f"{use.spent:,}"),
                width=bar_width(use.spent, use.cards),
                tone="warning",
            )
        )
    head = ("Rule", "Cards", "Unused", "Up to half", "More", "Used up")
    return Table("budget_use", head, tuple(rows), empty="No open case has a card")


def _money(by_currency: Mapping[str, int]) -> str:
    return ", ".join(format_money(minor, currency) for currency, minor in sorted(by_currency.items()))


def _decimal(minor: int, currency: str) -> str:
    return str(to_decimal(minor, currency))


@dataclass(frozen=True, slots=True)
class Report:
    """A page of tables."""

    name: str
    title: str
    tables: Sequence[Callable[[Figures], Table]]


REPORTS: Final[Mapping[str, Report]] = MappingProxyType(
    {
        report.name: report
        for report in (
            Report("failures", "Failures", (by_category, by_code, by_network, by_country, by_connection)),
            Report("retries", "Retries", (by_number, by_sender, by_source, by_budget)),
            Report("policies", "Policies", (by_policy,)),
        )
    }
)
