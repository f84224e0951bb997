"""Braintree's webhooks: a signed form whose payload is XML, and the question by which an endpoint is set up.

The signature is checked by hand: the SDK's check builds the SDK's objects too, and calls a notification unsigned that
lacks a field of theirs. The XML is read by our own parser, which expands nothing, so that card data can be removed from
it by the names of its elements. A repetition is known by its payload, however old it is.
"""

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar
from urllib.parse import parse_qs

import braintree

from providers.base import BodyMalformed, InboundItem, InboundRequest, Meaning, Proof, SignatureInvalid
from providers.bodies import key_of, short_text, xml_object
from providers.braintree.events import PROVIDER, meaning
from providers.endpoint_secrets import hex_digests_match, parts_of
from recovery_site.common.errors import InvalidInput

_MAX_FIELDS = 10
_PAYLOAD = re.compile(r"[A-Za-z0-9+=/\n]+", re.ASCII)
_BETWEEN = re.compile(r"[:|]")


class BraintreeDialect:
    """Secret: `public_key:private_key` of the API keys, or a JSON object with the two."""

    provider: ClassVar[str] = PROVIDER

    def secret_check(self, secret: str) -> None:
        _keys(secret)

    def verify(self, request: InboundRequest, secrets: Sequence[str], *, now: float, tolerance_seconds: int) -> Proof:
        """Raise SignatureInvalid unless one of the keys signed this payload. The signature has no time."""
        form = _form(request.body)
        signature, payload = form.get("bt_signature", ""), form.get("bt_payload", "")
        if not any(_signed(signature, payload, secret) for secret in secrets):
            raise SignatureInvalid("None of this endpoint's keys signed the payload; check the public and private key.")
        return Proof.SIGNED

    def challenge_answer(self, request: InboundRequest, secrets: Sequence[str]) -> str:
        """Braintree asks a new endpoint by GET to sign a few hexadecimal digits."""
        challenge = request.query.get("bt_challenge", "")
        for secret in secrets:
            try:
                return str(_gateway(secret).webhook_notification.verify(challenge))
            except Exception:  # noqa: BLE001,S112
                # Whatever the SDK makes of it: it is no challenge. Only the verifier runs in here.
                continue
        raise SignatureInvalid("This is no challenge of Braintree's.")

    def split(self, request: InboundRequest) -> Sequence[InboundItem]:
        """The one notification of a verified form; raises BodyMalformed."""
        encoded = _form(request.body).get("bt_payload", "")
        try:
            body = base64.b64decode("".join(encoded.split()), validate=True)
        except (binascii.Error, ValueError):
            raise BodyMalformed("bt_payload is not base 64; send Braintree's form as it is.") from None
        name, payload = xml_object(body, "Braintree")
        if name != "notification":
            raise BodyMalformed("The payload is XML but no notification; point a Braintree webhook here.")
        kind = short_text(payload, "kind", 120)
        event_id = hashlib.sha256(encoded.strip().encode()).hexdigest()
        return [InboundItem(event_id, kind, _order_key(payload.get("subject")) or event_id, payload)]

    def parse(self, item: InboundItem) -> Meaning:
        """What the notification means; raises InvalidInput naming the field if one that is needed is impossible."""
        return meaning(item)


def _form(body: bytes) -> Mapping[str, str]:
    try:
        fields = parse_qs(body.decode("ascii"), keep_blank_values=True, max_num_fields=_MAX_FIELDS)
    except ValueError:
        return {}
    return {name: values[0] for name, values in fields.items()}


def _keys(secret: str) -> tuple[str, str]:
    parts = parts_of(secret, {"public_key": (), "private_key": ()})
    if parts is not None:
        public, private = parts.get("public_key", ""), parts.get("private_key", "")
    else:
        public, *rest = _BETWEEN.split(secret, maxsplit=1)
        private = rest[0] if rest else ""
    if not public or not private:
        raise InvalidInput("The secret must be public_key:private_key of Braintree's API keys.")
    return public, private


def _gateway(secret: str) -> Any:
    """The SDK, of which only the answer to a challenge is used: it sends nothing."""
    sdk: Any = braintree  # it has no types
    public, private = _keys(secret)
    return sdk.BraintreeGateway(
        sdk.Configuration(
            environment=sdk.Environment.Sandbox,
            merchant_id="webhooks",
            public_key=public,
            private_key=private,
        )
    )


def _signed(signature: str, payload: str, secret: str) -> bool:
    """One `public key|signature` pair for each of the account's keys, over the payload as it was sent, of which a form
    may have lost the last line's end."""
    public, private = _keys(secret)
    pairs = [pair.split("|") for pair in signature.split("&")]
    given = [pair[1] for pair in pairs if len(pair) == 2 and pair[0] == public]
    if not given or not _PAYLOAD.fullmatch(payload):
        return False
    key = hashlib.sha1(private.encode(), usedforsecurity=False).digest()
    digests = [hmac.new(key, payload.encode() + end, "sha1").hexdigest() for end in (b"", b"\n")]
    return any(hex_digests_match(digest, given) for digest in digests)


def _order_key(subject: object) -> str:
    """The subscription, the transaction or the token that a notification is about."""
    if not isinstance(subject, dict):
        return ""
    for name in ("subscription", "transaction", "dispute"):
        shown = subject.get(name)
        if isinstance(shown, dict):
            paid = shown.get("transaction")
            return key_of(paid) if name == "dispute" and isinstance(paid, dict) else key_of(shown)
    shown = next((value for value in subject.values() if isinstance(value, dict)), {})
    return key_of(shown.get("token")) or key_of(shown.get("transaction-id"))
