"""Adyen's webhooks: batches of items that are signed one by one, and bodies that are signed as a whole.

An item's signature covers eight fields. What it leaves out (the reason, all additional data) counts as signed only on
an endpoint that also has a password.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from Adyen import util as adyen_util

from providers.adyen.events import PROVIDER, meaning
from providers.base import BodyMalformed, InboundItem, InboundRequest, Meaning, Proof, SignatureInvalid
from providers.bodies import json_object, key_of, short_text
from providers.endpoint_secrets import LOGIN_NAMES, Login, login_given, logins_match, parts_of
from recovery_site.common.errors import InvalidInput

HEADER = "hmacsignature"
_sdk: Any = adyen_util  # it has no types
_HEX = re.compile(r"(?:[0-9A-Fa-f]{2}){16,64}", re.ASCII)
_MAX_ITEMS = 500
# Signed fields that stand around the merchant's own reference, the only one that may hold the separator.
_PLAIN = ("pspReference", "originalReference", "merchantAccountCode", "eventCode", "success")


@dataclass(frozen=True, slots=True)
class _Secret:
    key: str = field(repr=False)
    login: Login | None


class AdyenDialect:
    """Secret: the HMAC key in hexadecimal, better `user:password:KEY`, or a JSON object with `hmac_key` and the two."""

    provider: ClassVar[str] = PROVIDER

    def secret_check(self, secret: str) -> None:
        _secret(secret)

    def verify(self, request: InboundRequest, secrets: Sequence[str], *, now: float, tolerance_seconds: int) -> Proof:
        """Raise SignatureInvalid unless one secret's password was given, if it has one, and its key signed every item.

        Nothing in these signatures says when they were made: a repetition is known by its event id.
        """
        for secret in map(_secret, secrets):
            if secret.login is not None and not logins_match(login_given(request), secret.login):
                continue
            if _signed(request, secret.key):
                by_header = HEADER in request.headers
                return Proof.SIGNED if by_header or secret.login is not None else Proof.PARTLY
        raise SignatureInvalid(
            "No key of this endpoint signed every item, or the Basic authentication is wrong; check key, user and"
            " password."
        )

    def split(self, request: InboundRequest) -> Sequence[InboundItem]:
        """Every item of a batch, or the one event of a webhook about something else; raises BodyMalformed."""
        payload = json_object(request.body, "Adyen")
        if "notificationItems" in payload or "eventCode" in payload:
            return [_item(item) for item in _items(payload)]
        event_type = short_text(payload, "type", 120)
        event_id = key_of(payload.get("eventId")) or hashlib.sha256(request.body).hexdigest()
        data = payload.get("data")
        about = data if isinstance(data, dict) else {}
        key = key_of(about.get("storedPaymentMethodId")) or key_of(about.get("pspReference")) or event_id
        return [InboundItem(f"{event_type}:{event_id}", event_type, key, payload)]

    def parse(self, item: InboundItem) -> Meaning:
        """What the item means; raises InvalidInput naming the field if one that is needed is impossible."""
        return meaning(item)


def _secret(secret: str) -> _Secret:
    parts = parts_of(secret, {**LOGIN_NAMES, "hmac_key": ("key", "hmac")})
    if parts is not None:
        login = Login(parts["username"], parts.get("password", "")) if "username" in parts else None
        key = parts.get("hmac_key", "")
    else:
        before, _, key = secret.rpartition(":")
        user, _, password = before.partition(":")
        login = Login(user, password) if before else None
    if not _HEX.fullmatch(key) or (login is not None and not login.user):
        raise InvalidInput("The secret must be the webhook's HMAC key in hexadecimal, or user:password:KEY.")
    return _Secret(key, login)


def _signed(request: InboundRequest, key: str) -> bool:
    if HEADER in request.headers and not _body_signed(request, key):
        return False
    try:
        payload = json_object(request.body, "Adyen")
        items = _items(payload) if "notificationItems" in payload or "eventCode" in payload else []
    except BodyMalformed:
        return HEADER in request.headers
    if not items:
        return HEADER in request.headers
    return all(_item_signed(item, key) for item in items)


def _body_signed(request: InboundRequest, key: str) -> bool:
    try:
        return _sdk.is_valid_hmac_payload(request.headers[HEADER], key, request.body) is True
    except Exception:  # noqa: BLE001
        # Closed on everything: the SDK raises whatever hostile input makes of it. Only the verifier runs in here.
        return False


def _item_signed(item: Mapping[str, Any], key: str) -> bool:
    """By the SDK, which is shown nothing but the fields that count: an item inside an item would be checked instead,
    and the fields are joined by colons without escaping, so only one of them may hold any."""
    amount, extra = item.get("amount"), item.get("additionalData")
    if not isinstance(amount, dict) or not isinstance(extra, dict):
        return False
    values = [item.get(name) for name in _PLAIN] + [amount.get("value"), amount.get("currency")]
    if any(":" in str(value) for value in values) or any(isinstance(value, dict | list) for value in values):
        return False
    shown = {name: item[name] for name in (*_PLAIN, "merchantReference") if item.get(name) is not None}
    money = {name: "" if amount.get(name) is None else amount[name] for name in ("value", "currency")}
    signature = {"hmacSignature": extra.get("hmacSignature")}
    try:
        return _sdk.is_valid_hmac_notification({**shown, "amount": money, "additionalData": signature}, key) is True
    except Exception:  # noqa: BLE001
        # As above: KeyError, TypeError, ValueError and binascii.Error all mean that it is not signed.
        return False


def _items(payload: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The items of a batch, or the one that came without its wrapping. Raises BodyMalformed."""
    if "notificationItems" not in payload:
        return [payload]
    entries = payload["notificationItems"]
    if not isinstance(entries, list) or not 0 < len(entries) <= _MAX_ITEMS:
        raise BodyMalformed(f"notificationItems must be a list of 1 to {_MAX_ITEMS} items; send Adyen's body as it is.")
    items = [entry.get("NotificationRequestItem") if isinstance(entry, dict) else None for entry in entries]
    found: list[Mapping[str, Any]] = [item for item in items if isinstance(item, dict)]
    if len(found) != len(entries):
        raise BodyMalformed("Every entry must hold a NotificationRequestItem; send Adyen's body as it is.")
    return found


def _item(item: Mapping[str, Any]) -> InboundItem:
    event_type, reference = short_text(item, "eventCode", 120), short_text(item, "pspReference")
    success = str(item.get("success")).strip().lower()[:10]
    key = key_of(item.get("originalReference")) or reference
    return InboundItem(f"{event_type}:{reference}:{success}", event_type, key, item)
