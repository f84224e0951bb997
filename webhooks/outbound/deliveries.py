"""Deliveries made from events, put back, and made good where an endpoint had been off."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

import structlog
from django.db import transaction
from django.db.models import Exists, OuterRef, Q, QuerySet

from invoices.models import Event
from invoices.outbox import Consumer
from invoices.services.ledger import Stamp
from recovery_site.common.clock import database_now
from recovery_site.common.db import DatabaseClock, fit, for_no_key_update
from recovery_site.common.errors import Conflict, NotFound
from recovery_site.common.purging import purge
from webhooks.models import Delivery, OutboundEndpoint
from webhooks.outbound.catalogue import PUBLIC_KINDS, EventType, kind_wanted, public_type
from webhooks.outbound.messages import public_event
from webhooks.states import DeliveryStatus
from webhooks.stream.waking import stream_wake

log = structlog.get_logger()
_BATCH = 500


def deliveries_write(event: Event) -> None:
    """One delivery per endpoint of the merchant that wants the event; writing them again changes nothing."""
    kind = public_type(event)
    endpoints = OutboundEndpoint.objects.filter(merchant_id=event.merchant_id, enabled=True) if kind else ()
    _write(event, [endpoint for endpoint in endpoints if _wants(endpoint, kind)])


def _write(event: Event, endpoints: Sequence[OutboundEndpoint]) -> None:
    told = public_event(event) if endpoints else None
    if told is None:
        return
    body = told.body()
    Delivery.objects.bulk_create(
        [
            Delivery(
                merchant_id=event.merchant_id,
                endpoint=endpoint,
                event=event,
                message_id=told.id,
                event_type=told.type,
                body=body,
            )
            for endpoint in endpoints
        ],
        ignore_conflicts=True,
    )


def event_tell(event: Event) -> None:
    """Everything that becomes of a public event: the live stream is woken, the deliveries are written."""
    if public_type(event):
        stream_wake(event.merchant_id)
        deliveries_write(event)


CONSUMER = Consumer(name="webhooks", wants=kind_wanted, handle=event_tell)


@transaction.atomic
def delivery_replay(*, delivery_pk: int, stamp: Stamp) -> None:
    """Send a finished delivery again, with the same message id and body; its tries begin anew.

    Raises NotFound, Conflict if it has not ended or its endpoint is off.
    """
    delivery = for_no_key_update(Delivery.objects.select_related("endpoint").filter(pk=delivery_pk)).first()
    if delivery is None:
        raise NotFound("This delivery does not exist.")
    if delivery.status == DeliveryStatus.PENDING:
        raise Conflict("This delivery is still on its way; it needs no replay.")
    if not delivery.endpoint.enabled:
        raise Conflict("Its endpoint is switched off; switch it on first.")
    _replay([delivery.pk], stamp)


def deliveries_replay_all(*, deliveries: QuerySet[Delivery], stamp: Stamp) -> list[int]:
    """Send every finished delivery among `deliveries` again whose endpoint is on, oldest first, a batch per
    transaction; returns their numbers."""
    replayed: list[int] = []
    after = 0
    while batch := _replay_batch(deliveries.filter(pk__gt=after), stamp):
        replayed += batch
        after = batch[-1]
    return replayed


@transaction.atomic
def _replay_batch(deliveries: QuerySet[Delivery], stamp: Stamp) -> list[int]:
    finished = deliveries.exclude(status=DeliveryStatus.PENDING).filter(endpoint__enabled=True).order_by("pk")
    locked = [delivery.pk for delivery in for_no_key_update(finished.select_related(None).only("pk"))[:_BATCH]]
    _replay(locked, stamp)
    return locked


def _replay(pks: Sequence[int], stamp: Stamp) -> None:
    Delivery.objects.filter(pk__in=pks).update(
        status=DeliveryStatus.PENDING,
        tries=0,
        finished_at=None,
        due_at=DatabaseClock(),
        last_error=fit(Delivery, "last_error", f"Replayed by {stamp.actor}"),
    )
    if pks:
        log.info("deliveries_replayed", count=len(pks), actor=stamp.actor, cause=stamp.cause)


def deliveries_recover(*, endpoint: OutboundEndpoint, since: datetime) -> int:
    """Make the deliveries of events recorded since `since` that this endpoint has never had: it was off, or did not
    exist, or asked for fewer types. Oldest first; returns how many were made."""
    had = Delivery.objects.filter(endpoint=endpoint, event=OuterRef("pk"))
    missed = Event.objects.filter(
        ~Exists(had), merchant_id=endpoint.merchant_id, kind__in=PUBLIC_KINDS, recorded_at__gte=since
    ).order_by("pk")
    made, after = 0, 0
    while window := list(missed.filter(pk__gt=after)[:_BATCH]):
        wanted = [event for event in window if _wants(endpoint, public_type(event))]
        for event in wanted:
            _write(event, [endpoint])
        made += len(wanted)
        after = window[-1].pk
    return made


def _wants(endpoint: OutboundEndpoint, kind: EventType | None) -> bool:
    return kind is not None and (not endpoint.event_types or kind in endpoint.event_types)


def deliveries_purge(*, now: datetime, keep: timedelta, keep_going: Callable[[], bool] = lambda: True) -> int:
    """Delete deliveries, with their log, that ended more than `keep` ago, and those that have waited as long for an
    endpoint that is off; returns how many."""
    old = Delivery.objects.filter(created_at__lt=database_now() - keep)
    ended = Q(finished_at__lt=now - keep) | Q(status=DeliveryStatus.PENDING, endpoint__enabled=False)
    return purge(old, ended, keep_going)
