"""The forecast's inputs: how cases of the months before went, and what is open now."""

from collections import defaultdict

from analytics.forecast import Curve, Expected, OpenAmount, forecast
from analytics.rollups.reading import Figures


def expected_recoveries(figures: Figures) -> list[Expected]:
    """From the ripe cases' curves, and the open cases."""
    curves: dict[str, Curve] = defaultdict(Curve)
    for row in figures.lengths:
        if row.ripe:
            curves[row.category].add(row.cases, row.hours)
    amounts = [OpenAmount(row.category, row.currency, row.age_days * 24, row.due_minor) for row in figures.open_cases]
    return forecast(curves, amounts)
