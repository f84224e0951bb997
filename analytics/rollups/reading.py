"""The figures of one merchant and period: from the rollups, and from the ledger for days that changed since.

So a page is exact whatever the worker does; a follower that stands still costs time, never truth.
"""

from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from functools import cached_property
from typing import Any

from django.db import connection

from accounts.models import Merchant
from analytics.period import Period
from analytics.rollups.sql import DAYS, ROLLUPS
from invoices.models import Connection

_BY_NAME = {rollup.name: rollup for rollup in ROLLUPS}


@dataclass(frozen=True, slots=True)
class AttemptFigure:
    """Charge attempts that share facet, key, category and connection; `day` only where facet is network."""

    day: date | None
    connection_pk: int
    facet: str
    key: str
    category: str
    attempts: int
    succeeded: int
    declined: int
    errored: int

    @property
    def failed(self) -> int:
        return self.declined + self.errored

    @property
    def finished(self) -> int:
        """Attempts whose end a network decided."""
        return self.succeeded + self.declined


@dataclass(frozen=True, slots=True)
class HourFigure:
    """Charge attempts of one hour that have an answer, or should have had one; `facet` is all, country or code."""

    hour: datetime
    connection_pk: int
    facet: str
    key: str
    again: bool
    attempts: int
    failed: int


@dataclass(frozen=True, slots=True)
class CaseFigure:
    """Cases opened on `day` (None where facet is not segment) that share everything else; the facet hours is told by
    LengthFigure."""

    day: date | None
    connection_pk: int
    facet: str
    key: str
    category: str
    currency: str
    status: str
    cases: int
    amount_minor: int
    recovered_minor: int


@dataclass(frozen=True, slots=True)
class LengthFigure:
    """Cases by whole `hours` from opening to recovery (None: not recovered), opened within the period or not, and
    `ripe`: so long ago that those of their age have ended or will not."""

    category: str
    status: str
    hours: int | None
    within: bool
    ripe: bool
    cases: int


@dataclass(frozen=True, slots=True)
class RecoveryFigure:
    """Cases recovered on `day`; `number` 0: no attempt is known."""

    day: date
    connection_pk: int
    currency: str
    source: str
    number: int
    cases: int
    gross_minor: int
    back_minor: int


@dataclass(frozen=True, slots=True)
class OpenFigure:
    """Cases open now that share step, category, currency and age in whole days; `due_minor` is still owed."""

    step: str
    category: str
    currency: str
    age_days: int
    cases: int
    due_minor: int


# One index answers this alone (`case_by_step`): there may be tens of thousands of open cases. The difference of two
# instants is days of 24 hours and a rest.
_OPEN = """
SELECT next_step, first_category, due_currency, GREATEST(0, date_part('day', %(now)s - opened_at))::int, count(*),
    sum(due_minor)::bigint
FROM retries_case WHERE merchant_id = %(merchant)s AND status = 'OPEN'
GROUP BY 1, 2, 3, 4
"""
_KEPT = """
WITH position AS (
    SELECT p.xid, p.event_id FROM analytics_rollupposition p, analytics_rollupzone z
    WHERE z.merchant_id = %(merchant)s AND z.timezone = %(zone)s
), pending AS (
    SELECT DISTINCT e.invoice_id FROM invoices_event e, position
    WHERE (e.xid, e.id) > (position.xid, position.event_id) AND e.merchant_id = %(merchant)s
)
SELECT (SELECT xid::text FROM position), (SELECT COALESCE(array_agg(invoice_id), '{}') FROM pending)
"""
_STALE = """
SELECT DISTINCT (touched.at AT TIME ZONE %(zone)s)::date FROM ({sources}) touched
WHERE touched.merchant_id = %(merchant)s AND touched.at >= %(start)s
"""
_READ = """
WITH {days}, found AS (
    SELECT merchant_id, day, {columns} FROM {table}
    WHERE merchant_id = %(merchant)s AND day >= %(first)s AND day <= %(last)s AND day <> ALL(%(days)s::date[]) {wanted}
    {live}
)
SELECT {group}, {sums} FROM found WHERE true {filters} GROUP BY {group_numbers}
"""
# Where nothing is stale this is left out: through a union every row would be copied once more.
_LIVE = "UNION ALL SELECT * FROM ({select}) live WHERE true {wanted}"
_NEVER = "18446744073709551615"
# Days from opening after which cases are ripe.
_YOUNGEST, _OLDEST = 45, 90


