"""Recurly's webhooks: signed JSON that names things, and the classic XML that tells facts and needs a password."""

import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from providers.base import BodyMalformed, InboundItem, InboundRequest, Meaning, Proof, SignatureInvalid
from providers.bodies import json_object, key_of, short_text, xml_object
from providers.endpoint_secrets import LOGIN_NAMES, Login, demand_login, hex_digests_match, login_of, parts_of
from providers.recurly.events import PROVIDER, meaning
from recovery_site.common.errors import InvalidInput

HEADER = "recurly-signature"
EVENT_ID = "recurly-notification-id"
_MAX_TYPE = 120
# Milliseconds in the SDKs' tests, seconds in the documentation's example.
_STAMP = re.compile(r"(?P<seconds>[0-9]{10})(?P<milliseconds>[0-9]{3})?", re.ASCII)
# Where the invoice, else what else a notification is about, is named; the first one found orders it.
_XML_KEYS = (
    ("invoice", "invoice_number"),
    ("transaction", "invoice_number"),
    ("transaction", "invoice_id"),
    ("subscription", "uuid"),
    ("account", "account_code"),
)
_JSON_KEYS = ("invoice_number", "uuid", "account_code", "id")


@dataclass(frozen=True, slots=True)
class _Secret:
    key: str
    login: Login | None


class RecurlyDialect:
    """Secret: a signing key for JSON, `user:password` for XML, or a JSON object with `key`, `username`, `password`."""

    provider: ClassVar[str] = PROVIDER

    def secret_check(self, secret: str) -> None:
        _secret(secret)

    def verify(self, request: InboundRequest, secrets: Sequence[str], *, now: float, tolerance_seconds: int) -> Proof:
        """Raise SignatureInvalid unless one of the keys signed this JSON recently, or the sender of XML knows the
        password."""
        known = [_secret(secret) for secret in secrets]
        keys = [secret.key for secret in known if secret.key]
        if _is_xml(request.body) or not keys:
            demand_login(request, [secret.login for secret in known if secret.login is not None])
            return Proof.SENDER
        stamp, _, signatures = request.headers.get(HEADER, "").partition(",")
        given = [one.strip() for one in signatures.split(",") if one.strip()]
        # The header's text is signed as it was sent, whatever it means as a time.
        signed = stamp.encode("utf-8", "replace") + b"." + request.body
        digests = [hmac.new(key.encode(), signed, "sha256").hexdigest() for key in keys]
        if not any(hex_digests_match(digest, given) for digest in digests):
            raise SignatureInvalid("None of this endpoint's keys made this signature; check the endpoint's key.")
        if not abs(now - _seconds(stamp)) <= tolerance_seconds:
            raise SignatureInvalid(
                f"The signature is over {tolerance_seconds} seconds away from now; check this server's clock."
            )
        return Proof.SIGNED

    def split(self, request: InboundRequest) -> Sequence[InboundItem]:
        """The one notification of a body; raises BodyMalformed."""
        return [_xml_item(request) if _is_xml(request.body) else _json_item(request)]

    def parse(self, item: InboundItem) -> Meaning:
        """What the notification means; raises InvalidInput naming the field if one that is needed is impossible."""
        return meaning(item)


def _secret(secret: str) -> _Secret:
    parts = parts_of(secret, {**LOGIN_NAMES, "key": ("hmac_key", "signing_key")})
    if parts is None:
        return _Secret("", login_of(secret)) if ":" in secret else _Secret(secret, None)
    if not parts.get("key") and "username" not in parts:
        raise InvalidInput("The secret needs a key, or a username and a password.")
    login = Login(parts["username"], parts.get("password", "")) if "username" in parts else None
    return _Secret(parts.get("key", ""), login)


def _is_xml(body: bytes) -> bool:
    return body.lstrip(b" \t\r\n\xef\xbb\xbf")[:1] == b"<"


def _seconds(stamp: str) -> float:
    """The signature's time, infinitely long ago if it is none."""
    match = _STAMP.fullmatch(stamp)
    return int(match["seconds"]) + int(match["milliseconds"] or 0) / 1000 if match else float("-inf")


def _json_item(request: InboundRequest) -> InboundItem:
    payload = json_object(request.body, "Recurly")
    event_type = (
        f"{short_text(payload, 'object_type', _MAX_TYPE // 2)}.{short_text(payload, 'event_type', _MAX_TYPE // 2)}"
    )
    event_id = request.headers.get(EVENT_ID, "").strip() or _digest(request.body)
    if len(event_id) > 200 or not event_id.isprintable():
        raise BodyMalformed("The notification's id is no id; send Recurly's header as it is.")
    key = next(filter(None, (key_of(payload.get(name)) for name in _JSON_KEYS)), "")
    return InboundItem(event_id, event_type, key or event_id, payload)


def _xml_item(request: InboundRequest) -> InboundItem:
    name, payload = xml_object(request.body, "Recurly")
    if not name.endswith("_notification") or len(name) > _MAX_TYPE:
        raise BodyMalformed("The body is XML but no notification; point a Recurly webhook endpoint here.")
    digest = _digest(request.body)
    return InboundItem(digest, name, _order_key(payload) or digest, payload)


def _order_key(payload: Mapping[str, Any]) -> str:
    nodes = ((payload.get(part), name) for part, name in _XML_KEYS)
    return next(filter(None, (key_of(node.get(name)) for node, name in nodes if isinstance(node, dict))), "")


def _digest(body: bytes) -> str:
    """The one name that an XML notification has: what stands in it."""
    return hashlib.sha256(body.strip()).hexdigest()
