"""Keeping the rollups: follow the ledger, count the invoices again that it has touched.

The follower stops below the oldest running transaction (DESIGN section 5), so a late commit is never passed over. What
an invoice was last counted as is kept beside the rollups, as facts; what it is counted as now less that is added to
them. So counting it twice, or too early, changes nothing, and a step costs what has changed, not what its days hold.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, time, timedelta
from functools import cache
from typing import Any
from zoneinfo import ZoneInfo

import structlog
from django.db import connection, transaction

from accounts.models import Merchant
from analytics.models import RollupZone
from analytics.period import zone_of
from analytics.rollups.sql import CARDS_CHANGED, FACTS, Facts, Rollup

log = structlog.get_logger()
EVENTS_AT_ONCE = 5_000
# Days of one merchant that are built in one statement.
_DAYS_AT_ONCE = 7
_LAST_ID = 2**63 - 1

_POSITION = "SELECT xid::text, event_id FROM analytics_rollupposition WHERE id = 1 FOR NO KEY UPDATE SKIP LOCKED"
_FOLLOW = """
WITH horizon AS (SELECT pg_snapshot_xmin(pg_current_snapshot()) AS xmin), batch AS (
    SELECT e.xid, e.id, e.invoice_id FROM invoices_event e, horizon
    WHERE (e.xid, e.id) > (%(xid)s::xid8, %(event_id)s) AND e.xid < horizon.xmin
    ORDER BY e.xid, e.id LIMIT %(limit)s
)
SELECT (SELECT xmin::text FROM horizon), count(*), COALESCE(array_agg(DISTINCT invoice_id), '{}'),
       (array_agg(xid::text ORDER BY xid DESC, id DESC))[1], max(id) FILTER (WHERE xid = (SELECT max(xid) FROM batch))
FROM batch
"""
_TOUCHED = f"""
SELECT zone.merchant_id, zone.timezone, array_agg(DISTINCT touched.invoice_id)
FROM (
    SELECT merchant_id, id AS invoice_id FROM invoices_invoice WHERE id = ANY(%(invoices)s)
    UNION ALL
    SELECT merchant_id, invoice_id FROM invoices_attempt
    WHERE card_id = ANY(ARRAY({CARDS_CHANGED} AND facts_xid <= %(until)s::xid8)) AND kind = 'CHARGE'
) touched
JOIN analytics_rollupzone zone ON zone.merchant_id = touched.merchant_id
GROUP BY 1, 2
"""  # noqa: S608  (a constant, no input)
# A row of the ledger that moves to a later day while its merchant is built is counted once all the same; the follower
# then counts it anew.
_BUILD = """
WITH put AS (
    INSERT INTO {facts.table} ({columns}) SELECT {columns} FROM ({facts.between}) fresh ON CONFLICT (id) DO NOTHING
    RETURNING {columns}
), changed AS (SELECT 1 AS sign, * FROM put), {folds}
SELECT 1
"""
# One statement, so that the facts and the figures that are made of them are those of one moment.
_RECOUNT = """
WITH {facts.changes},
gone AS (DELETE FROM {facts.table} WHERE id IN (SELECT id FROM changed GROUP BY id HAVING sum(sign) < 0)),
put AS (
    INSERT INTO {facts.table} ({columns}) SELECT {columns} FROM changed WHERE sign = 1
    ON CONFLICT (id) DO UPDATE SET {replaced}
), {folds}
SELECT 1
"""
# Adds `changed` to a rollup. One row is looked up per key, however large the table; LIMIT keeps the planner from
# reading it whole. Not ON CONFLICT: a difference below zero would fail the row's own check before it is added.
_FOLD = """
{name}_delta AS (
    SELECT delta.*, kept.id FROM ({select}) delta
    LEFT JOIN LATERAL (SELECT kept.id FROM {table} kept WHERE {same} LIMIT 1) kept ON true
    WHERE {any_sum}
),
{name}_new AS (INSERT INTO {table} ({columns}) SELECT {columns} FROM {name}_delta WHERE id IS NULL),
{name}_gone AS (
    DELETE FROM {table} kept USING {name}_delta delta WHERE kept.id = delta.id AND kept.{count} + delta.{count} = 0
),
{name}_changed AS (
    UPDATE {table} kept SET {added} FROM {name}_delta delta
    WHERE kept.id = delta.id AND kept.{count} + delta.{count} <> 0
)
"""
_SPAN = """
SELECT min(at), max(at) FROM (
    SELECT min(attempted_at) AS at FROM invoices_attempt WHERE merchant_id = %(merchant)s
    UNION ALL SELECT max(attempted_at) FROM invoices_attempt WHERE merchant_id = %(merchant)s
    UNION ALL SELECT min(opened_at) FROM retries_case WHERE merchant_id = %(merchant)s
    UNION ALL SELECT max(opened_at) FROM retries_case WHERE merchant_id = %(merchant)s
    UNION ALL SELECT max(closed_at) FROM retries_case WHERE merchant_id = %(merchant)s
) ends
"""


@dataclass(slots=True)
class RollupCounts:
    """`events` followed, `invoices` counted again, merchants `built` from nothing."""

    events: int = 0
    invoices: int = 0
    built: int = 0

    def as_dict(self) -> dict[str, int]:
        return asdict(self)


def rollups_advance(*, keep_going: Callable[[], bool] = lambda: True) -> RollupCounts:
    """Follow the ledger to its end; `keep_going` is asked before each batch of events.

    Merchants that are new or have another time zone are built first. Two advances at once do no harm: one works, the
    other returns.
    """
    counts = RollupCounts()
    for merchant in Merchant.objects.order_by("pk"):
        if not keep_going():
            return counts
        if not RollupZone.objects.filter(merchant=merchant, timezone=zone_of(merchant.timezone).key).exists():
            try:
                rollups_build(merchant)
            except Exception:  # the sweep loop: one merchant's history must not keep the others from being counted
                log.exception("rollups_build_failed", merchant=merchant.public_id)
                continue
            counts.built += 1
    while keep_going() and _step(counts):
        pass
    return counts


def rollups_build(merchant: Merchant, *, progress: Callable[[int, int], None] = lambda done, total: None) -> None:
    """Count all of one merchant's ledger from nothing; `progress(done, total)` is told days after each chunk."""
    zone = zone_of(merchant.timezone)
    with transaction.atomic(), connection.cursor() as cursor:
        # The lock keeps the follower, which would write the same rows, waiting.
        _position()
        RollupZone.objects.update_or_create(merchant=merchant, defaults={"timezone": zone.key})
        for facts in FACTS:
            for table in (facts.table, *(rollup.table for rollup in facts.rollups)):
                cursor.execute(f"DELETE FROM {table} WHERE merchant_id = %s", [merchant.pk])  # noqa: S608
        cursor.execute(_SPAN, {"merchant": merchant.pk})
        first, last = cursor.fetchone()
        if first is None:
            return
        total = (last.astimezone(zone).date() - first.astimezone(zone).date()).days + 1
        for done, start, end in _chunks(first, last, zone):
            for facts in FACTS:
                values: dict[str, Any] = {"merchant": merchant.pk, "zone": zone.key, "start": start, "end": end}
                cursor.execute(_written(_BUILD, facts), values)
            progress(done, total)
    log.info("rollups_built", merchant=merchant.public_id, days=total)


