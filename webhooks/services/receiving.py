"""The inbound door's work: verified, split, scrubbed and durable before the sender hears 200."""

import hashlib
import json
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from django.db import connection as database

from providers import registry
from providers.base import InboundRequest
from recovery_site.common.db import fit
from recovery_site.common.scrubbing import scrub
from recovery_site.common.text import storable
from webhooks.models import InboxEvent, WebhookEndpoint
from webhooks.services.endpoints import endpoint_secrets

# One statement in autocommit: the round trip is the price of a webhook, and what is committed here is never lost.
_STORE = """
INSERT INTO webhooks_inboxevent (
    merchant_id, endpoint_id, provider_event_id, event_type, order_key, body, body_hash, received_at, proof,
    status, reason, attempts
) VALUES {rows}
ON CONFLICT (endpoint_id, provider_event_id) DO NOTHING
"""
_STORE_ROW = "(%s, %s, %s, %s, %s, %s, %s, %s, %s, 'RECEIVED', '', 0)"


class InboxRow(NamedTuple):
    """What is stored of one item, in the order of the columns."""

    merchant_id: int
    endpoint_id: int
    provider_event_id: str
    event_type: str
    order_key: str
    body: str
    body_hash: str
    received_at: datetime
    proof: str


def inbox_rows(
    *,
    endpoint: WebhookEndpoint,
    request: InboundRequest,
    secrets: Sequence[str],
    now: datetime,
    clock: float,
    tolerance_seconds: int,
) -> list[InboxRow]:
    """Verify and split one inbound webhook; touches no database. Raises SignatureInvalid or BodyMalformed.

    `clock` is the real Unix time for the signature's age. The bodies are kept scrubbed and as pure ASCII: JSON's
    escapes hold what a text column cannot, NUL and half characters, so that the handler reads what was sent.
    """
    dialect = registry.dialect(endpoint.provider)
    proof = dialect.verify(request, secrets, now=clock, tolerance_seconds=tolerance_seconds)
    items = dialect.split(request)
    if not items:
        return []
    body_hash = hashlib.sha256(request.body).hexdigest()
    return [
        InboxRow(
            endpoint.merchant_id,
            endpoint.pk,
            fit(InboxEvent, "provider_event_id", storable(item.event_id)),
            fit(InboxEvent, "event_type", storable(item.event_type)),
            fit(InboxEvent, "order_key", storable(item.order_key)),
            json.dumps(scrub(dict(item.payload)), separators=(",", ":")),
            body_hash,
            now,
            proof.value,
        )
        for item in items
    ]


def inbox_receive(
    *, endpoint: WebhookEndpoint, request: InboundRequest, now: datetime, clock: float, tolerance_seconds: int
) -> int:
    """Verify, split and store one inbound webhook; returns how many new items it brought.

    Raises SignatureInvalid or BodyMalformed; a repeated item is no error and stored once.
    """
    rows = inbox_rows(
        endpoint=endpoint,
        request=request,
        secrets=endpoint_secrets(endpoint),
        now=now,
        clock=clock,
        tolerance_seconds=tolerance_seconds,
    )
    return inbox_store(rows)


def inbox_store(rows: Sequence[InboxRow]) -> int:
    """Store the rows in one statement, so that all of them are stored or none is; returns how many were new."""
    if not rows:
        return 0
    values = [value for row in rows for value in row]
    with database.cursor() as cursor:
        cursor.execute(_STORE.format(rows=", ".join([_STORE_ROW] * len(rows))), values)
        stored: int = cursor.rowcount
    return stored
