"""Webhooks in: endpoints and the inbox. Durable before the sender hears 200, processed apart, replayable."""

from webhooks.services.draining import InboxCounts, inbox_drain
from webhooks.services.endpoints import (
    endpoint_create,
    endpoint_ensure,
    endpoint_has_secret,
    endpoint_rotate,
    endpoint_secrets,
)
from webhooks.services.purging import inbox_purge
from webhooks.services.receiving import inbox_receive, inbox_store
from webhooks.services.replaying import inbox_replay, inbox_replay_all

__all__ = [
    "InboxCounts",
    "endpoint_create",
    "endpoint_ensure",
    "endpoint_has_secret",
    "endpoint_rotate",
    "endpoint_secrets",
    "inbox_drain",
    "inbox_purge",
    "inbox_receive",
    "inbox_replay",
    "inbox_replay_all",
    "inbox_store",
]
