"""Staff alerts: raised once while they are open, handed to the merchant's routes, acknowledged by people."""

from collections.abc import Collection
from datetime import datetime

from django.db import transaction
from django.db.models import F, QuerySet

from invoices.models import Event
from invoices.outbox import Consumer
from notifications.models import Alert, AlertDelivery, AlertRoute
from notifications.states import DeliveryStatus

ALERTS = "alerts"
_PREFIX = "alert."


def alert_wanted(kind: str) -> bool:
    """True for events that are alerts (`alert.<name>`)."""
    return kind.startswith(_PREFIX)


def alert_write(event: Event) -> None:
    """The alert of one `alert.<name>` event; writing it again changes nothing.

    The same alert of the same subject counts up the open one instead of standing beside it.
    """
    name = event.kind.removeprefix(_PREFIX)
    text = str(event.data.get("text") or f"Alert: {name.replace('_', ' ')}.")
    _raise(
        Alert(
            merchant_id=event.merchant_id,
            invoice_id=event.invoice_id,
            event=event,
            kind=name[:60],
            dedupe_key=event.subject_id[:200],
            text=text[:500],
            raised_at=event.occurred_at,
        )
    )


CONSUMER = Consumer(name=ALERTS, wants=alert_wanted, handle=alert_write)


def alert_raise(*, merchant_pk: int, kind: str, key: str, text: str, link: str = "", now: datetime) -> Alert:
    """Tell a merchant's staff something that belongs to no single invoice (a spike, a silent webhook endpoint).

    While an alert of that `kind` and `key` is open, raising it again only counts it up and updates `text`: nobody is
    told twice. `text` is one plain sentence, `link` a path of this service. Invoices raise theirs through the ledger
    (`invoices.services.ledger.alert`).
    """
    return _raise(
        Alert(
            merchant_id=merchant_pk,
            kind=kind[:60],
            dedupe_key=key[:200],
            text=text[:500],
            link=link[:300],
            raised_at=now,
        )
    )


@transaction.atomic
def alert_close(*, merchant_pk: int, kind: str, key: str, text: str, now: datetime) -> None:
    """What an alert told of is over: its text becomes `text`, and whoever heard of it hears the end, once.

    A route whose first word has not left yet gets only this one. Does nothing if there is no such alert.
    """
    raised = Alert.objects.filter(merchant_id=merchant_pk, kind=kind, dedupe_key=key, over_at=None)
    alert = raised.order_by("-pk").select_for_update(no_key=True).first()
    if alert is None:
        return
    alert.text, alert.over_at = text[:500], now
    alert.save(update_fields=["text", "over_at"])
    told = AlertDelivery.objects.filter(alert=alert, status=DeliveryStatus.SENT, route__enabled=True)
    AlertDelivery.objects.bulk_create(
        [
            AlertDelivery(merchant_id=merchant_pk, alert=alert, route_id=route_pk, closing=True, due_at=now)
            for route_pk in told.values_list("route_id", flat=True)
        ],
        ignore_conflicts=True,
    )


@transaction.atomic
def _raise(alert: Alert) -> Alert:
    """Store the alert with a delivery for each route that hears of it, or count up the one that is open."""
    if alert.event_id is not None and Alert.objects.filter(event_id=alert.event_id).exists():
        return alert
    told = {name: getattr(alert, name) for name in ("invoice_id", "event_id", "text", "link", "raised_at")}
    same = {name: getattr(alert, name) for name in ("merchant_id", "kind", "dedupe_key")}
    stored, new = Alert.objects.select_for_update(no_key=True, of=("self",)).get_or_create(
        **same, acknowledged_at=None, defaults=told
    )
    if new:
        _deliveries(stored)
    elif alert.event_id is None or (stored.event_id or 0) < alert.event_id:
        # The newest event stays beside the alert, so that one handed over twice is counted once.
        Alert.objects.filter(pk=stored.pk).update(
            repeats=F("repeats") + 1, repeated_at=alert.raised_at, text=alert.text, event_id=alert.event_id
        )
    return stored


def _deliveries(alert: Alert) -> None:
    routes = AlertRoute.objects.filter(merchant_id=alert.merchant_id, enabled=True)
    AlertDelivery.objects.bulk_create(
        [
            AlertDelivery(merchant_id=alert.merchant_id, alert=alert, route=route, due_at=alert.raised_at)
            for route in routes
            if route.hears(alert.kind)
        ],
        ignore_conflicts=True,
    )


def alert_acknowledge(*, merchant_pk: int, alert_pks: Collection[int], by: str, now: datetime) -> int:
    """Mark alerts of this merchant as seen by `by`; the first reader stays. Returns how many changed."""
    return _unread(merchant_pk, alert_pks).update(acknowledged_by=by[:100], acknowledged_at=now)


def _unread(merchant_pk: int, alert_pks: Collection[int]) -> QuerySet[Alert]:
    return Alert.objects.filter(merchant_id=merchant_pk, pk__in=alert_pks, acknowledged_at__isnull=True)
