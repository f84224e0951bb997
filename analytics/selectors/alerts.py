"""The alert list."""

from dataclasses import dataclass

from accounts.models import Merchant
from notifications.models import Alert

PAGE = 50


@dataclass(frozen=True, slots=True)
class AlertPage:
    """One page, newest first; `older_than` is the cursor of the next page, None at the end."""

    alerts: tuple[Alert, ...]
    older_than: int | None


def alert_page(merchant: Merchant, *, unread_only: bool, older_than: int | None, size: int = PAGE) -> AlertPage:
    """A page of the merchant's alerts by descending primary key; one query."""
    found = Alert.objects.filter(merchant=merchant).select_related("invoice__customer")
    if unread_only:
        found = found.filter(acknowledged_at__isnull=True)
    if older_than is not None:
        found = found.filter(pk__lt=older_than)
    alerts = list(found.order_by("-pk")[: size + 1])
    shown = tuple(alerts[:size])
    return AlertPage(shown, shown[-1].pk if len(alerts) > size else None)
