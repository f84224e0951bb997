"""The inbox: durable before the sender hears 200, processed apart, replayable."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

import structlog
from django.db import connection as database
from django.db import transaction
from django.db.models.functions import Now

from accounts.models import Merchant
from invoices.models import Connection
from invoices.services.ledger import Stamp
from invoices.services.parties import connection_create
from invoices.states import ConnectionMode
from providers import registry
from providers.base import Ignored, InboundItem, InboundRequest
from recovery_site.common.crypto import decrypt_json, encrypt_json
from recovery_site.common.db import for_no_key_update
from recovery_site.common.errors import Conflict, InvalidInput, NotFound, RecoveryError
from recovery_site.common.scrubbing import scrub
from retries.handler import EventWaits, event_handle
from webhooks.models import InboxEvent, WebhookEndpoint
from webhooks.states import InboxStatus

log = structlog.get_logger()
# A failed item is tried again this long after each failure, then it is FAILED and listed.
_BACK_OFF = (timedelta(seconds=10), timedelta(minutes=1), timedelta(minutes=10), timedelta(hours=1))
# An item whose counterpart never comes (a refund of an unknown payment) is put aside after this long.
_WAIT_AT_MOST = timedelta(days=1)


@transaction.atomic
def endpoint_create(
    *, merchant: Merchant, provider: str, secret: str, connection: Connection | None = None
) -> WebhookEndpoint:
    """An inbound address for one provider account.

    Without a connection the merchant's only connection of that provider is used; if there is none, an observe-only
    one is made, so that events are recorded and nothing is charged. Raises InvalidInput.
    """
    registry.dialect(provider)
    if not secret:
        raise InvalidInput("A webhook endpoint needs the secret that its provider signs with.")
    if connection is None:
        found = list(Connection.objects.filter(merchant=merchant, provider=provider)[:2])
        if len(found) > 1:
            raise InvalidInput(f"{merchant} has several {provider} connections; say which one with --connection.")
        connection = (
            found[0]
            if found
            else connection_create(merchant=merchant, provider=provider, config={"mode": ConnectionMode.OBSERVE})
        )
    return WebhookEndpoint.objects.create(
        merchant=merchant,
        connection=connection,
        provider=provider,
        secrets_encrypted=encrypt_json({"current": secret}),
    )


@transaction.atomic
def endpoint_rotate(*, endpoint_pk: int, secret: str) -> None:
    """A new secret; the one before stays valid until the next rotation."""
    endpoint = for_no_key_update(WebhookEndpoint.objects.filter(pk=endpoint_pk)).get()
    current = decrypt_json(endpoint.secrets_encrypted).get("current", "")
    endpoint.secrets_encrypted = encrypt_json({"current": secret, "previous": current})
    endpoint.save(update_fields=["secrets_encrypted"])


def endpoint_secrets(endpoint: WebhookEndpoint) -> list[str]:
    """The current secret, then the previous one if there is one."""
    secrets = decrypt_json(endpoint.secrets_encrypted)
    return [secrets[name] for name in ("current", "previous") if secrets.get(name)]


def inbox_receive(
    *, endpoint: WebhookEndpoint, request: InboundRequest, now: datetime, clock: float, tolerance_seconds: int
) -> int:
    """Verify, split and store one inbound webhook; returns how many new items it brought.

    `clock` is the real Unix time for the signature's age. Raises SignatureInvalid or BodyMalformed; a repeated item is
    no error and stored once. Two queries whatever the number of items.
    """
    dialect = registry.dialect(endpoint.provider)
    dialect.verify(request, endpoint_secrets(endpoint), now=clock, tolerance_seconds=tolerance_seconds)
    items = dialect.split(request)
    body_hash = hashlib.sha256(request.body).hexdigest()
    rows = [
        InboxEvent(
            merchant_id=endpoint.merchant_id,
            endpoint=endpoint,
            provider_event_id=item.event_id[:300],
            event_type=item.event_type[:120],
            order_key=item.order_key[:300],
            body=json.dumps(scrub(dict(item.payload)), separators=(",", ":"), ensure_ascii=False).replace(
                "\\u0000", ""
            ),
            body_hash=body_hash,
            received_at=now,
        )
        for item in items
    ]
    with transaction.atomic():
        before = _known(endpoint, rows)
        InboxEvent.objects.bulk_create(rows, ignore_conflicts=True)
        return len(rows) - before


def _known(endpoint: WebhookEndpoint, rows: Sequence[InboxEvent]) -> int:
    names = {row.provider_event_id for row in rows}
    return len(rows) - len(names) + InboxEvent.objects.filter(endpoint=endpoint, provider_event_id__in=names).count()


@dataclass(slots=True)
class InboxCounts:
    """What a drain did; items that wait for another event are in none of the three."""

    processed: int = 0
    failed: int = 0
    ignored: int = 0

    def as_dict(self) -> dict[str, int]:
        return asdict(self)


# In order of arrival; one that another worker holds is passed over.
_NEXT = """
SELECT event.id FROM webhooks_inboxevent event
WHERE event.status = 'RECEIVED' AND event.id > %(after)s
  AND (event.due_at <= clock_timestamp() OR event.id = ANY(%(waiting)s))
