"""Secrets of webhook endpoints that are more than one text, and the password that some providers send.

One text per endpoint is stored. What has parts is written `user:password`, or as a JSON object that names them.
"""

import base64
import binascii
import hmac
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from providers.base import InboundRequest, SignatureInvalid
from recovery_site.common.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class Login:
    """User and password of an endpoint's Basic authentication."""

    user: str
    password: str = field(repr=False)


def parts_of(secret: str, names: Mapping[str, Sequence[str]]) -> dict[str, str] | None:
    """The parts of a secret that is a JSON object, by the first of the names under which each is known; None if it is
    no object. Raises InvalidInput for one with other names or with anything but text."""
    if not secret.lstrip().startswith("{"):
        return None
    try:
        given = json.loads(secret)
    except ValueError:
        raise InvalidInput("The secret looks like JSON and is none; write it as one object.") from None
    known = {spelling: name for name, spellings in names.items() for spelling in (name, *spellings)}
    if not isinstance(given, dict) or not given or not given.keys() <= known.keys():
        raise InvalidInput(f"The secret's parts must be among {', '.join(names)}.")
    if not all(isinstance(value, str) and value for value in given.values()):
        raise InvalidInput("Every part of the secret must be text.")
    return {known[spelling]: value for spelling, value in given.items()}


LOGIN_NAMES: Mapping[str, Sequence[str]] = {"username": ("user",), "password": ()}


def login_of(secret: str) -> Login:
    """`user:password`, or a JSON object with `username` and `password`. A text without a colon is a user without a
    password, as API keys are sent. Raises InvalidInput."""
    parts = parts_of(secret, LOGIN_NAMES)
    if parts is not None:
        if "username" not in parts:
            raise InvalidInput("The secret needs a username and a password.")
        return Login(parts["username"], parts.get("password", ""))
    user, _, password = secret.partition(":")
    if not user:
        raise InvalidInput("The secret must be user:password, as entered for the webhook's Basic authentication.")
    return Login(user, password)


def login_given(request: InboundRequest) -> Login | None:
    """What the sender gave as Basic authentication (RFC 7617), or None."""
    scheme, _, encoded = request.headers.get("authorization", "").strip().partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        decoded = base64.b64decode(encoded.strip(), validate=True).decode("utf-8")
    except (binascii.Error, ValueError):
        return None
    user, colon, password = decoded.partition(":")
    return Login(user, password) if colon else None


def logins_match(given: Login | None, expected: Login) -> bool:
    """Compared in constant time, user and password both, whichever is wrong."""
    if given is None:
        return False
    user = hmac.compare_digest(given.user.encode(), expected.user.encode())
    password = hmac.compare_digest(given.password.encode(), expected.password.encode())
    return user & password


def demand_login(request: InboundRequest, logins: Sequence[Login]) -> None:
    """Raise SignatureInvalid unless the sender knows one of the passwords."""
    given = login_given(request)
    if not any(logins_match(given, login) for login in logins):
        raise SignatureInvalid("The Basic authentication is missing or wrong; check the endpoint's user and password.")


def hex_digests_match(expected: str, given: Sequence[str]) -> bool:
    """True if one of the signatures is the expected one, compared in constant time; what is not ASCII never is."""
    return any(hmac.compare_digest(expected.encode(), one.encode("utf-8", "replace")) for one in given)
