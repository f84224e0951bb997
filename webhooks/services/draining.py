"""The inbox worked off: every item once, in order where order matters, and nothing that is stuck holds up the rest."""

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from enum import Enum
from functools import partial
from typing import Any, TypeAlias

import structlog
from django.db import transaction
from django.db.models import Q

from providers import registry
from providers.base import Ignored, InboundItem, Meaning, PaymentEvent, Proof, Thin
from recovery_site.common.clock import to_real_seconds
from recovery_site.common.compiled import AnyOf, Compiled, Param
from recovery_site.common.db import DatabaseClock, fit, for_no_key_update, prepared_cursor
from recovery_site.common.errors import RecoveryError
from recovery_site.common.in_step import Alone, beside_others, in_step_as_chosen, undone_if_raised
from recovery_site.common.rows import row_save
from recovery_site.common.scrubbing import scrub_text
from recovery_site.common.text import storable
from retries.handler import EventWaits, event_apply, event_ask, must_ask
from tokens.mirror import mirrored_together
from webhooks.models import InboxEvent, WebhookEndpoint
from webhooks.states import InboxStatus

log = structlog.get_logger()
# A failed item is tried again this long after each failure, then it is FAILED and listed.
_BACK_OFF = (timedelta(seconds=10), timedelta(minutes=1), timedelta(minutes=10), timedelta(hours=1))
# An item whose counterpart never comes (a refund of an unknown payment) is put aside after this long: Stripe and Paddle
# deliver a webhook for three days, so what it waits for may still come until then.
_WAIT_AT_MOST = timedelta(days=4)
# How long the provider's API may take over an item before another drain asks again.
_ASKS_FOR = timedelta(minutes=2)
# A waiting item is looked at again after this share of the time it has waited already.
_WAIT_SHARE = 0.1


@dataclass(slots=True)
class InboxCounts:
    """What a drain did; items that wait for another event are in none of the three. `failed`: refused for good, or
    put back for another try because of an error."""

    processed: int = 0
    failed: int = 0
    ignored: int = 0

    def add(self, other: "InboxCounts") -> None:
        self.processed += other.processed
        self.failed += other.failed
        self.ignored += other.ignored

    def as_dict(self) -> dict[str, int]:
        return asdict(self)


class Effect(Enum):
    """What one item did. MOVED: the ledger may have changed, so that waiting items are worth another look. ASKS:
    the provider's API has to be asked first, outside of any transaction. LATER: nothing, but what it did not find may
    be what an item beside it wrote; to be done again, alone."""

    MOVED = "moved"
    NONE = "none"
    WAITS = "waits"
    ASKS = "asks"
    LATER = "later"


# In order of arrival. One that another worker holds is passed over, and so are those behind it with the same key.
NEXT_DUE = """
SELECT event.id FROM webhooks_inboxevent event
WHERE event.status = 'RECEIVED' AND event.id > %(after)s
  AND (event.due_at <= clock_timestamp() OR event.id = ANY(%(waiting)s))
  AND (event.order_key = '' OR NOT EXISTS (
    SELECT 1 FROM webhooks_inboxevent earlier
    WHERE earlier.endpoint_id = event.endpoint_id AND earlier.order_key = event.order_key
      AND earlier.status = 'RECEIVED' AND earlier.id < event.id AND earlier.due_at <= clock_timestamp()
  ))
ORDER BY event.id LIMIT %(limit)s FOR NO KEY UPDATE OF event SKIP LOCKED
"""
# Items that are processed in one transaction.
TOGETHER = 64
# Waiting items that one drain looks at again; those beyond it have their due time like all others.
_WAITING_LOOKED_AT = 1000


