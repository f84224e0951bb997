"""Staff alerts: written once per event from the outbox, acknowledged by people."""

from collections.abc import Collection
from datetime import datetime

from django.db.models import QuerySet

from invoices.models import Event
from invoices.outbox import Consumer
from notifications.models import Alert

ALERTS = "alerts"
_PREFIX = "alert."


def alert_wanted(kind: str) -> bool:
    """True for events that are alerts (`alert.<name>`)."""
    return kind.startswith(_PREFIX)


def alert_write(event: Event) -> None:
    """The alert of one `alert.<name>` event; writing it again changes nothing."""
    name = event.kind.removeprefix(_PREFIX)
    text = str(event.data.get("text") or f"Alert: {name.replace('_', ' ')}.")
    alert = Alert(
        merchant_id=event.merchant_id,
        invoice_id=event.invoice_id,
        event=event,
        kind=name[:60],
        text=text[:500],
        raised_at=event.occurred_at,
    )
    Alert.objects.bulk_create([alert], ignore_conflicts=True)


CONSUMER = Consumer(name=ALERTS, wants=alert_wanted, handle=alert_write)


def alert_acknowledge(*, merchant_pk: int, alert_pks: Collection[int], by: str, now: datetime) -> int:
    """Mark alerts of this merchant as seen by `by`; the first reader stays. Returns how many changed."""
    return _unread(merchant_pk, alert_pks).update(acknowledged_by=by[:100], acknowledged_at=now)


def _unread(merchant_pk: int, alert_pks: Collection[int]) -> QuerySet[Alert]:
    return Alert.objects.filter(merchant_id=merchant_pk, pk__in=alert_pks, acknowledged_at__isnull=True)
