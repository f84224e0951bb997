"""The inbound door's work: verified, split, scrubbed and durable before the sender hears 200."""

import hashlib
import json
from datetime import datetime
from typing import Any

from django.db import connection as database

from providers import registry
from providers.base import InboundItem, InboundRequest
from recovery_site.common.db import fit
from recovery_site.common.scrubbing import scrub
from webhooks.models import InboxEvent, WebhookEndpoint
from webhooks.services.endpoints import endpoint_secrets
from webhooks.text import storable

# One statement in autocommit: the round trip is the price of a webhook, and what is committed here is never lost.
_STORE = """
INSERT INTO webhooks_inboxevent (
    merchant_id, endpoint_id, provider_event_id, event_type, order_key, body, body_hash, received_at, proof,
    status, reason, attempts
) VALUES {rows}
ON CONFLICT (endpoint_id, provider_event_id) DO NOTHING
"""
_STORE_ROW = "(%s, %s, %s, %s, %s, %s, %s, %s, %s, 'RECEIVED', '', 0)"


def inbox_receive(
    *, endpoint: WebhookEndpoint, request: InboundRequest, now: datetime, clock: float, tolerance_seconds: int
) -> int:
    """Verify, split and store one inbound webhook; returns how many new items it brought.

    `clock` is the real Unix time for the signature's age. Raises SignatureInvalid or BodyMalformed; a repeated item is
    no error and stored once. One statement whatever the number of items, so all of them are stored or none is.
    """
    dialect = registry.dialect(endpoint.provider)
    proof = dialect.verify(request, endpoint_secrets(endpoint), now=clock, tolerance_seconds=tolerance_seconds)
    items = dialect.split(request)
    if not items:
        return 0
    body_hash = hashlib.sha256(request.body).hexdigest()
    values: list[Any] = [value for item in items for value in (*_columns(endpoint, item), body_hash, now, proof.value)]
    with database.cursor() as cursor:
        cursor.execute(_STORE.format(rows=", ".join([_STORE_ROW] * len(items))), values)
        stored: int = cursor.rowcount
    return stored


def _columns(endpoint: WebhookEndpoint, item: InboundItem) -> tuple[object, ...]:
    """The body is kept scrubbed and as pure ASCII: JSON's escapes hold what a text column cannot, NUL and half
    characters, so that the handler reads what was sent."""
    return (
        endpoint.merchant_id,
        endpoint.pk,
        fit(InboxEvent, "provider_event_id", storable(item.event_id)),
        fit(InboxEvent, "event_type", storable(item.event_type)),
        fit(InboxEvent, "order_key", storable(item.order_key)),
        json.dumps(scrub(dict(item.payload)), separators=(",", ":")),
    )
