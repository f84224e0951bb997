"""What cases say: revenue at risk, cohorts, recovered revenue, time to recover. Definitions:
analytics/definitions.py.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from django.db import connection
from django.db.models import Count, F, IntegerField, Sum, Value
from django.db.models.functions import Greatest, TruncDate

from accounts.models import Merchant
from analytics.period import Period
from retries.models import Case
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


def revenue_at_risk(merchant: Merchant) -> AtRisk:
    """One query over the open cases."""
    due = F("invoice__amount_minor") - F("invoice__paid_minor") - F("invoice__credited_minor")
    rows = (
        Case.objects.filter(merchant=merchant, status=CaseStatus.OPEN)
        .values("next_step", "invoice__currency")
        .annotate(amount=Sum(Greatest(due, Value(0), output_field=IntegerField())), cases=Count("id"))
        .order_by()
    )
    return AtRisk(
        tuple(
            StepAmount(row["next_step"], row["invoice__currency"], int(row["amount"] or 0), row["cases"])
            for row in rows
        )
    )


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


def cohorts(merchant: Merchant, period: Period) -> Cohorts:
    """One query over the cases opened in the period."""
    rows = (
        Case.objects.filter(merchant=merchant, opened_at__gte=period.start, opened_at__lte=period.end)
        .annotate(day=TruncDate("opened_at", tzinfo=period.zone))
        .values("day", "currency", "status")
        .annotate(cases=Count("id"), amount=Sum("amount_minor"), recovered=Sum("recovered_minor"))
        .order_by()
    )
    buckets = {day: [day] for day in period.dates} if period.days <= 7 else period.weeks
    bucket_of = {day: first for first, days in buckets.items() for day in days}
    found = Cohorts(Tally(), {}, {first: Tally() for first in buckets})
    for row in rows:
        facts = (row["status"], row["cases"], int(row["amount"] or 0), int(row["recovered"] or 0))
        found.overall.add(*facts)
        found.by_currency.setdefault(row["currency"], Tally()).add(*facts)
        if row["day"] in bucket_of:
            found.by_bucket[bucket_of[row["day"]]].add(*facts)
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


# Per invoice, because one that is recovered, disputed and recovered again has several cases but gives back only once.
# A dispute that was won after all ends a case without new money: no more was recovered than was paid and taken back.
_RECOVERED = """
SELECT (r.last_closed AT TIME ZONE %(zone)s)::date, r.currency, sum(r.cases),
       sum(LEAST(r.gross, i.paid_minor + COALESCE(loss.minor, 0))),
       sum(LEAST(r.gross, COALESCE(refund.minor, 0) + COALESCE(loss.minor, 0)))
FROM (
    SELECT c.invoice_id, c.currency, count(*) AS cases, sum(c.recovered_minor) AS gross,
           min(c.closed_at) AS first_closed, max(c.closed_at) AS last_closed
    FROM retries_case c
    WHERE c.merchant_id = %(merchant)s AND c.status = 'RECOVERED'
      AND c.closed_at >= %(start)s AND c.closed_at <= %(end)s
    GROUP BY c.invoice_id, c.currency
) r
JOIN invoices_invoice i ON i.id = r.invoice_id
LEFT JOIN LATERAL (
    SELECT sum(COALESCE(t.captured_minor, t.amount_minor)) AS minor FROM invoices_transaction t
    WHERE t.invoice_id = r.invoice_id AND t.kind = 'REFUND' AND t.status = 'DONE' AND t.currency = r.currency
      AND t.reversed_at IS NULL AND t.finished_at >= r.first_closed
) refund ON true
LEFT JOIN LATERAL (
    SELECT sum(d.amount_minor) AS minor FROM invoices_dispute d
    WHERE d.invoice_id = r.invoice_id AND d.status = 'LOST' AND d.currency = r.currency
      AND d.applied_at >= r.first_closed
) loss ON true
GROUP BY 1, 2
"""


def recovered_money(merchant: Merchant, period: Period) -> list[RecoveredMoney]:
    """Cases recovered in the period per currency, most cases first."""
    found: dict[str, RecoveredMoney] = {}
    for day, currency, cases, gross, back in _rows(_RECOVERED, merchant, period):
        money = found.setdefault(currency, RecoveredMoney(currency))
        money.cases += int(cases)
        money.gross_minor += int(gross)
        money.back_minor += int(back)
        money.net_by_day[day] = money.net_by_day.get(day, 0) + int(gross) - int(back)
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


_TIME = """
SELECT width_bucket(extract(epoch FROM closed_at - opened_at), %(edges)s::double precision[]) AS bucket, status,
       count(*), NULL::double precision[]
FROM retries_case
WHERE merchant_id = %(merchant)s AND opened_at >= %(start)s AND opened_at <= %(end)s
GROUP BY 1, 2
UNION ALL
SELECT NULL, NULL, NULL, percentile_cont(ARRAY[0.5, 0.75, 0.9]) WITHIN GROUP (
           ORDER BY extract(epoch FROM closed_at - opened_at) / 86400)
FROM retries_case
WHERE merchant_id = %(merchant)s AND opened_at >= %(start)s AND opened_at <= %(end)s AND status = 'RECOVERED'
"""


def time_to_recover(merchant: Merchant, period: Period) -> TimeToRecover:
    """One query over the cases opened in the period."""
    edges = [days * 86400 for _, days in TIME_BUCKETS]
    names = [*(name for name, _ in TIME_BUCKETS), TIME_BEYOND]
    counts = dict.fromkeys(names, 0)
    open_cases = ended = 0
    percentiles: list[float | None] = [None, None, None]
    for bucket, status, cases, shares in _rows(_TIME, merchant, period, edges=edges):
        if status is None:
            percentiles = list(shares) if shares is not None else percentiles
        elif status == CaseStatus.RECOVERED:
            counts[names[bucket]] += cases
        elif status == CaseStatus.OPEN:
            open_cases += cases
        else:
            ended += cases
    return TimeToRecover(tuple(counts.items()), sum(counts.values()), open_cases, ended, *percentiles)


def _rows(sql: str, merchant: Merchant, period: Period, **more: object) -> Iterable[tuple]:  # type: ignore[type-arg]
    parameters: dict[str, Any] = {
        "merchant": merchant.pk,
        "start": period.start,
        "end": period.end,
        "zone": period.zone.key,
        **more,
    }
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return list(cursor.fetchall())
