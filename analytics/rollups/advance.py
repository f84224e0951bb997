"""Keeping the rollups: follow the ledger, compute the days again that it has touched.

The follower stops below the oldest running transaction (DESIGN section 5), so a late commit is never passed over. A day
is always computed whole, from the ledger as it is now: doing it twice, or too early, changes nothing.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from typing import Any

import structlog
from django.db import connection, transaction

from accounts.models import Merchant
from analytics.models import RollupZone
from analytics.period import zone_of
from analytics.rollups.sql import DAYS, ROLLUPS, Rollup

log = structlog.get_logger()
EVENTS_AT_ONCE = 5_000
# Days of one merchant that are computed in one statement.
_DAYS_AT_ONCE = 31
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
_TOUCHED = """
SELECT DISTINCT touched.merchant_id, (touched.at AT TIME ZONE zone.timezone)::date, zone.timezone
FROM ({sources}) touched JOIN analytics_rollupzone zone ON zone.merchant_id = touched.merchant_id
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
    """`events` followed, `days` computed again (per kind of rollup), merchants `built` from nothing."""

    events: int = 0
    days: int = 0
    built: int = 0

    def as_dict(self) -> dict[str, int]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class _Day:
    merchant_pk: int
    day: date
    zone: str


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
            rollups_build(merchant)
            counts.built += 1
    while keep_going() and _step(counts):
        pass
    return counts


def rollups_build(merchant: Merchant, *, progress: Callable[[int, int], None] = lambda done, total: None) -> None:
    """Compute all days of one merchant from the ledger; `progress(done, total)` is told days after each chunk."""
    zone = zone_of(merchant.timezone)
    with transaction.atomic():
        # The lock keeps the follower, which would write the same days, waiting.
        _position()
        RollupZone.objects.update_or_create(merchant=merchant, defaults={"timezone": zone.key})
        with connection.cursor() as cursor:
            for rollup in ROLLUPS:
                cursor.execute(f"DELETE FROM {rollup.table} WHERE merchant_id = %s", [merchant.pk])  # noqa: S608
            cursor.execute(_SPAN, {"merchant": merchant.pk})
            first, last = cursor.fetchone()
        if first is None:
            return
        start = first.astimezone(zone).date()
        total = (last.astimezone(zone).date() - start).days + 1
        days = [_Day(merchant.pk, start + timedelta(days=number), zone.key) for number in range(total)]
        for done, chunk in _chunks(days):
            for rollup in ROLLUPS:
                _insert(rollup, chunk)
            progress(done, total)
    log.info("rollups_built", merchant=merchant.public_id, days=total)


def _chunks(days: Sequence[_Day]) -> Iterator[tuple[int, Sequence[_Day]]]:
    for begin in range(0, len(days), _DAYS_AT_ONCE):
        chunk = days[begin : begin + _DAYS_AT_ONCE]
        yield begin + len(chunk), chunk


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
        for rollup in ROLLUPS:
            days = _touched(rollup, {"invoices": invoices, "xid": xid, "until": until[0]})
            for _, chunk in _chunks(days):
                _refresh(rollup, chunk)
            counts.days += len(days)
        cursor.execute(
            "UPDATE analytics_rollupposition SET xid = %s::xid8, event_id = %s, advanced_at = clock_timestamp()",
            list(until),
        )
    counts.events += events
    return more


def _touched(rollup: Rollup, parameters: dict[str, Any]) -> list[_Day]:
    with connection.cursor() as cursor:
        cursor.execute(_TOUCHED.format(sources=rollup.touched), parameters)
        return [_Day(*row) for row in cursor.fetchall()]


def _refresh(rollup: Rollup, days: Sequence[_Day]) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            f"DELETE FROM {rollup.table} USING unnest(%(merchants)s::bigint[], %(days)s::date[]) AS gone(merchant, day)"  # noqa: S608
            f" WHERE {rollup.table}.merchant_id = gone.merchant AND {rollup.table}.day = gone.day",
            _parameters(days),
        )
    _insert(rollup, days)


def _insert(rollup: Rollup, days: Sequence[_Day]) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            f"WITH {DAYS} INSERT INTO {rollup.table} (merchant_id, day, {rollup.columns}) {rollup.select}",
            _parameters(days),
        )


def _parameters(days: Sequence[_Day]) -> dict[str, Any]:
    return {
        "merchants": [one.merchant_pk for one in days],
        "days": [one.day for one in days],
        "zones": [one.zone for one in days],
    }
