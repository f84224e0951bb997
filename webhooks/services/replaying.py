"""Finished items put back, so that they are really run again."""

from django.db import transaction

from invoices.services.ledger import Stamp
from recovery_site.common.db import DatabaseClock, fit, for_no_key_update
from recovery_site.common.errors import Conflict, NotFound
from webhooks.models import InboxEvent
from webhooks.states import InboxStatus


@transaction.atomic
def inbox_replay(*, event_pk: int, stamp: Stamp) -> None:
    """Put a finished item back to RECEIVED; it is really run again. Raises NotFound, Conflict if it is waiting."""
    event = for_no_key_update(InboxEvent.objects.filter(pk=event_pk)).first()
    if event is None:
        raise NotFound("This inbox event does not exist.")
    if event.status == InboxStatus.RECEIVED:
        raise Conflict("This inbox event is already waiting to be processed.")
    event.replay()
    event.attempts, event.reason, event.processed_at = 0, fit(InboxEvent, "reason", f"Replayed by {stamp.actor}"), None
    event.due_at = DatabaseClock()
    event.save(update_fields=["status", "attempts", "reason", "processed_at", "due_at"])
