"""Standard Webhooks envelope: signature, age, event id, and a JSON body that is safe to store.

Specification: standardwebhooks.com. The library computes the signature; the age is checked here because
its own `verify` reads the system clock and knows one fixed tolerance only.
"""

import hmac
import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from standardwebhooks import Webhook

from providers.base import BodyMalformed, InboundRequest, SignatureInvalid

_UNIX_TIME = re.compile(r"[0-9]{1,11}", re.ASCII)
_MAX_EVENT_ID = 300
_MAX_DEPTH = 20


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
        value = json.loads(body.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
    except UnicodeDecodeError:
        raise BodyMalformed("The body is not UTF-8: send one JSON object in UTF-8.") from None
    except (ValueError, RecursionError):
        raise BodyMalformed("The body is not JSON: send one JSON object in UTF-8.") from None
    if not isinstance(value, dict):
        raise BodyMalformed("The body must be one JSON object.")
    _check_storable(value, _MAX_DEPTH)
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise BodyMalformed("The body has an object that names the same field twice: send each field once.")
    return value


def _no_constant(name: str) -> Any:
    raise BodyMalformed(f"The body contains {name}, which is not JSON: send a number, a string or null.")


def _check_storable(value: Any, depth: int) -> None:
    if isinstance(value, str):
        if "\x00" in value or not _encodable(value):
            raise BodyMalformed("The body has text with a NUL or half a surrogate pair: remove that character.")
    elif isinstance(value, dict | list):
        if depth == 0:
            raise BodyMalformed(f"The body is nested deeper than {_MAX_DEPTH} levels: send a flatter one.")
        for item in value if isinstance(value, list) else [*value, *value.values()]:
            _check_storable(item, depth - 1)


def _encodable(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
