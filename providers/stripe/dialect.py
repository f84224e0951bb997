"""Stripe's webhooks: signature, envelope, meaning."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import stripe

from providers.base import BodyMalformed, Ignored, InboundItem, InboundRequest, PaymentEvent, Proof, SignatureInvalid
from providers.bodies import json_object, key_of, short_text
from providers.stripe.events import PROVIDER, meaning

HEADER = "stripe-signature"
_MAX_TYPE = 120
# Where an object says what its event is about; events whose first such id is equal are processed in order.
_ORDER_KEYS: Mapping[str, Sequence[str]] = {
    "invoice": ("id", "customer"),
    "invoice_payment": ("invoice", "id"),
    "payment_intent": ("invoice", "id"),
    "charge": ("invoice", "payment_intent", "id"),
    "customer": ("id",),
    "mandate": ("customer", "payment_method"),
}
_OTHER_ORDER_KEYS = ("invoice", "payment_intent", "charge", "customer", "id")


class StripeDialect:
    """Signed events of any API version, snapshot and thin."""

    provider: ClassVar[str] = PROVIDER

    def secret_check(self, secret: str) -> None:
        """Any text can be a signing secret."""

    def verify(self, request: InboundRequest, secrets: Sequence[str], *, now: float, tolerance_seconds: int) -> Proof:
        """Raise SignatureInvalid unless one of `secrets` signed exactly these bytes, close to `now`.

        The SDK compares the signature; the age is checked here, both ways, because the SDK looks at the real
        clock and lets times in the future pass.
        """
        header = request.headers.get(HEADER, "")
        if not any(_signed(request.body, header, secret) for secret in secrets):
            raise SignatureInvalid(
                "No signing secret of this endpoint made this signature; check the endpoint's secret."
            )
        if not abs(now - _timestamp(header)) <= tolerance_seconds:
            raise SignatureInvalid(
                f"The signature is over {tolerance_seconds} seconds away from now; check this server's clock."
            )
        return Proof.SIGNED

    def split(self, request: InboundRequest) -> Sequence[InboundItem]:
        """The one event of a verified body; raises BodyMalformed for what is no Stripe event."""
        payload = _event(request.body)
        event_id = short_text(payload, "id")
        event_type = short_text(payload, "type", _MAX_TYPE)
        item = InboundItem(event_id, event_type, _order_key(payload) or event_id, payload)
        return [item]

    def parse(self, item: InboundItem) -> PaymentEvent | Ignored:
        """What the event means; raises InvalidInput naming the field if one that is needed is impossible."""
        return meaning(item.event_id, item.event_type, item.payload)


def _signed(body: bytes, header: str, secret: str) -> bool:
    try:
        # No tolerance: the SDK would use the real clock; a tolerance of None switches its check off.
        return bool(stripe.WebhookSignature.verify_header(body, header, secret, None))
    except Exception:  # noqa: BLE001
        # Closed on everything: on hostile input the SDK raises not only its own error but, by version, also
        # TypeError (non-ASCII signature) and UnicodeDecodeError (body). Only the verifier runs in here.
        return False


def _timestamp(header: str) -> int:
    """The first `t` of a header that has passed the SDK, which read the same one."""
    return next(int(value) for key, _, value in (part.partition("=") for part in header.split(",")) if key == "t")


def _event(body: bytes) -> Mapping[str, Any]:
    payload = json_object(body, "Stripe")
    if payload.get("object", "event") not in ("event", "v2.core.event"):
        raise BodyMalformed("The body is a Stripe object but no event; point a Stripe webhook endpoint here.")
    if payload.get("object") != "v2.core.event" and not isinstance(_inner(payload), dict):
        raise BodyMalformed("The event has no data.object; point a Stripe webhook endpoint here.")
    return payload


def _inner(payload: Mapping[str, Any]) -> object:
    data = payload.get("data")
    return data.get("object") if isinstance(data, dict) else None


def _order_key(payload: Mapping[str, Any]) -> str:
    """The invoice an event is about, else its payment, else its charge, else its payer."""
    found = _inner(payload) or payload.get("related_object")
    if not isinstance(found, dict):
        return ""
    keys = _ORDER_KEYS.get(str(found.get("object")), _OTHER_ORDER_KEYS)
    return next((key for key in (key_of(found.get(name)) for name in keys) if key), "")