ORDER BY event.id LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED
"""


def inbox_drain(*, now: datetime, keep_going: Callable[[], bool] = lambda: True) -> InboxCounts:
    """Process every due item in order of arrival, one transaction each; waiting items get another turn when others
    have moved the ledger. `keep_going` is asked before each item."""
    counts, waiting = InboxCounts(), list[int]()
    progress = True
    while progress and keep_going():
        progress = False
        after = 0
        while keep_going():
            with transaction.atomic():
                with database.cursor() as cursor:
                    cursor.execute(_NEXT, {"after": after, "waiting": waiting})
                    row = cursor.fetchone()
                if row is None:
                    break
                after = row[0]
                event = InboxEvent.objects.select_related("endpoint__connection").get(pk=after)
                moved = _process(event, now, counts)
                if event.status == InboxStatus.RECEIVED and event.attempts == 0:
                    waiting.append(after)
            progress = progress or (moved and bool(waiting))
    return counts


def _process(event: InboxEvent, now: datetime, counts: InboxCounts) -> bool:
    """Apply one locked item; True if the ledger may have moved, so that waiting items are worth another look."""
    try:
        with transaction.atomic():
            reason = _apply(event, now)
    except EventWaits as waits:
        return _wait(event, waits, now, counts)
    except RecoveryError as error:
        _reject(event, f"{error.code}: {error.message}", now, counts)
        return False
    except Exception as error:  # the webhook receiver: one bad item must not stop the others, and nothing is lost
        log.exception("inbox_item_failed", inbox_event=event.pk, type=event.event_type)
        _back_off(event, f"{type(error).__name__}: {error}", now, counts)
        return False
    if reason:
        event.ignore()
        counts.ignored += 1
    else:
        event.process()
        counts.processed += 1
    event.reason, event.processed_at = reason[:500], now
    event.save(update_fields=["status", "reason", "processed_at"])
    log.info("inbox_item", inbox_event=event.pk, type=event.event_type, status=event.status, reason=reason)
    return not reason


def _apply(event: InboxEvent, now: datetime) -> str:
    """The reason why nothing happened, or an empty string."""
    payload: Mapping[str, Any] = json.loads(event.body)
    item = InboundItem(event.provider_event_id, event.event_type, event.order_key, payload)
    meaning = registry.dialect(event.endpoint.provider).parse(item)
    if isinstance(meaning, Ignored):
        return meaning.reason
    handled = event_handle(event=meaning, connection=event.endpoint.connection, cause=f"inbox:{event.pk}", now=now)
    return handled.reason


def _wait(event: InboxEvent, waits: EventWaits, now: datetime, counts: InboxCounts) -> bool:
    if now - event.received_at > _WAIT_AT_MOST:
        event.ignore()
        event.reason = f"Put aside after a day: {waits.message}"[:500]
        event.processed_at = now
        event.save(update_fields=["status", "reason", "processed_at"])
        counts.ignored += 1
        return False
    event.reason = waits.message[:500]
    event.due_at = Now() + waits.retry_after
    event.save(update_fields=["reason", "due_at"])
    return False


def _reject(event: InboxEvent, reason: str, now: datetime, counts: InboxCounts) -> None:
    """What cannot be true will not become true: FAILED at once, listed, replayable."""
    event.fail()
    event.reason, event.processed_at = reason[:500], now
    event.save(update_fields=["status", "reason", "processed_at"])
    counts.failed += 1
    log.warning("inbox_item_refused", inbox_event=event.pk, type=event.event_type, reason=reason)


def _back_off(event: InboxEvent, reason: str, now: datetime, counts: InboxCounts) -> None:
    if event.attempts >= len(_BACK_OFF):
        _reject(event, reason, now, counts)
        return
    event.reason, event.due_at = reason[:500], Now() + _BACK_OFF[event.attempts]
    event.attempts += 1
    event.save(update_fields=["attempts", "reason", "due_at"])
    counts.failed += 1


@transaction.atomic
def inbox_replay(*, event_pk: int, stamp: Stamp) -> None:
    """Put a finished item back to RECEIVED; it is really run again. Raises NotFound, Conflict if it is waiting."""
    event = for_no_key_update(InboxEvent.objects.filter(pk=event_pk)).first()
    if event is None:
        raise NotFound("This inbox event does not exist.")
    if event.status == InboxStatus.RECEIVED:
        raise Conflict("This inbox event is already waiting to be processed.")
    event.replay()
    event.attempts, event.reason, event.processed_at = 0, f"Replayed by {stamp.actor}", None
    event.due_at = Now()
    event.save(update_fields=["status", "attempts", "reason", "processed_at", "due_at"])
