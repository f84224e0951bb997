"""The figures of one merchant and period: from the rollups, and from the ledger for invoices that changed since.

So a page is exact whatever the worker does; a follower that stands still costs time, never truth.
"""

from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from functools import cached_property
from typing import Any

from django.db import connection

from accounts.models import Merchant
from analytics.period import Period
from analytics.rollups.sql import CARDS_CHANGED, FACTS
from invoices.models import Connection

_BY_NAME = {rollup.name: (rollup, facts) for facts in FACTS for rollup in facts.rollups}


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
    """Cases by `hours` from opening to recovery (rounded down, after three days to steps of six; None: not recovered),
    opened within the period or not, and `ripe`: so long ago that those of their age have ended or will not."""

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
_POSITION = """
SELECT p.xid::text, p.event_id FROM analytics_rollupposition p CROSS JOIN analytics_rollupzone z
WHERE z.merchant_id = %(merchant)s AND z.timezone = %(zone)s
"""
# The position stands here as values, so that PostgreSQL knows how little lies behind it, and cards as a list, so that
# it does not read every attempt to join a few: measured 2 ms instead of 550. What the follower does between the two
# statements only shortens the list.
_PENDING = f"""
SELECT COALESCE(array_agg(invoice_id), '{{}}') FROM (
    SELECT invoice_id FROM invoices_event
    WHERE (xid, id) > (%(xid)s::xid8, %(event_id)s) AND merchant_id = %(merchant)s
    UNION
    SELECT invoice_id FROM invoices_attempt
    WHERE card_id = ANY(ARRAY({CARDS_CHANGED} AND merchant_id = %(merchant)s)) AND kind = 'CHARGE'
) changed
"""  # noqa: S608  (a constant, no input)
_SUMS = """
SELECT {columns} FROM {source} one
WHERE merchant_id = %(merchant)s AND day >= %(first)s AND day <= %(last)s {filters} GROUP BY {numbers}
"""
# Each side is added up by itself: a union of the rows would copy all those that are kept. What cancels out is nothing.
_BOTH = "SELECT {columns} FROM ({sides}) sides GROUP BY {numbers} HAVING sum(s0) <> 0"
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
    def pending(self) -> list[int] | None:
        """Invoices that have changed since the follower's position; None if this merchant is not kept in this zone."""
        parameters: dict[str, Any] = {"merchant": self.merchant.pk, "zone": self.period.zone.key}
        with connection.cursor() as cursor:
            cursor.execute(_POSITION, parameters)
            position = cursor.fetchone()
            if position is None:
                return None
            xid, event_id = position
            cursor.execute(_PENDING, parameters | {"xid": xid, "event_id": event_id})
            invoices: list[int] = cursor.fetchone()[0]
        return invoices

    def _read(
        self, name: str, group: str, sums: str, *, facets: tuple[str, ...] = (), since: date | None = None, **days: date
    ) -> list[tuple[Any, ...]]:
        """Rows by `group` (which may name `days`) of the period, or since an earlier day; the first sum is a count.

        The pending invoices may be counted in the rollups by now: their facts, read in the same statement, tell so.
        """
        rollup, facts = _BY_NAME[name]
        first, last = since or self.period.dates[0], self.period.dates[-1]
        keys, totals = group.split(", "), sums.split(", ")
        numbers = ", ".join(str(number + 1) for number in range(len(keys)))
        filters = "" if self.connection_pk is None else "AND connection_id = %(connection)s"
        # Names the second column of the index, which begins with merchant and facet.
        if "facet" in rollup.keys:
            filters += " AND facet = ANY(%(facets)s)"

        def summed(source: str) -> str:
            columns = [f"{key} AS k{number}" for number, key in enumerate(keys)]
            columns += [f"{total}::bigint AS s{number}" for number, total in enumerate(totals)]
            return _SUMS.format(columns=", ".join(columns), source=source, filters=filters, numbers=numbers)

        changed = summed(f"({rollup.select})")
        if self.pending is None:
            sql = f"WITH changed AS (SELECT 1 AS sign, fresh.* FROM ({facts.between}) fresh) {changed}"  # noqa: S608
        elif self.pending:
            columns = [f"k{number}" for number in range(len(keys))]
            columns += [f"sum(s{number})::bigint" for number in range(len(totals))]
            sides = f"({summed(rollup.table)}) UNION ALL ({changed})"
            sql = f"WITH {facts.changes} {_BOTH.format(columns=', '.join(columns), sides=sides, numbers=numbers)}"
        else:
            sql = summed(rollup.table)
        parameters: dict[str, Any] = {
            "merchant": self.merchant.pk,
            "zone": self.period.zone.key,
            "first": first,
            "last": last,
            "start": datetime.combine(first, time(), tzinfo=self.period.zone),
            "end": datetime.combine(last + timedelta(days=1), time(), tzinfo=self.period.zone),
            "invoices": self.pending,
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
