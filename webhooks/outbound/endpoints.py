"""A merchant's own addresses: made, changed, switched, given new secrets."""

import base64
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import structlog
from django.db import transaction

from accounts.models import Merchant
from recovery_site.common.crypto import decrypt_json, encrypt_json
from recovery_site.common.db import for_no_key_update
from recovery_site.common.errors import Conflict, InvalidInput, NotFound
from recovery_site.common.targets import url_check
from webhooks.models import OutboundEndpoint
from webhooks.outbound.catalogue import EventType

log = structlog.get_logger()
# While a secret is being replaced, both sign: no receiver has to change in the same second.
ROTATION_OVERLAP = timedelta(hours=24)
ENDPOINTS_PER_MERCHANT = 20


@dataclass(frozen=True, slots=True)
class NewSecret:
    """An endpoint with its secret, at the only moment the text is known."""

    endpoint: OutboundEndpoint
    secret: str = field(repr=False)


@transaction.atomic
def outbound_endpoint_create(
    *, merchant: Merchant, url: str, event_types: Sequence[str] = (), description: str = ""
) -> NewSecret:
    """An address that hears of the merchant's events from now on; without `event_types` of all of them.

    Raises InvalidInput, TargetRefused, Conflict if the merchant has as many as allowed.
    """
    url_check(url)
    # The merchant's row serialises the count.
    Merchant.objects.select_for_update(no_key=True).get(pk=merchant.pk)
    if OutboundEndpoint.objects.filter(merchant=merchant).count() >= ENDPOINTS_PER_MERCHANT:
        raise Conflict(f"{merchant} has {ENDPOINTS_PER_MERCHANT} endpoints already; change or reuse one of them.")
    secret = secret_generate()
    endpoint = OutboundEndpoint.objects.create(
        merchant=merchant,
        url=url,
        event_types=_types(event_types),
        description=description.strip()[:200],
        secrets_encrypted=encrypt_json({"current": secret}),
    )
    log.info("outbound_endpoint_created", endpoint=endpoint.public_id, merchant=merchant.public_id)
    return NewSecret(endpoint, secret)


def secret_generate() -> str:
    """256 random bits, as Standard Webhooks writes them."""
    return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()


def _types(event_types: Sequence[str]) -> list[str]:
    unknown = sorted(set(event_types) - set(EventType.values))
    if unknown:
        raise InvalidInput(f"There is no event type {unknown[0]!r}; there are {', '.join(EventType.values)}.")
    return sorted(set(event_types))


@transaction.atomic
def outbound_endpoint_update(
    *,
    endpoint_pk: int,
    url: str | None = None,
    event_types: Sequence[str] | None = None,
    description: str | None = None,
) -> OutboundEndpoint:
    """Change what is given; a new address starts with a clean record. Raises NotFound, InvalidInput, TargetRefused."""
    endpoint = outbound_endpoint_lock(endpoint_pk)
    changes: dict[str, Any] = {}
    if url is not None and url != endpoint.url:
        url_check(url)
        changes |= {"url": url, "failing_since": None, "failures": 0, "rests_until": None}
    if event_types is not None:
        changes["event_types"] = _types(event_types)
    if description is not None:
        changes["description"] = description.strip()[:200]
    return _changed(endpoint, changes)


@transaction.atomic
def outbound_endpoint_rotate(*, endpoint_pk: int, now: datetime, overlap: timedelta = ROTATION_OVERLAP) -> NewSecret:
    """A new secret; until `overlap` has passed every message carries both signatures. Raises NotFound."""
    endpoint = outbound_endpoint_lock(endpoint_pk)
    current, new = decrypt_json(endpoint.secrets_encrypted)["current"], secret_generate()
    changes: dict[str, Any] = {
        "secrets_encrypted": encrypt_json({"current": new, "previous": current}),
        "previous_until": now + overlap,
    }
    log.info("outbound_endpoint_rotated", endpoint=endpoint.public_id)
    return NewSecret(_changed(endpoint, changes), new)


@transaction.atomic
def outbound_endpoint_switch(*, endpoint_pk: int, enabled: bool, reason: str, now: datetime) -> OutboundEndpoint:
    """On or off. While it is off nothing is sent there and new events are not kept for it; what still waited is sent
    once it is on again. Switching on starts with a clean record. Raises NotFound."""
    endpoint = outbound_endpoint_lock(endpoint_pk)
    changes: dict[str, Any] = {
        "enabled": enabled,
        "disabled_at": None if enabled else now,
        "disabled_reason": "" if enabled else reason[:300],
        "failing_since": None,
        "failures": 0,
        "rests_until": None,
    }
    log.info("outbound_endpoint_switched", endpoint=endpoint.public_id, enabled=enabled)
    return _changed(endpoint, changes)


def outbound_endpoint_lock(endpoint_pk: int) -> OutboundEndpoint:
    """The locked row. Raises NotFound."""
    endpoint = for_no_key_update(OutboundEndpoint.objects.filter(pk=endpoint_pk)).first()
    if endpoint is None:
        raise NotFound("This outbound endpoint does not exist.")
    return endpoint


def _changed(endpoint: OutboundEndpoint, changes: dict[str, Any]) -> OutboundEndpoint:
    for name, value in changes.items():
        setattr(endpoint, name, value)
    endpoint.save(update_fields=list(changes))
    return endpoint


def signing_secrets(endpoint: OutboundEndpoint, now: datetime) -> list[str]:
    """The secrets that sign at `now`: the current one, and the one before while both are valid."""
    kept = decrypt_json(endpoint.secrets_encrypted)
    both = endpoint.previous_until is not None and now < endpoint.previous_until
    return [kept[name] for name in (("current", "previous") if both else ("current",)) if kept.get(name)]
