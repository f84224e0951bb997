"""What the navigation shows on every page."""

from dataclasses import dataclass

from django.db.models import QuerySet

from accounts.models import Merchant
from invoices.models import ReviewItem
from notifications.models import Alert

# Counting stops here: past it the exact number helps nobody and costs time on every page.
_COUNT_LIMIT = 99


@dataclass(frozen=True, slots=True)
class ShellCounts:
    """Open questions and unread alerts of one merchant, each counted up to one past the limit."""

    reviews: int
    alerts: int

    @property
    def reviews_text(self) -> str:
        return _text(self.reviews)

    @property
    def alerts_text(self) -> str:
        return _text(self.alerts)


def shell_counts(merchant: Merchant) -> ShellCounts:
    """Two bounded counts on partial indexes."""
    return ShellCounts(
        reviews=_bounded(ReviewItem.objects.filter(merchant=merchant, resolved_at__isnull=True)),
        alerts=_bounded(Alert.objects.filter(merchant=merchant, acknowledged_at__isnull=True)),
    )


def _bounded(rows: "QuerySet[ReviewItem] | QuerySet[Alert]") -> int:
    return rows.order_by().values("pk")[: _COUNT_LIMIT + 1].count()


def _text(count: int) -> str:
    return "" if count == 0 else str(count) if count <= _COUNT_LIMIT else f"{_COUNT_LIMIT}+"
