"""What the stream reads: a merchant's public events in the order of their transactions, below PostgreSQL's horizon.

An event above the horizon may still be overtaken by one that commits later with a smaller transaction id, so nothing
above it is told yet: that is why a late commit is never lost (DESIGN section 5).
"""

import re
from dataclasses import dataclass
from typing import Any

import structlog
from django.db import connection as database

from invoices.models import Event
from webhooks.outbound.catalogue import PUBLIC_KINDS, stream_name
from webhooks.outbound.messages import public_event

log = structlog.get_logger()
_BATCH = 100
_SHAPE = re.compile(r"(\d{1,19})-(\d{1,19})", re.ASCII)
_HORIZON = "SELECT pg_snapshot_xmin(pg_current_snapshot())::text"
_NEXT = """
SELECT id, xid::text FROM invoices_event
WHERE merchant_id = %(merchant)s AND kind = ANY(%(kinds)s)
  AND (xid, id) > (%(xid)s::text::xid8, %(event)s) AND xid < %(horizon)s::text::xid8
ORDER BY xid, id LIMIT %(limit)s
"""


@dataclass(frozen=True, order=True, slots=True)
class Position:
    """A place in the stream: everything up to this event of this transaction was told. Written `<xid>-<event>`."""

    xid: int
    event: int

    def __str__(self) -> str:
        return f"{self.xid}-{self.event}"


def position_from(text: str) -> Position | None:
    """A Last-Event-ID as a position, None if it is none of ours."""
    found = _SHAPE.fullmatch(text)
    return Position(int(found[1]), int(found[2])) if found else None


def position_now() -> Position:
    """Where a reader begins who has heard nothing yet: before whatever is still running."""
    with database.cursor() as cursor:
        cursor.execute(_HORIZON)
        return Position(int(cursor.fetchone()[0]), 0)


@dataclass(frozen=True, slots=True)
class Message:
    """One event of the stream. `body` is the document that webhooks out send."""

    position: Position
    name: str
    body: str

    def encoded(self) -> bytes:
        return f"id: {self.position}\nevent: {self.name}\ndata: {self.body}\n\n".encode()


@dataclass(frozen=True, slots=True)
class Window:
    """Messages in order. Everything up to `until` is told with them; `more` are known to follow."""

    messages: tuple[Message, ...]
    until: Position
    more: bool


def window_read(merchant_pk: int, after: Position, limit: int = _BATCH) -> Window:
    """The public events of a merchant behind `after`, at most `limit` of them.

    The horizon is asked for first: whatever stands below it has ended, so that the second statement sees all of it.
    """
    horizon = position_now()
    values: dict[str, Any] = {
        "merchant": merchant_pk,
        "kinds": list(PUBLIC_KINDS),
        "xid": str(after.xid),
        "event": after.event,
        "horizon": str(horizon.xid),
        "limit": limit,
    }
    with database.cursor() as cursor:
        cursor.execute(_NEXT, values)
        places = {pk: Position(int(xid), pk) for pk, xid in cursor.fetchall()}
    events = Event.objects.in_bulk(places)
    messages = [told for pk, place in places.items() if (told := _message(events[pk], place)) is not None]
    more = len(places) == limit
    return Window(tuple(messages), max(places.values()) if more else max(after, horizon), more)


def _message(event: Event, place: Position) -> Message | None:
    try:
        told = public_event(event)
    except Exception:  # a follower's loop: one event that cannot be told must not silence all that come after it
        log.exception("stream_event_untold", stream_event=event.pk, kind=event.kind)
        return None
    return Message(place, stream_name(told.type), told.body()) if told else None
