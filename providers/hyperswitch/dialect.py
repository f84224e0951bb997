"""Hyperswitch's webhooks: HMAC-SHA512 over the body, or Stripe's scheme in its Stripe-compatible mode."""

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from providers.base import InboundItem, InboundRequest, Meaning, PaymentEvent, Proof, SignatureInvalid
from providers.bodies import json_object, key_of, short_text
from providers.endpoint_secrets import hex_digests_match
from providers.hyperswitch.events import EARLIER_TRY, PROVIDER, meaning
from providers.stripe.dialect import HEADER as STRIPE_HEADER
from providers.stripe.dialect import StripeDialect

HEADER = "x-webhook-signature-512"
_ORDER_KEYS = ("payment_id", "refund_id", "dispute_id", "mandate_id")
_MOST_TRIES = 50


class HyperswitchDialect:
    """Secret: the profile's payment response hash key."""

    provider: ClassVar[str] = PROVIDER

    def secret_check(self, secret: str) -> None:
        """Any text can be a hash key."""

    def verify(self, request: InboundRequest, secrets: Sequence[str], *, now: float, tolerance_seconds: int) -> Proof:
        """Raise SignatureInvalid unless one of `secrets` signed exactly these bytes.

        Hyperswitch's own signature has no time: a repetition is known by its event id.
        """
        if HEADER not in request.headers and STRIPE_HEADER in request.headers:
            return StripeDialect().verify(request, secrets, now=now, tolerance_seconds=tolerance_seconds)
        given = [request.headers.get(HEADER, "")]
        digests = [hmac.new(secret.encode(), request.body, "sha512").hexdigest() for secret in secrets]
        if not any(hex_digests_match(digest, given) for digest in digests):
            raise SignatureInvalid("No hash key of this endpoint made this signature; check the profile's key.")
        return Proof.SIGNED

    def split(self, request: InboundRequest) -> Sequence[InboundItem]:
        """The event, before it the tries that failed on the way to it; raises BodyMalformed."""
        payload = json_object(request.body, "Hyperswitch")
        if payload.get("object") == "event":
            return StripeDialect().split(request)
        event_id, event_type = short_text(payload, "event_id"), short_text(payload, "event_type", 120)
        shown = _object(payload)
        key = next(filter(None, (key_of(shown.get(name)) for name in _ORDER_KEYS)), "") or event_id
        earlier = [
            InboundItem(
                f"{event_id}:{key_of(tried['attempt_id'])}", EARLIER_TRY, key, {**_slim(payload), "attempt": tried}
            )
            for tried in reversed(_earlier_tries(event_type, shown))
        ]
        return [*earlier, InboundItem(event_id, event_type, key, payload)]

    def parse(self, item: InboundItem) -> Meaning:
        """What the event means; raises InvalidInput naming the field if one that is needed is impossible."""
        if item.payload.get("object") == "event":
            told = StripeDialect().parse(item)
            return replace(told, provider=PROVIDER) if isinstance(told, PaymentEvent) else told
        return meaning(item)


def _object(payload: Mapping[str, Any]) -> Mapping[str, Any]:
    content = payload.get("content")
    shown = content.get("object") if isinstance(content, dict) else None
    return shown if isinstance(shown, dict) else {}


def _earlier_tries(event_type: str, shown: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Failed tries behind the newest, which stands first and is the payment's own."""
    tries = shown.get("attempts")
    if not isinstance(tries, list) or not event_type.startswith("payment_"):
        return []
    behind = [one for one in tries[1:_MOST_TRIES] if isinstance(one, dict)]
    return [one for one in behind if one.get("status") == "failure" and key_of(one.get("attempt_id"))]


def _slim(payload: Mapping[str, Any]) -> Mapping[str, Any]:
    """The event without the list of tries, of which each is stored with its own."""
    shown = {name: value for name, value in _object(payload).items() if name != "attempts"}
    return {**payload, "content": {"type": "payment_details", "object": shown}}
