"""Webhooks as the providers send them: signed by their own rules, written here a second time and without their SDKs."""

import base64
import copy
import hashlib
import hmac
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

# One secret per provider, in the form in which an operator enters it.
SECRETS: Mapping[str, str] = {
    "stripe": "whsec_door_of_the_tests",
    "generic": "whsec_" + base64.b64encode(b"a secret of thirty-two bytes ...").decode(),
    "hyperswitch": "hash_key_of_the_tests",
    "adyen": "user:pass:word:" + "A1B2" * 16,
    "braintree": "public_of_tests:private_of_tests",
    "paddle": "pdl_ntfset_of_the_tests",
    "chargebee": "user:pass:word",
    "recurly": '{"key": "5f1e", "username": "user", "password": "pass:word"}',
}
_LOGIN = "Basic " + base64.b64encode(b"user:pass:word").decode()


@dataclass(frozen=True, slots=True)
class Delivery:
    """One HTTP request: body, headers beyond the content type, and that."""

    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = "application/json"


def delivery(provider: str, payload: Mapping[str, Any] | bytes, *, at: float | None = None) -> Delivery:
    """`payload` is JSON to be encoded, or a body as it is; `at` is a Unix time, default now."""
    stamp = time.time() if at is None else at
    return _SIGNERS[provider](payload, stamp)


def _encoded(payload: Mapping[str, Any] | bytes) -> bytes:
    """Indented, so that a body that was parsed and written again has another signature."""
    return payload if isinstance(payload, bytes) else json.dumps(payload, indent=1).encode()


def _stripe(payload: Mapping[str, Any] | bytes, at: float) -> Delivery:
    body = _encoded(payload)
    signed = hmac.new(SECRETS["stripe"].encode(), f"{int(at)}.".encode() + body, "sha256").hexdigest()
    return Delivery(body, {"Stripe-Signature": f"t={int(at)},v1={signed}"})


def _generic(payload: Mapping[str, Any] | bytes, at: float) -> Delivery:
    body = _encoded(payload)
    key = base64.b64decode(SECRETS["generic"].removeprefix("whsec_"))
    event_id = "msg_" + hashlib.sha256(body).hexdigest()[:24]
    signed = hmac.new(key, f"{event_id}.{int(at)}.".encode() + body, "sha256").digest()
    headers = {
        "webhook-id": event_id,
        "webhook-timestamp": str(int(at)),
        "webhook-signature": "v1," + base64.b64encode(signed).decode(),
    }
    return Delivery(body, headers)


def _hyperswitch(payload: Mapping[str, Any] | bytes, _: float) -> Delivery:
    body = _encoded(payload)
    signed = hmac.new(SECRETS["hyperswitch"].encode(), body, "sha512").hexdigest()
    return Delivery(body, {"X-Webhook-Signature-512": signed})


def adyen_signature(item: Mapping[str, Any], key: str) -> str:
    """The signature of one NotificationRequestItem."""
    told_amount = item.get("amount")
    amount = told_amount if isinstance(told_amount, dict) else {}
    told = [
        item.get(name) for name in ("pspReference", "originalReference", "merchantAccountCode", "merchantReference")
    ]
    told += [amount.get("value"), amount.get("currency"), item.get("eventCode"), item.get("success")]
    text = ":".join("" if value is None else str(value) for value in told)
    return base64.b64encode(hmac.new(bytes.fromhex(key), text.encode(), "sha256").digest()).decode()


def adyen_signed(payload: Mapping[str, Any], key: str) -> dict[str, Any]:
    """A standard notification with every item signed, as far as there are items."""
    signed: dict[str, Any] = copy.deepcopy(dict(payload))
    entries = signed.get("notificationItems", [{"NotificationRequestItem": signed}])
    for entry in entries if isinstance(entries, list) else []:
        item = entry.get("NotificationRequestItem") if isinstance(entry, dict) else None
        extra = item.get("additionalData", {}) if isinstance(item, dict) else None
        if isinstance(item, dict) and isinstance(extra, dict):
            item["additionalData"] = {**extra, "hmacSignature": adyen_signature(item, key)}
    return signed


def _adyen(payload: Mapping[str, Any] | bytes, _: float) -> Delivery:
    key = SECRETS["adyen"].rpartition(":")[2]
    headers = {"Authorization": _LOGIN}
    if not isinstance(payload, bytes) and ("notificationItems" in payload or "eventCode" in payload):
        return Delivery(_encoded(adyen_signed(payload, key)), headers)
    body = _encoded(payload)
    signed = base64.b64encode(hmac.new(bytes.fromhex(key), body, "sha256").digest()).decode()
    return Delivery(body, {**headers, "HmacSignature": signed})


def _braintree(payload: Mapping[str, Any] | bytes, _: float) -> Delivery:
    """`payload` is the XML; base 64 in lines, as Ruby writes it."""
    assert isinstance(payload, bytes)
    public, _colon, private = SECRETS["braintree"].partition(":")
    encoded = base64.encodebytes(payload).decode()
    key = hashlib.sha1(private.encode(), usedforsecurity=False).digest()
    signed = hmac.new(key, encoded.encode(), "sha1").hexdigest()
    form = urlencode({"bt_signature": f"other_key|{'0' * 40}&{public}|{signed}", "bt_payload": encoded})
    return Delivery(form.encode(), content_type="application/x-www-form-urlencoded")


def _paddle(payload: Mapping[str, Any] | bytes, at: float) -> Delivery:
    body = _encoded(payload)
    signed = hmac.new(SECRETS["paddle"].encode(), f"{int(at)}:".encode() + body, "sha256").hexdigest()
    return Delivery(body, {"Paddle-Signature": f"ts={int(at)};h1={signed}"})


def _chargebee(payload: Mapping[str, Any] | bytes, _: float) -> Delivery:
    return Delivery(_encoded(payload), {"Authorization": _LOGIN})


def _recurly(payload: Mapping[str, Any] | bytes, at: float) -> Delivery:
    body = _encoded(payload)
    if isinstance(payload, bytes):
        return Delivery(body, {"Authorization": _LOGIN}, "application/xml")
    stamp = str(int(at * 1000))
    signed = hmac.new(json.loads(SECRETS["recurly"])["key"].encode(), f"{stamp}.".encode() + body, "sha256").hexdigest()
    event_id = hashlib.sha256(body).hexdigest()[:26]
    return Delivery(body, {"recurly-signature": f"{stamp},{'0' * 64},{signed}", "recurly-notification-id": event_id})


_SIGNERS = {
    "stripe": _stripe,
    "generic": _generic,
    "hyperswitch": _hyperswitch,
    "adyen": _adyen,
    "braintree": _braintree,
    "paddle": _paddle,
    "chargebee": _chargebee,
    "recurly": _recurly,
}
