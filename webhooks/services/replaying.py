"""Finished items put back, so that they are really run again."""

from django.db import transaction
from django.db.models import QuerySet

from invoices.services.ledger import Stamp
from recovery_site.common.db import DatabaseClock, fit, for_no_key_update
from recovery_site.common.errors import Conflict, NotFound
from webhooks.models import InboxEvent
from webhooks.states import InboxStatus

_BATCH = 500


@transaction.atomic
def inbox_replay(*, event_pk: int, stamp: Stamp) -> None:
    """Put a finished item back to RECEIVED; it is really run again. Raises NotFound, Conflict if it is waiting."""
    event = for_no_key_update(InboxEvent.objects.filter(pk=event_pk)).first()
    if event is None:
        raise NotFound("This inbox event does not exist.")
    if event.status == InboxStatus.RECEIVED:
        raise Conflict("This inbox event is already waiting to be processed.")
    event.replay()
    event.attempts, event.reason, event.processed_at = 0, _note(stamp), None
    event.due_at = DatabaseClock()
    event.save(update_fields=["status", "attempts", "reason", "processed_at", "due_at"])


def inbox_replay_all(*, events: QuerySet[InboxEvent], stamp: Stamp) -> list[int]:
    """Put back every finished item among `events`, oldest first, a batch per transaction; returns their numbers.

    Items that end again meanwhile are not put back twice.
    """
    replayed: list[int] = []
    after = 0
    while batch := _replay_batch(events.filter(pk__gt=after), stamp):
        replayed += batch
        after = batch[-1]
    return replayed


@transaction.atomic
def _replay_batch(events: QuerySet[InboxEvent], stamp: Stamp) -> list[int]:
    finished = events.exclude(status=InboxStatus.RECEIVED).order_by("pk")
    locked = [event.pk for event in for_no_key_update(finished.select_related(None).only("pk"))[:_BATCH]]
    InboxEvent.objects.filter(pk__in=locked).update(
        status=InboxStatus.RECEIVED,
        attempts=0,
        reason=_note(stamp),
        processed_at=None,
        due_at=DatabaseClock(),
    )
    return locked


def _note(stamp: Stamp) -> str:
    return fit(InboxEvent, "reason", f"Replayed by {stamp.actor}")
