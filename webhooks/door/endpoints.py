"""The door's endpoints, each read again after a second: what is changed about one holds within that time."""

import time
from dataclasses import dataclass
from uuid import UUID

from webhooks.door.commit import Database
from webhooks.models import WebhookEndpoint
from webhooks.services.endpoints import endpoint_secrets

_FRESH_SECONDS = 1.0
_KEPT_AT_MOST = 10_000
_COLUMNS = ("id", "merchant_id", "provider", "secrets_encrypted", "enabled")
_FIND = f"SELECT {', '.join(_COLUMNS)} FROM webhooks_webhookendpoint WHERE uuid = %s"  # noqa: S608


@dataclass(frozen=True, slots=True)
class Known:
    """An endpoint and its secrets in clear. `secrets` is None while it has none."""

    endpoint: WebhookEndpoint
    secrets: list[str]
    read_at: float


class Endpoints:
    """One per event loop. Unknown ids are not kept: they would fill the memory."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: dict[UUID, Known] = {}

    async def get(self, uuid: UUID) -> Known | None:
        """None if there is none. Raises SignatureInvalid for one without a secret."""
        known = self._known.get(uuid)
        if known is not None and time.monotonic() - known.read_at < _FRESH_SECONDS:
            return known
        self._known.pop(uuid, None)
        found = await self._database.fetch(_FIND, [uuid])
        if not found:
            return None
        endpoint = WebhookEndpoint(uuid=uuid, **dict(zip(_COLUMNS, found[0], strict=True)))
        same = known is not None and known.endpoint.secrets_encrypted == endpoint.secrets_encrypted
        secrets = known.secrets if known is not None and same else endpoint_secrets(endpoint)
        if len(self._known) >= _KEPT_AT_MOST:
            self._known.clear()
        self._known[uuid] = Known(endpoint, secrets, time.monotonic())
        return self._known[uuid]
