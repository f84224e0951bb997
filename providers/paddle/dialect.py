"""Paddle's webhooks (Billing): signature, envelope, meaning.

The signature is checked by hand: Paddle's SDK raises for keys of the header that it does not know yet.
"""

import hmac
import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from providers.base import InboundItem, InboundRequest, Meaning, Proof, SignatureInvalid
from providers.bodies import json_object, key_of, short_text
from providers.endpoint_secrets import hex_digests_match
from providers.paddle.events import PROVIDER, meaning

HEADER = "paddle-signature"
# Paddle signs at each sending and means its signatures to live this long.
MAX_AGE_SECONDS = 5
_STAMP = re.compile(r"[0-9]{1,11}", re.ASCII)
_ORDER_KEYS = ("transaction_id", "id", "customer_id")


class PaddleDialect:
    """Secret: the notification destination's own, `pdl_ntfset_...`."""

    provider: ClassVar[str] = PROVIDER

    def secret_check(self, secret: str) -> None:
        """Any text can be a signing secret."""

    def verify(self, request: InboundRequest, secrets: Sequence[str], *, now: float, tolerance_seconds: int) -> Proof:
        """Raise SignatureInvalid unless one of `secrets` signed these bytes within Paddle's five seconds of `now`."""
        pairs = [part.strip().partition("=") for part in request.headers.get(HEADER, "").split(";")]
        stamps = {value for key, _, value in pairs if key == "ts"}
        given = [value for key, _, value in pairs if key == "h1"]
        stamp = stamps.pop() if len(stamps) == 1 else ""
        if not _STAMP.fullmatch(stamp):
            raise SignatureInvalid("The Paddle-Signature header is missing or has no time; send it as it is.")
        signed = f"{stamp}:".encode() + request.body
        digests = [hmac.new(secret.encode(), signed, "sha256").hexdigest() for secret in secrets]
        if not any(hex_digests_match(digest, given) for digest in digests):
            raise SignatureInvalid("No secret of this endpoint made this signature; check the endpoint's secret.")
        allowed = min(tolerance_seconds, MAX_AGE_SECONDS)
        if not abs(now - int(stamp)) <= allowed:
            raise SignatureInvalid(f"The signature is over {allowed} seconds away from now; check this server's clock.")
        return Proof.SIGNED

    def split(self, request: InboundRequest) -> Sequence[InboundItem]:
        """The one event of a verified body; raises BodyMalformed."""
        payload = json_object(request.body, "Paddle")
        event_id, event_type = short_text(payload, "event_id"), short_text(payload, "event_type", 120)
        return [InboundItem(event_id, event_type, _order_key(payload) or event_id, payload)]

    def parse(self, item: InboundItem) -> Meaning:
        """What the event means; raises InvalidInput naming the field if one that is needed is impossible."""
        return meaning(item)


def _order_key(payload: Mapping[str, Any]) -> str:
    data = payload.get("data")
    keys = (key_of(data.get(name)) for name in _ORDER_KEYS) if isinstance(data, dict) else ()
    return next(filter(None, keys), "")