def inbox_drain(*, now: datetime, keep_going: Callable[[], bool] = lambda: True) -> InboxCounts:
    """Process every due item, some of them in one transaction; `keep_going` is asked before each.

    Any number of drains may run at once: no item is processed twice, and the items of one endpoint with the same order
    key are begun in order of arrival, each after the one before has ended. An item that waits for another event, or
    that failed and is to be tried again, steps out of this order, so that it holds up nothing. A waiting item gets
    another turn when later ones of the same drain have moved the ledger, else when it is due again.
    """
    counts, waiting, looked_at = InboxCounts(), set[int](), list[int]()
    again = True
    with mirrored_together() as mirror:
        while again and keep_going():  # each time the next one of every order key
            again, moved, after = False, False, 0
            while keep_going() and (done := _step(after, looked_at, now, counts)):
                after = max(done)
                for pk, effect in done.items():
                    again = again or effect is not Effect.WAITS or pk not in waiting
                    moved = moved or effect is Effect.MOVED
                    if effect is Effect.WAITS:
                        waiting.add(pk)
                    else:
                        waiting.discard(pk)
                mirror()
            looked_at = sorted(waiting)[:_WAITING_LOOKED_AT] if moved else []
    return counts


# An item, what came of it, and what it adds to the counts once that is committed.
_Processed: TypeAlias = tuple[InboxEvent, Effect, InboxCounts]
_ITEMS = Compiled(lambda: InboxEvent.objects.filter(AnyOf("pk", Param("pks"))).order_by("pk"))
_ENDPOINTS = Compiled(
    lambda: WebhookEndpoint.objects.filter(AnyOf("pk", Param("pks"))).order_by("pk").select_related("connection")
)
_LOCKED = Compiled(
    lambda: (
        InboxEvent.objects.filter(AnyOf("pk", Param("pks")), status=InboxStatus.RECEIVED)
        .filter(Q(due_at__lte=DatabaseClock()) | Q(AnyOf("pk", Param("waiting"))))
        .select_for_update(no_key=True, skip_locked=True)
        .order_by("pk")
    )
)


def _step(after: int, waiting: Collection[int], now: datetime, counts: InboxCounts) -> dict[int, Effect]:
    """Process the first due items behind `after`, what came of each; empty if there is none.

    Those that could not go with the others (of the same customer, mostly) go together again without them, as long as
    that helps, then alone.
    """
    found = _together(partial(_due, after, waiting), now, counts)
    done = dict[int, Effect]()
    while True:
        left = [pk for pk, effect in found.items() if effect is None]
        done |= {pk: effect for pk, effect in found.items() if effect is not None}
        if not left:
            return done
        if len(left) == len(found):
            return done | {pk: _alone(pk, waiting, now, counts) for pk in left}
        found = _together(partial(_lock, left, waiting), now, counts)


def _due(after: int, waiting: Collection[int]) -> list[InboxEvent]:
    with prepared_cursor() as cursor:
        cursor.execute(NEXT_DUE, {"after": after, "waiting": list(waiting), "limit": TOGETHER})
        pks = [pk for (pk,) in cursor.fetchall()]
    return _ITEMS.all(pks=pks)


def _lock(pks: Sequence[int], waiting: Collection[int]) -> list[InboxEvent]:
    """Those that are still to be done: another drain may have had them, and put them back for later."""
    return _LOCKED.all(pks=list(pks), waiting=list(waiting))


def _with_endpoints(events: list[InboxEvent]) -> list[InboxEvent]:
    """The same, each with its endpoint and connection; many share one."""
    found = {one.pk: one for one in _ENDPOINTS.all(pks=sorted({event.endpoint_id for event in events}))}
    for event in events:
        event.endpoint = found[event.endpoint_id]
    return events