class Figures:
    """Everything the dashboards show of one period, each kind read at most once.

    `connection_pk` narrows all of it to one connection (but for `open_cases`), `facets` to some of them.
    """

    def __init__(
        self, merchant: Merchant, period: Period, connection_pk: int | None = None, facets: tuple[str, ...] = ()
    ) -> None:
        self.merchant, self.period, self.connection_pk, self._facets = merchant, period, connection_pk, facets

    @cached_property
    def attempts(self) -> list[AttemptFigure]:
        rows = self._read(
            "attempts",
            "CASE WHEN facet = 'network' THEN day END, connection_id, facet, key, category",
            "sum(attempts), sum(succeeded), sum(declined), sum(errored)",
        )
        return [AttemptFigure(*row) for row in rows]

    @cached_property
    def hours(self) -> list[HourFigure]:
        rows = self._read("hours", "hour, connection_id, facet, key, again", "sum(attempts), sum(failed)")
        return [HourFigure(*row) for row in rows]

    @cached_property
    def cases(self) -> list[CaseFigure]:
        rows = self._read(
            "cases",
            "CASE WHEN facet = 'segment' THEN day END, connection_id, facet, key, category, currency, status",
            "sum(cases), sum(amount_minor), sum(recovered_minor)",
        )
        return [CaseFigure(*row) for row in rows]

    @cached_property
    def lengths(self) -> list[LengthFigure]:
        """How long recovery took, of the period and of the ripe cases: one read, the hours are most of the rows."""
        first, today = self.period.dates[0], self.period.dates[-1]
        oldest, youngest = today - timedelta(days=_OLDEST), today - timedelta(days=_YOUNGEST)
        rows = self._read(
            "cases",
            "category, status, key, day >= %(within)s, day BETWEEN %(oldest)s AND %(youngest)s",
            "sum(cases)",
            facets=("hours",),
            since=min(oldest, first),
            within=first,
            oldest=oldest,
            youngest=youngest,
        )
        return [
            LengthFigure(category, status, int(hours) if hours else None, within, ripe, cases)
            for category, status, hours, within, ripe, cases in rows
        ]

    @cached_property
    def recoveries(self) -> list[RecoveryFigure]:
        rows = self._read(
            "recoveries",
            "day, connection_id, currency, source, number",
            "sum(cases), sum(gross_minor), sum(back_minor)",
        )
        return [RecoveryFigure(*row) for row in rows]

    @cached_property
    def open_cases(self) -> list[OpenFigure]:
        """What is open now, whenever it was opened: the ledger's own answer."""
        with connection.cursor() as cursor:
            cursor.execute(_OPEN, {"merchant": self.merchant.pk, "now": self.period.end})
            return [OpenFigure(*row) for row in cursor.fetchall()]

    @cached_property
    def connections(self) -> dict[int, Connection]:
        """The merchant's connections by primary key."""
        return {one.pk: one for one in Connection.objects.filter(merchant=self.merchant).order_by("pk")}

    @cached_property
    def _pending(self) -> tuple[str | None, list[int]]:
        """The follower's transaction, None if this merchant's days in this zone are not kept; invoices after it."""
        parameters: dict[str, Any] = {"merchant": self.merchant.pk, "zone": self.period.zone.key}
        with connection.cursor() as cursor:
            cursor.execute(_KEPT, parameters)
            xid, invoices = cursor.fetchone()
        return xid, invoices

    def stale_days(self, name: str, since: date | None = None) -> list[date]:
        """Days of the period (or since then) that the rollup `name` does not tell as they are now."""
        first, last = since or self.period.dates[0], self.period.dates[-1]
        xid, invoices = self._pending
        if xid is None:
            return [first + timedelta(days=number) for number in range((last - first).days + 1)]
        parameters: dict[str, Any] = {
            "merchant": self.merchant.pk,
            "zone": self.period.zone.key,
            "start": datetime.combine(first, time(), tzinfo=self.period.zone),
            "invoices": invoices,
            "xid": xid,
            "until": _NEVER,
        }
        with connection.cursor() as cursor:
            cursor.execute(_STALE.format(sources=_BY_NAME[name].touched), parameters)
            return sorted(day for (day,) in cursor.fetchall() if day <= last)

    def _read(
        self, name: str, group: str, sums: str, *, facets: tuple[str, ...] = (), since: date | None = None, **days: date
    ) -> list[tuple[Any, ...]]:
        """Rows by `group` (which may name `days`) of the period, or since an earlier day."""
        rollup, dates = _BY_NAME[name], self.period.dates
        stale = self.stale_days(name, since)
        # Names the second column of the index, which begins with merchant and facet.
        wanted = "AND facet = ANY(%(facets)s)" if "facet" in rollup.columns else ""
        sql = _READ.format(
            days=DAYS,
            columns=rollup.columns,
            table=rollup.table,
            live=_LIVE.format(select=rollup.select, wanted=wanted) if stale else "",
            wanted=wanted,
            group=group,
            sums=", ".join(f"({one.strip()})::bigint" for one in sums.split(",")),
            filters="" if self.connection_pk is None else "AND connection_id = %(connection)s",
            group_numbers=", ".join(str(number + 1) for number in range(group.count(",") + 1)),
        )
        parameters: dict[str, Any] = {
            "merchant": self.merchant.pk,
            "first": since or dates[0],
            "last": dates[-1],
            "merchants": [self.merchant.pk] * len(stale),
            "days": stale,
            "zones": [self.period.zone.key] * len(stale),
            "facets": list(facets or self._facets or _FACETS.get(name, ())),
            "connection": self.connection_pk,
            **days,
        }
        with connection.cursor() as cursor:
            cursor.execute(sql, parameters)
            rows: list[tuple[Any, ...]] = cursor.fetchall()
        return rows


_FACETS = {
    "hours": ("all", "country", "code"),
    "attempts": ("code", "network", "country", "number", "sender"),
    "cases": ("segment", "policy", "code", "network", "country", "source"),
}
