"""The period's figures by one property: of the card, the connection, the sender, the source, the policy. Pure."""

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from analytics.rollups.reading import AttemptFigure, CaseFigure, Figures
from analytics.selectors.cases import Tally


@dataclass(slots=True)
class FailureLine:
    """Attempts and cases that share a key."""

    attempts: int = 0
    failed: int = 0
    tally: Tally = field(default_factory=Tally)


def failures_by(
    figures: Figures, facet: str, key: Callable[[AttemptFigure | CaseFigure], str]
) -> Mapping[str, FailureLine]:
    """Most failures first."""
    found: dict[str, FailureLine] = defaultdict(FailureLine)
    for attempt in figures.attempts:
        if attempt.facet == facet:
            line = found[key(attempt)]
            line.attempts += attempt.attempts
            line.failed += attempt.failed
    for case in figures.cases:
        if case.facet == facet:
            found[key(case)].tally.add(case.status, case.cases, 0, 0)
    return dict(sorted(found.items(), key=lambda item: (-item[1].failed, -item[1].tally.total, item[0])))


@dataclass(slots=True)
class SenderLine:
    """Attempts of one sender; `finished` are those with an outcome."""

    attempts: int = 0
    finished: int = 0
    succeeded: int = 0


def attempts_by_sender(figures: Figures) -> Mapping[str, SenderLine]:
    """Most attempts first."""
    made: dict[str, SenderLine] = defaultdict(SenderLine)
    for row in figures.attempts:
        if row.facet == "sender":
            line = made[row.key]
            line.attempts += row.attempts
            line.finished += row.finished
            line.succeeded += row.succeeded
    return dict(sorted(made.items(), key=lambda item: -item[1].attempts))


@dataclass(slots=True)
class SourceLine:
    """Recoveries that one source brought, by currency."""

    cases_by_currency: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    net_minor: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    @property
    def cases(self) -> int:
        return sum(self.cases_by_currency.values())


def recoveries_by_source(figures: Figures) -> Mapping[str, SourceLine]:
    """Most cases first."""
    found: dict[str, SourceLine] = defaultdict(SourceLine)
    for one in figures.recoveries:
        line = found[one.source]
        line.cases_by_currency[one.currency] += one.cases
        line.net_minor[one.currency] += one.gross_minor - one.back_minor
    return dict(sorted(found.items(), key=lambda item: (-item[1].cases, item[0])))


def cases_by_policy(figures: Figures) -> Mapping[tuple[int, str], Mapping[str, Tally]]:
    """By policy version (newest first) and segment, a tally per currency."""
    found: dict[tuple[int, str], dict[str, Tally]] = defaultdict(lambda: defaultdict(Tally))
    for row in figures.cases:
        if row.facet == "policy":
            number, _, name = row.key.partition(" ")
            found[int(number), name][row.currency].add(row.status, row.cases, row.amount_minor, row.recovered_minor)
    return dict(sorted(found.items(), key=lambda item: (-item[0][0], item[0][1])))