def _together(choose: Callable[[], list[InboxEvent]], now: datetime, counts: InboxCounts) -> dict[int, Effect | None]:
    """Lock items and process them in one transaction; None for those that must go otherwise."""
    chosen = list[int]()

    def works() -> list[Callable[[], _Processed]]:
        events = choose()
        chosen.extend(event.pk for event in events)
        return [partial(_beside_others, event, now) for event in _with_endpoints(events)]

    effects: dict[int, Effect | None] = {}
    for pk, one in zip(chosen, in_step_as_chosen(works), strict=True):
        effects[pk] = None
        if one is None or one.result[1] is Effect.LATER:
            continue
        event, effect, counted = one.result
        if effect in (Effect.MOVED, Effect.NONE):
            _log(event)
        effects[pk] = _ended(event, effect, counted, now, counts)
    return effects


def _beside_others(event: InboxEvent, now: datetime) -> _Processed:
    if event.reason:
        raise Alone("It waited or failed before: it would take the others' work back with its own.")
    return _processed(event, now)


def _processed(event: InboxEvent, now: datetime) -> _Processed:
    counts = InboxCounts()
    return event, item_apply(event, now, counts), counts


def _alone(pk: int, waiting: Collection[int], now: datetime, counts: InboxCounts) -> Effect:
    with transaction.atomic():
        locked = _with_endpoints(_lock([pk], waiting))
        if not locked:
            return Effect.NONE  # another drain has it
        processed = _processed(locked[0], now)
    return _ended(*processed, now, counts)


def _ended(event: InboxEvent, effect: Effect, counted: InboxCounts, now: datetime, counts: InboxCounts) -> Effect:
    counts.add(counted)
    return _ask(event, now, counts) if effect is Effect.ASKS else effect


def item_apply(event: InboxEvent, now: datetime, counts: InboxCounts) -> Effect:
    """Process one locked item in the caller's transaction."""
    return _process(event, lambda: _applied(event, now), now, counts)


class _Later(BaseException):
    """Nothing came of an item beside others. What it has written by then (a customer it named) may stay."""


class _MustAsk(Exception):
    """Nothing is written; the provider's API comes first."""


def _process(event: InboxEvent, work: Callable[[], str], now: datetime, counts: InboxCounts) -> Effect:
    """Do the work of one locked item, which returns the reason why nothing happened, and note how it ended."""
    try:
        with undone_if_raised():
            reason = work()
    except _Later:
        return Effect.LATER
    except _MustAsk as asks:
        _not_beside_others(asks)  # one at a time, so that none waits for the others' answers
        # Not due for others while this one asks.
        event.due_at = DatabaseClock() + _ASKS_FOR
        event.save(update_fields=["due_at"])
        return Effect.ASKS
    except EventWaits as waits:
        return _wait(event, waits, now, counts)
    except RecoveryError as error:
        _not_beside_others(error)
        _reject(event, f"{error.code}: {error.message}", now, counts)
        return Effect.NONE
    except Exception as error:  # the webhook receiver: one bad item must not stop the others, and nothing is lost
        _not_beside_others(error)
        log.exception("inbox_item_failed", inbox_event=event.pk, type=event.event_type)
        _back_off(event, f"{type(error).__name__}: {error}", now, counts)
        return Effect.NONE
    if reason:
        counts.ignored += 1
    else:
        counts.processed += 1
    _end(event, "ignore" if reason else "process", reason, now)
    return Effect.NONE if reason else Effect.MOVED


def _not_beside_others(error: Exception) -> None:
    """An error beside others may come of what they have not written yet: it counts once it comes again, alone."""
    if beside_others():
        raise Alone(type(error).__name__) from error


def _ask(event: InboxEvent, now: datetime, counts: InboxCounts) -> Effect:
    """Ask the provider's API about an item, with no transaction open, and apply what it said.

    Another drain may have finished the item meanwhile: then there is nothing left to do.
    """
    answer: PaymentEvent | Ignored | Exception
    try:
        meaning = _meaning(event)
        answer = meaning if isinstance(meaning, Ignored) else event_ask(meaning, event.endpoint.connection)
    except Exception as error:  # noqa: BLE001  # raised again below, where what becomes of the item is written
        answer = error

    def work() -> str:
        if isinstance(answer, Exception):
            raise answer
        return _handled(answer, event, now)

    with transaction.atomic():
        if not for_no_key_update(InboxEvent.objects.filter(pk=event.pk, status=InboxStatus.RECEIVED)).exists():
            return Effect.NONE
        return _process(event, work, now, counts)


