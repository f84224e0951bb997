"""`process_inbox --dry-run`: what would become of each waiting item and why, with nothing written in the end."""

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from django.db import connection as database
from django.db import transaction
from structlog.contextvars import bound_contextvars

from invoices.models import Event
from webhooks.models import InboxEvent
from webhooks.services.draining import NEXT_DUE, Effect, InboxCounts, item_apply


@dataclass(frozen=True, slots=True)
class ItemForesight:
    """`would` is process, ignore, wait, ask, retry or fail; `events` are the kinds that the ledger would get."""

    id: int
    type: str
    about: str
    would: str
    why: str
    events: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def inbox_explain(*, now: datetime, limit: int) -> list[ItemForesight]:
    """The due items in their order, each applied to what those before it did, and all of it taken back.

    No provider is asked; an item that would have to be asked about says so.
    """
    found: list[ItemForesight] = []
    with transaction.atomic(), bound_contextvars(dry_run=True):
        after = 0
        while len(found) < limit and (event := _next(after)) is not None:
            after = event.pk
            found.append(_foresee(event, now))
        transaction.set_rollback(True)
    return found


def _next(after: int) -> InboxEvent | None:
    with database.cursor() as cursor:
        cursor.execute(NEXT_DUE, {"after": after, "waiting": [], "limit": 1})
        row = cursor.fetchone()
    return InboxEvent.objects.select_related("endpoint__connection").get(pk=row[0]) if row else None


def _foresee(event: InboxEvent, now: datetime) -> ItemForesight:
    before = Event.objects.order_by("-pk").values_list("pk", flat=True).first() or 0
    counts = InboxCounts()
    effect = item_apply(event, now, counts)
    kinds = tuple(Event.objects.filter(pk__gt=before).order_by("pk").values_list("kind", flat=True))
    if effect is Effect.ASKS:
        would, why = "ask", "the provider's API has to be asked first"
    elif effect is Effect.WAITS:
        would, why = "wait", event.reason
    elif counts.processed:
        would, why = "process", f"{len(kinds)} events are written" if kinds else "the ledger knows it already"
    elif counts.ignored:
        would, why = "ignore", event.reason
    else:
        would, why = ("fail" if event.status == "FAILED" else "retry"), event.reason
    return ItemForesight(event.pk, event.event_type, event.order_key, would, why, kinds)
