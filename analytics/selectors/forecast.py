"""The forecast's inputs: how cases of the months before went, and what is open now."""

from collections import defaultdict
from datetime import timedelta

from analytics.forecast import Curve, Expected, OpenAmount, forecast
from analytics.period import Period
from analytics.rollups.reading import Figures
from retries.states import CaseStatus

# Cases that opened this long ago have ended or will not: their curve is complete.
_YOUNGEST, _OLDEST = 45, 90


def expected_recoveries(figures: Figures) -> list[Expected]:
    """From the rollup of 45 to 90 days ago and the open cases."""
    now, zone = figures.period.end, figures.period.zone
    first = now.astimezone(zone).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=_OLDEST)
    months = Period(_OLDEST - _YOUNGEST + 1, first, now, zone)
    past = Figures(figures.merchant, months, figures.connection_pk, facets=("hours",))
    curves: dict[str, Curve] = defaultdict(Curve)
    for row in past.cases:
        if row.facet == "hours":
            curves[row.category].add(row.cases, int(row.key) if row.status == CaseStatus.RECOVERED else None)
    amounts = [OpenAmount(row.category, row.currency, row.age_days * 24, row.due_minor) for row in figures.open_cases]
    return forecast(curves, amounts)