def _finish(event: InboxEvent, move: str, reason: str, now: datetime) -> None:
    getattr(event, move)()
    event.reason, event.processed_at = _reason(reason), now
    row_save(event, "status", "reason", "processed_at")


def _end(event: InboxEvent, move: str, reason: str, now: datetime) -> None:
    """Finish an item and say so; of those that go together that is said once it is committed."""
    _finish(event, move, reason, now)
    if not beside_others():
        _log(event)


def _log(event: InboxEvent) -> None:
    log.info("inbox_item", inbox_event=event.pk, type=event.event_type, status=event.status, reason=event.reason)


def _reason(text: str) -> str:
    """What is kept of a reason: an error may quote what was sent."""
    return fit(InboxEvent, "reason", storable(scrub_text(text)))


def _applied(event: InboxEvent, now: datetime) -> str:
    """The reason why nothing happened, or an empty string."""
    meaning = _meaning(event)
    if not isinstance(meaning, Ignored) and must_ask(meaning, event.endpoint.connection):
        raise _MustAsk
    return _handled(meaning, event, now)


def _meaning(event: InboxEvent) -> Meaning:
    payload: Mapping[str, Any] = json.loads(event.body)
    item = InboundItem(
        event_id=event.provider_event_id,
        event_type=event.event_type,
        order_key=event.order_key,
        payload=payload,
        proof=Proof(event.proof),
        received_at=event.received_at,
    )
    return registry.dialect(event.endpoint.provider).parse(item)


def _handled(meaning: Meaning, event: InboxEvent, now: datetime) -> str:
    if isinstance(meaning, Ignored):
        return meaning.reason
    assert not isinstance(meaning, Thin), "a thin event is asked about first"
    handled = event_apply(event=meaning, connection=event.endpoint.connection, cause=f"inbox:{event.pk}", now=now)
    if not handled.effect and beside_others():
        raise _Later
    return handled.reason


def _wait(event: InboxEvent, waits: EventWaits, now: datetime, counts: InboxCounts) -> Effect:
    """Look again later, the longer it has waited the more rarely: a refund of a payment that was made before this
    service was connected waits in vain, and there may be many."""
    age = now - event.received_at
    if age > _WAIT_AT_MOST:
        reason = f"Put aside after {_WAIT_AT_MOST.days} days: {waits.message}"
        _end(event, "ignore", reason, now)
        counts.ignored += 1
        return Effect.NONE
    if event.reason != _reason(waits.message):
        log.info("inbox_item", inbox_event=event.pk, type=event.event_type, status="waits", reason=waits.message)
    seldom = timedelta(seconds=max(0.0, to_real_seconds(age)) * _WAIT_SHARE)
    event.reason, event.due_at = _reason(waits.message), DatabaseClock() + max(waits.retry_after, seldom)
    event.save(update_fields=["reason", "due_at"])
    return Effect.WAITS


def _reject(event: InboxEvent, reason: str, now: datetime, counts: InboxCounts) -> None:
    """What cannot be true will not become true: FAILED at once, listed, replayable."""
    _finish(event, "fail", reason, now)
    counts.failed += 1
    log.warning("inbox_item_refused", inbox_event=event.pk, type=event.event_type, reason=event.reason)


def _back_off(event: InboxEvent, reason: str, now: datetime, counts: InboxCounts) -> None:
    if event.attempts >= len(_BACK_OFF):
        _reject(event, reason, now, counts)
        return
    event.reason, event.due_at = _reason(reason), DatabaseClock() + _BACK_OFF[event.attempts]
    event.attempts += 1
    event.save(update_fields=["attempts", "reason", "due_at"])
    counts.failed += 1
