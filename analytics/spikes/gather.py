"""What the sweep reads of one merchant: four weeks of counts per hour, and the cells of the hours in question."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import connection

from accounts.models import Merchant
from analytics.period import period_of, zone_of
from analytics.rollups.reading import Figures
from analytics.spikes.cause import UNANSWERED
from analytics.spikes.detect import Cell, Count, Dimension, Hours, Subject, hour_of, sum_of

# Whole local days that hold the four weeks before now.
_DAYS = 30


@dataclass(frozen=True, slots=True)
class Watched:
    """Counts per hour of every subject of a merchant. A code's attempts are all of the merchant's."""

    series: Mapping[Subject, Hours]
    connections: Mapping[str, str]

    @property
    def countries(self) -> int:
        return sum(subject.dimension is Dimension.COUNTRY for subject in self.series)


def watched(merchant: Merchant, now: datetime, *, days: int = _DAYS) -> Watched:
    """The last `days` local days: from the rollups, and from the ledger where it has moved on since."""
    figures = Figures(merchant, period_of(days, now, zone_of(merchant.timezone)))
    whole: dict[datetime, Count] = {}
    series: dict[Subject, dict[datetime, Count]] = {}
    codes: dict[str, dict[datetime, Count]] = {}
    for row in figures.hours:
        if row.hour > now:
            continue
        count = Count(0, 0, row.attempts, row.failed) if row.again else Count(row.attempts, row.failed, 0, 0)
        if row.facet == "code":
            codes.setdefault(row.key, {}).setdefault(row.hour, Count()).add(count)
            continue
        if row.facet == "all":
            subject = Subject(Dimension.CONNECTION, str(row.connection_pk))
            whole.setdefault(row.hour, Count()).add(count)
        else:
            subject = Subject(Dimension.COUNTRY, row.key)
        series.setdefault(subject, {}).setdefault(row.hour, Count()).add(count)
    for code, failed in codes.items():
        series[Subject(Dimension.CODE, code)] = {hour: _part(count, failed.get(hour)) for hour, count in whole.items()}
    names = {str(pk): str(one) for pk, one in figures.connections.items()}
    return Watched(series, names)


def _part(whole: Count, failed: Count | None) -> Count:
    """All attempts of an hour, with only the failures of one code."""
    if failed is None:
        return Count(whole.first, 0, whole.again, 0)
    return Count(whole.first, failed.first_failed, whole.again, failed.again_failed)


_CELLS = """
SELECT a.connection_id::text, COALESCE(card.country, ''), a.raw_code,
       CASE WHEN a.status = 'UNKNOWN' THEN %(unanswered)s ELSE a.category END,
       count(*), count(*) FILTER (WHERE a.status <> 'SUCCEEDED')
FROM invoices_attempt a LEFT JOIN tokens_card card ON card.id = a.card_id
WHERE a.merchant_id = %(merchant)s AND a.attempted_at >= %(start)s AND a.attempted_at <= %(end)s
  AND a.kind = 'CHARGE' AND a.status IN ('SUCCEEDED', 'DECLINED', 'ERRORED', 'UNKNOWN')
GROUP BY 1, 2, 3, 4
"""


def cells_between(merchant: Merchant, start: datetime, end: datetime) -> list[Cell]:
    """The merchant's attempts from `start` to `end` by connection, country, code and category."""
    parameters: dict[str, Any] = {
        "merchant": merchant.pk,
        "start": hour_of(start),
        "end": end,
        "unanswered": UNANSWERED,
    }
    with connection.cursor() as cursor:
        cursor.execute(_CELLS, parameters)
        return [Cell(*row) for row in cursor.fetchall()]


def recent_failures(hours: Hours, since: datetime) -> int:
    return sum_of(count for hour, count in hours.items() if hour >= since).failed
