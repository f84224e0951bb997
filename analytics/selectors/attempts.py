"""What attempts say: failures by category and day, decline codes, success by attempt number."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

from django.db import connection
from django.db.models import Count, Q
from django.db.models.functions import TruncDate

from accounts.models import Merchant
from analytics.period import Period
from invoices.models import Attempt
from invoices.states import AttemptStatus, TransactionKind

FAILED = (AttemptStatus.DECLINED, AttemptStatus.ERRORED)
_CODES_SHOWN = 9


@dataclass(frozen=True, slots=True)
class FailuresByDay:
    """Failed attempts per local day and category; `totals` by category, most frequent first."""

    days: Mapping[date, Mapping[str, int]]
    totals: Mapping[str, int]

    @property
    def total(self) -> int:
        return sum(self.totals.values())


def failures_by_day(merchant: Merchant, period: Period) -> FailuresByDay:
    """One query over the attempts of the period."""
    rows = (
        Attempt.objects.filter(
            merchant=merchant,
            kind=TransactionKind.CHARGE,
            status__in=FAILED,
            attempted_at__gte=period.start,
            attempted_at__lte=period.end,
        )
        .annotate(day=TruncDate("attempted_at", tzinfo=period.zone))
        .values("day", "category")
        .annotate(attempts=Count("id"))
        .order_by()
    )
    days: dict[date, dict[str, int]] = {day: {} for day in period.dates}
    totals: dict[str, int] = {}
    for row in rows:
        days.setdefault(row["day"], {})[row["category"]] = row["attempts"]
        totals[row["category"]] = totals.get(row["category"], 0) + row["attempts"]
    return FailuresByDay(days, dict(sorted(totals.items(), key=lambda item: (-item[1], item[0]))))


@dataclass(frozen=True, slots=True)
class CodeCount:
    """One provider's code in the period; an empty code is a failure that nobody has explained."""

    provider: str
    code: str
    category: str
    attempts: int
    invoices: int


def top_decline_codes(merchant: Merchant, period: Period) -> list[CodeCount]:
    """The most frequent codes of the period's failed attempts."""
    rows = (
        Attempt.objects.filter(
            merchant=merchant,
            kind=TransactionKind.CHARGE,
            status__in=FAILED,
            attempted_at__gte=period.start,
            attempted_at__lte=period.end,
        )
        .values("connection__provider", "raw_code", "category")
        .annotate(attempts=Count("id"), invoices=Count("invoice", distinct=True))
        .order_by("-attempts", "raw_code")[:_CODES_SHOWN]
    )
    return [
        CodeCount(row["connection__provider"], row["raw_code"], row["category"], row["attempts"], row["invoices"])
        for row in rows
    ]


# Attempts past this number are shown together.
LAST_NUMBER = 8


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


_RECOVERED_AT = """
SELECT LEAST(paid.number, %(last)s), count(*)
FROM retries_case c
LEFT JOIN LATERAL (
    SELECT a.number FROM invoices_attempt a
    WHERE a.invoice_id = c.invoice_id AND a.kind = 'CHARGE' AND a.status = 'SUCCEEDED'
      AND a.finished_at >= c.opened_at AND a.finished_at <= c.closed_at
    ORDER BY a.finished_at DESC, a.id DESC LIMIT 1
) paid ON true
WHERE c.merchant_id = %(merchant)s AND c.status = 'RECOVERED' AND c.closed_at >= %(start)s AND c.closed_at <= %(end)s
GROUP BY 1
"""


def recovered_by_number(merchant: Merchant, period: Period) -> ByNumber:
    """Two queries: the cases recovered in the period, and the attempts made in it."""
    with connection.cursor() as cursor:
        cursor.execute(
            _RECOVERED_AT,
            {"merchant": merchant.pk, "start": period.start, "end": period.end, "last": LAST_NUMBER},
        )
        recovered: dict[int | None, int] = dict(cursor.fetchall())
    tries = (
        Attempt.objects.filter(
            merchant=merchant,
            kind=TransactionKind.CHARGE,
            attempted_at__gte=period.start,
            attempted_at__lte=period.end,
            status__in=(AttemptStatus.SUCCEEDED, AttemptStatus.DECLINED),
        )
        .values("number")
        .annotate(tried=Count("id"), succeeded=Count("id", filter=Q(status=AttemptStatus.SUCCEEDED)))
        .order_by()
    )
    tried = dict.fromkeys(range(1, LAST_NUMBER + 1), 0)
    succeeded = dict.fromkeys(range(1, LAST_NUMBER + 1), 0)
    for row in tries:
        number = min(row["number"], LAST_NUMBER)
        tried[number] += row["tried"]
        succeeded[number] += row["succeeded"]
    rows = [NumberRow(number, tried[number], succeeded[number], recovered.get(number, 0)) for number in tried]
    while rows and not (rows[-1].tried or rows[-1].recovered):
        rows.pop()
    return ByNumber(tuple(rows), recovered.get(None, 0))
