"""The forecast's inputs: how cases of the months before went, and what is open now."""

from collections import defaultdict
from datetime import timedelta

from django.db import connection

from analytics.forecast import Curve, Expected, OpenAmount, forecast
from analytics.period import Period
from analytics.rollups.reading import Figures
from retries.states import CaseStatus

# Cases that opened this long ago have ended or will not: their curve is complete.
_YOUNGEST, _OLDEST = 45, 90
_OPEN = """
SELECT c.first_category, i.currency, GREATEST(0, floor(extract(epoch FROM %(now)s - c.opened_at) / 86400))::int * 24,
       sum(GREATEST(0, i.amount_minor - i.paid_minor - i.credited_minor))::bigint
FROM retries_case c JOIN invoices_invoice i ON i.id = c.invoice_id
WHERE c.merchant_id = %(merchant)s AND c.status = 'OPEN'
GROUP BY 1, 2, 3
"""


def expected_recoveries(figures: Figures) -> list[Expected]:
    """Two queries: the rollup of 45 to 90 days ago, and the open cases."""
    now, zone = figures.period.end, figures.period.zone
    first = now.astimezone(zone).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=_OLDEST)
    past = Figures(figures.merchant, Period(_OLDEST - _YOUNGEST + 1, first, now, zone), figures.connection_pk)
    curves: dict[str, Curve] = defaultdict(Curve)
    for row in past.cases:
        if row.facet == "hours":
            curves[row.category].add(row.cases, int(row.key) if row.status == CaseStatus.RECOVERED else None)
    with connection.cursor() as cursor:
        cursor.execute(_OPEN, {"merchant": figures.merchant.pk, "now": now})
        amounts = [OpenAmount(*row) for row in cursor.fetchall()]
    return forecast(curves, amounts)
