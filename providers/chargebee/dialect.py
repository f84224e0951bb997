"""Chargebee's webhooks: a password instead of a signature, an envelope of resources, meaning.

Nothing binds the body to Chargebee, so every event says that it is not to be trusted.
"""

import hmac
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from providers.base import InboundItem, InboundRequest, Meaning, Proof, SignatureInvalid
from providers.bodies import json_object, key_of, short_text
from providers.chargebee.events import PROVIDER, meaning
from providers.endpoint_secrets import LOGIN_NAMES, Login, demand_login, login_of, parts_of

_MAX_TYPE = 120
# Where the invoice, else what else an event is about, is named; the first one found orders the event.
_ORDER_KEYS = (
    ("invoice", "id"),
    ("credit_note", "reference_invoice_id"),
    ("transaction", "linked_invoices"),
    ("transaction", "linked_credit_notes"),
    ("transaction", "id"),
    ("subscription", "id"),
    ("payment_source", "customer_id"),
    ("customer", "id"),
)
_LINKED = {"linked_invoices": "invoice_id", "linked_credit_notes": "cn_reference_invoice_id"}


class ChargebeeDialect:
    """Secret: `user:password`, or a JSON object with `username`, `password` and perhaps the `key` of the address."""

    provider: ClassVar[str] = PROVIDER

    def secret_check(self, secret: str) -> None:
        _login_and_key(secret)

    def verify(self, request: InboundRequest, secrets: Sequence[str], *, now: float, tolerance_seconds: int) -> Proof:
        """Raise SignatureInvalid unless the sender knows one of the passwords, and its key where there is one."""
        given = request.query.get("key", "").encode()
        known = [_login_and_key(secret) for secret in secrets]
        logins = [login for login, key in known if key is None or hmac.compare_digest(given, key.encode())]
        if known and not logins:
            raise SignatureInvalid("The key in the address is missing or wrong; check the webhook's address.")
        demand_login(request, logins)
        return Proof.SENDER

    def split(self, request: InboundRequest) -> Sequence[InboundItem]:
        """The one event of a body; raises BodyMalformed."""
        payload = json_object(request.body, "Chargebee")
        event_id, event_type = short_text(payload, "id"), short_text(payload, "event_type", _MAX_TYPE)
        return [InboundItem(event_id, event_type, _order_key(payload) or event_id, payload)]

    def parse(self, item: InboundItem) -> Meaning:
        """What the event means; raises InvalidInput naming the field if one that is needed is impossible."""
        trusted = item.proof is Proof.SIGNED
        return meaning(item.event_id, item.event_type, item.payload, trusted=trusted)


def _login_and_key(secret: str) -> tuple[Login, str | None]:
    parts = parts_of(secret, {**LOGIN_NAMES, "key": ()})
    if parts is None or "username" not in parts:
        return login_of(secret), None
    return Login(parts["username"], parts.get("password", "")), parts.get("key")


def _order_key(payload: Mapping[str, Any]) -> str:
    content = payload.get("content")
    if not isinstance(content, dict):
        return ""
    return next(filter(None, (_key(content.get(resource), name) for resource, name in _ORDER_KEYS)), "")


def _key(resource: object, name: str) -> str:
    value = resource.get(name) if isinstance(resource, dict) else None
    if name in _LINKED:
        first = value[0] if isinstance(value, list) and value else None
        value = first.get(_LINKED[name]) if isinstance(first, dict) else None
    return key_of(value)
