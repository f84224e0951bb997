"""The selectors' figures in the order and shape of the answers; every key is one of the definitions."""

from collections.abc import Mapping
from typing import Any

from analytics.rollups.reading import Figures
from analytics.selectors.attempts import failures_by_day, recovered_by_number, top_decline_codes
from analytics.selectors.breakdowns import (
    FailureLine,
    attempts_by_sender,
    cases_by_policy,
    failures_by,
    recoveries_by_source,
)
from analytics.selectors.budgets import budget_use
from analytics.selectors.cases import Tally, cohorts, recovered_money, revenue_at_risk, time_to_recover
from analytics.selectors.forecast import expected_recoveries
from analytics.selectors.invariants import must_be_zero
from analytics.selectors.shell import shell_counts
from retries.states import NextStep


def overview(figures: Figures) -> dict[str, Any]:
    """As on the first page of the dashboards."""
    risk, found, waiting = revenue_at_risk(figures), cohorts(figures), shell_counts(figures.merchant)
    times = time_to_recover(figures)
    return {
        "revenue_at_risk": risk.steps,
        "recovered_net": [
            {
                "currency": money.currency,
                "cases": money.cases,
                "gross_minor": money.gross_minor,
                "back_minor": money.back_minor,
                "net_minor": money.net_minor,
                "net_by_day": {day.isoformat(): minor for day, minor in sorted(money.net_by_day.items())},
            }
            for money in recovered_money(figures)
        ],
        "cohort_recovery_rate": {
            "overall": found.overall,
            "by_currency": _by_currency(found.by_currency),
            "by_opening": [{**_cases(tally), "opened_from": first} for first, tally in sorted(found.by_bucket.items())],
        },
        "time_to_recover": {
            "buckets": [{"label": label, "cases": cases} for label, cases in times.buckets],
            **{name: getattr(times, name) for name in _TIMES},
        },
        "forecast": expected_recoveries(figures),
        "needs_a_person": {
            "questions": waiting.reviews,
            "customers": risk.cases(NextStep.CUSTOMER),
            "alerts": waiting.alerts,
        },
    }


_TIMES = ("recovered", "open", "ended", "median_days", "p75_days", "p90_days")


def _cases(tally: Tally) -> dict[str, Any]:
    return {name: getattr(tally, name) for name in ("total", "recovered", "open", "lost", "rate", "final")}


def _by_currency(tallies: Mapping[str, Tally]) -> list[dict[str, Any]]:
    names = ("amount_minor", "recovered_minor", "amount_rate")
    return [
        {**_cases(tally), "currency": currency, **{name: getattr(tally, name) for name in names}}
        for currency, tally in sorted(tallies.items())
    ]


def failures(figures: Figures) -> dict[str, Any]:
    """As in the report on failures."""
    days = failures_by_day(figures).days
    connections = {str(pk): one.public_id for pk, one in figures.connections.items()}
    by_category = {key: line for key, line in failures_by(figures, "network", lambda row: row.category).items() if key}
    return {
        "failures_by_category": {
            "rows": _rows(by_category),
            "days": [{"day": day, "failed": dict(failed)} for day, failed in sorted(days.items())],
        },
        "top_decline_codes": top_decline_codes(figures),
        "failures_by_network": _rows(failures_by(figures, "network", lambda row: row.key)),
        "failures_by_country": _rows(failures_by(figures, "country", lambda row: row.key)),
        "failures_by_connection": _rows(
            {
                connections[key]: line
                for key, line in failures_by(figures, "network", lambda row: str(row.connection_pk)).items()
            }
        ),
    }


def _rows(lines: Mapping[str, FailureLine]) -> list[dict[str, Any]]:
    return [
        {
            "key": key,
            "failed": line.failed,
            "attempts": line.attempts,
            "cases": line.tally.total,
            "recovered": line.tally.recovered,
        }
        for key, line in lines.items()
        if line.failed or line.tally.total
    ]


def retries(figures: Figures) -> dict[str, Any]:
    """As in the report on retries."""
    return {
        "recovered_by_attempt": recovered_by_number(figures),
        "attempts_by_sender": [{"sender": name, **_sender(line)} for name, line in attempts_by_sender(figures).items()],
        "recovered_by_source": [
            {"source_name": name, "cases": line.cases, "net_minor": dict(line.net_minor)}
            for name, line in recoveries_by_source(figures).items()
        ],
        "budget_use": budget_use(figures.merchant, figures.period.end),
    }


def _sender(line: Any) -> dict[str, int]:
    return {"attempts": line.attempts, "finished": line.finished, "succeeded": line.succeeded}


def policies(figures: Figures) -> dict[str, Any]:
    """As in the report on policies."""
    return {
        "recovery_by_policy": [
            {"version": version, "segment": segment, "by_currency": _by_currency(tallies)}
            for (version, segment), tallies in cases_by_policy(figures).items()
        ]
    }


def board(figures: Figures) -> dict[str, Any]:
    """As on the must-be-zero board."""
    return {
        "must_be_zero": [
            {"promise": one.definition.key, "count": one.count}
            for one in must_be_zero(figures.merchant, figures.period)
        ]
    }
