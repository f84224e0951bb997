"""Standard Webhooks envelope: signature, age, event id, and a JSON body that is safe to store.

Specification: standardwebhooks.com. The library computes the signature; the age is checked here because
its own `verify` reads the system clock and knows one fixed tolerance only.
"""

import hmac
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from standardwebhooks import Webhook

from providers.base import BodyMalformed, InboundRequest, SignatureInvalid
from recovery_site.common.strict_json import JsonRefused, strict_object

_UNIX_TIME = re.compile(r"[0-9]{1,11}", re.ASCII)
_MAX_EVENT_ID = 300


def verify_signature(request: InboundRequest, secrets: Sequence[str], *, now: float, tolerance_seconds: int) -> None:
    """Raise SignatureInvalid unless one of `secrets` signed these raw bytes near `now`, a Unix time.

    The tolerance holds both ways. Signatures of other versions than v1 are skipped, as the spec asks.
    """
    event_id = request.headers.get("webhook-id", "")
    sent_at = request.headers.get("webhook-timestamp", "")
    given = request.headers.get("webhook-signature", "")
    if not (event_id and sent_at and given):
        raise SignatureInvalid("Send the headers webhook-id, webhook-timestamp and webhook-signature.")
    if not _UNIX_TIME.fullmatch(sent_at) or abs(now - int(sent_at)) > tolerance_seconds:
        raise SignatureInvalid(
            f"webhook-timestamp is not within {tolerance_seconds} seconds of now:"
            " send Unix seconds and check the sender's clock."
        )
    if not any(_signed(secret, event_id, int(sent_at), request.body, given) for secret in secrets):
        raise SignatureInvalid("No v1 signature fits the body: sign the raw bytes with this endpoint's secret.")


def _signed(secret: str, event_id: str, sent_at: int, body: bytes, given: str) -> bool:
    try:
        expected = Webhook(secret).sign(event_id, datetime.fromtimestamp(sent_at, UTC), body.decode("utf-8"))
        return any(hmac.compare_digest(expected, signature) for signature in given.split(" "))
    except Exception:  # noqa: BLE001
        # Hostile input makes verifiers raise anything, ValueError and TypeError included: no signature.
        return False


def event_id(request: InboundRequest) -> str:
    """The signed webhook-id header; raises BodyMalformed if it cannot serve as a key."""
    value = request.headers.get("webhook-id", "")
    if not value or len(value) > _MAX_EVENT_ID or not value.isprintable():
        raise BodyMalformed(f"webhook-id must have 1 to {_MAX_EVENT_ID} printable characters.")
    return value


def json_object(body: bytes) -> dict[str, Any]:
    """The body as an object that PostgreSQL can store; raises BodyMalformed."""
    try:
        return strict_object(body)
    except JsonRefused as error:
        raise BodyMalformed(error.message) from error