def _chunks(first: datetime, last: datetime, zone: ZoneInfo) -> Iterator[tuple[int, datetime, datetime]]:
    """Days done after it, start and end of each chunk: together exactly from `first` to `last`, cut at midnights."""
    begin, after = first.astimezone(zone).date(), last + timedelta(seconds=1)
    days, start = (last.astimezone(zone).date() - begin).days + 1, first
    for done in range(_DAYS_AT_ONCE, days, _DAYS_AT_ONCE):
        end = datetime.combine(begin + timedelta(days=done), time(), tzinfo=zone)
        yield done, start, end
        start = end
    yield days, start, after


@cache
def _written(statement: str, facts: Facts) -> str:
    """_BUILD or _RECOUNT for one kind of facts."""
    columns = [name for name in facts.columns if name != "id"]
    return statement.format(
        facts=facts,
        columns=", ".join(facts.columns),
        replaced=", ".join(f"{name} = EXCLUDED.{name}" for name in columns),
        folds=",".join(_fold(rollup) for rollup in facts.rollups),
    )


def _fold(rollup: Rollup) -> str:
    return _FOLD.format(
        name=rollup.name,
        table=rollup.table,
        columns=rollup.columns,
        select=rollup.select,
        count=rollup.sums[0],
        same=" AND ".join(f"kept.{key} = delta.{key}" for key in ("merchant_id", "day", *rollup.keys)),
        any_sum=" OR ".join(f"{one} <> 0" for one in rollup.sums),
        added=", ".join(f"{one} = kept.{one} + delta.{one}" for one in rollup.sums),
    )


def _position() -> None:
    """Lock the follower's one row; the first time it begins here, because whatever is built now has seen the past."""
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO analytics_rollupposition (id, xid, event_id, advanced_at)"
            " SELECT 1, (pg_snapshot_xmin(pg_current_snapshot())::text::bigint - 1)::text::xid8, %s, clock_timestamp()"
            " ON CONFLICT (id) DO NOTHING",
            [_LAST_ID],
        )
        cursor.execute("SELECT 1 FROM analytics_rollupposition WHERE id = 1 FOR NO KEY UPDATE")


def _step(counts: RollupCounts) -> bool:
    """One batch of events in one transaction; True if there may be more."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(_POSITION)
        row = cursor.fetchone()
        if row is None:
            return False
        xid, event_id = row
        cursor.execute(_FOLLOW, {"xid": xid, "event_id": event_id, "limit": EVENTS_AT_ONCE})
        xmin, events, invoices, last_xid, last_id = cursor.fetchone()
        more: bool = events == EVENTS_AT_ONCE
        # Everything below the horizon is done: later readers need not look at it again.
        until = (last_xid, last_id) if more else (str(int(xmin) - 1), _LAST_ID)
        if int(until[0]) < int(xid):
            return False  # nothing has ended since
        cursor.execute(_TOUCHED, {"invoices": invoices, "xid": xid, "until": until[0]})
        for merchant, zone, touched in cursor.fetchall():
            for facts in FACTS:
                values = {"merchant": merchant, "zone": zone, "invoices": touched}
                cursor.execute(_written(_RECOUNT, facts), values)
            counts.invoices += len(touched)
        cursor.execute(
            "UPDATE analytics_rollupposition SET xid = %s::xid8, event_id = %s, advanced_at = clock_timestamp()",
            list(until),
        )
    counts.events += events
    return more
