"""The outbox: every consumer hears of every event it wants, at least once, in the order of their transactions."""

import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

import structlog
from django.db import connection as database
from django.db.models import F, Q, QuerySet

from invoices import outbox
from invoices.models import Event, OutboxMessage
from recovery_site.common.clock import database_now
from recovery_site.common.db import DatabaseClock
from recovery_site.common.purging import purge
from recovery_site.common.scrubbing import scrub_text

log = structlog.get_logger()
BATCH = 20
# A claimed message is due again after this long, in case its worker died; longer than a batch of slow consumers takes.
LEASE = timedelta(minutes=5)
# The pause after each failed try, lengthened by up to a quarter so that what failed together does not return together.
BACK_OFF = tuple(
    timedelta(seconds=seconds) for seconds in (10, 60, 5 * 60, 30 * 60, 2 * 3600, 6 * 3600, 12 * 3600, 24 * 3600)
)
MAX_TRIES = len(BACK_OFF) + 1
_JITTER = 0.25
# A message whose consumer is not part of this installation now waits until it is.
_UNREGISTERED_PAUSE = timedelta(hours=1)
# In the order of the transactions, and nothing above the oldest one that still runs: it may bring an earlier event
# (DESIGN section 5).
_CLAIM = """
WITH due AS (
    SELECT message.id, event.xid, event.id AS event_id
    FROM invoices_outboxmessage message JOIN invoices_event event ON event.id = message.event_id
    WHERE message.done_at IS NULL AND message.dead_at IS NULL AND message.due_at <= clock_timestamp()
      AND event.xid < pg_snapshot_xmin(pg_current_snapshot())
    ORDER BY event.xid, event.id, message.id
    LIMIT %(limit)s
    FOR NO KEY UPDATE OF message SKIP LOCKED
), claimed AS (
    UPDATE invoices_outboxmessage message
    SET due_at = clock_timestamp() + %(lease)s, attempts = attempts + 1
    FROM due WHERE message.id = due.id
    RETURNING message.id
)
SELECT claimed.id FROM claimed JOIN due USING (id) ORDER BY due.xid, due.event_id, due.id
"""


@dataclass(slots=True)
class OutboxCounts:
    """What a drain did; `dead` are those given up after MAX_TRIES."""

    done: int = 0
    retried: int = 0
    dead: int = 0

    @property
    def total(self) -> int:
        return self.done + self.retried + self.dead

    def as_dict(self) -> dict[str, int]:
        return asdict(self)


def outbox_drain(*, now: datetime, limit: int = 500, keep_going: Callable[[], bool] = lambda: True) -> OutboxCounts:
    """Give up to `limit` due messages to their consumers, oldest transaction first, with no transaction open.

    `keep_going` is asked before each batch. Claims and back-off live on the database clock, `now` is only written down
    as the time of the end. A consumer that raises gets the message again later; after MAX_TRIES it is dead and listed.
    """
    counts = OutboxCounts()
    while counts.total < limit and keep_going():
        claimed = _claim(min(BATCH, limit - counts.total))
        if not claimed:
            break
        _deliver_all(claimed, now, counts)
    return counts


def _claim(limit: int) -> list[int]:
    with database.cursor() as cursor:
        parameters: dict[str, Any] = {"limit": limit, "lease": LEASE}
        cursor.execute(_CLAIM, parameters)
        return [pk for (pk,) in cursor.fetchall()]


def _deliver_all(claimed: Sequence[int], now: datetime, counts: OutboxCounts) -> None:
    """One statement reads a batch and one writes down what of it was handled: should the worker die before, its
    consumers hear again of a batch instead of one message."""
    messages = OutboxMessage.objects.select_related("event").in_bulk(claimed)
    handled: list[int] = []
    try:
        for pk in claimed:
            _deliver(messages[pk], now, counts, handled)
    finally:
        if handled:
            counts.done += _open(handled).update(done_at=now, last_error="")


def _deliver(message: OutboxMessage, now: datetime, counts: OutboxCounts, handled: list[int]) -> None:
    """What its consumer has handled is added to `handled`; what else becomes of it is written down at once."""
    consumer = outbox.consumer(message.consumer)
    if consumer is None:
        _keep(message)
        counts.retried += 1
        return
    if message.attempts > MAX_TRIES:
        _failed(message, "Its worker died at every try.", now, counts)
        return
    error = _handle(message.event, consumer)
    if error:
        _failed(message, error, now, counts)
        return
    handled.append(message.pk)


def _handle(event: Event, consumer: outbox.Consumer) -> str:
    """The error in words, empty if the consumer has handled the event."""
    try:
        consumer.handle(event)
    except Exception as error:  # the sweep loop: one consumer must not stop the others, and nothing is lost
        log.exception("outbox_failed", consumer=consumer.name, outbox_event=event.pk, kind=event.kind)
        return scrub_text(f"{type(error).__name__}: {error}")[:500]
    return ""


def _failed(message: OutboxMessage, error: str, now: datetime, counts: OutboxCounts) -> None:
    if message.attempts >= MAX_TRIES:
        _open([message.pk]).update(dead_at=now, last_error=error)
        counts.dead += 1
        log.error(
            "outbox_dead",
            consumer=message.consumer,
            outbox_event=message.event_id,
            kind=message.event.kind,
            tries=message.attempts,
            error=error,
        )
        return
    pause = BACK_OFF[message.attempts - 1] * random.uniform(1, 1 + _JITTER)
    _open([message.pk]).update(due_at=DatabaseClock() + pause, last_error=error)
    counts.retried += 1


def _keep(message: OutboxMessage) -> None:
    """Nobody is there to handle it: that is no failed try, whenever the consumer comes back."""
    error = f"No consumer named {message.consumer} is registered; install its app again or delete the message."
    _open([message.pk]).update(
        due_at=DatabaseClock() + _UNREGISTERED_PAUSE, last_error=error, attempts=F("attempts") - 1
    )
    log.warning("outbox_unregistered", consumer=message.consumer, outbox_event=message.event_id)


def _open(pks: Sequence[int]) -> QuerySet[OutboxMessage]:
    return OutboxMessage.objects.filter(pk__in=pks, done_at=None, dead_at=None)


def outbox_purge(*, now: datetime, keep: timedelta, keep_going: Callable[[], bool] = lambda: True) -> int:
    """Delete messages that were handled more than `keep` ago; returns how many. What is dead stays and is listed."""
    old = OutboxMessage.objects.filter(event__recorded_at__lt=database_now() - keep)
    return purge(old, Q(done_at__lt=now - keep), keep_going)
