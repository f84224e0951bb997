"""Addresses that only we can have made. Pure but for the key: what a link may do is asked of its row."""

from django.conf import settings
from django.core.signing import BadSignature, Signer
from django.urls import reverse

_PREFIX = {"link": "lnk_", "message": "msg_"}


def _signer(kind: str) -> Signer:
    return Signer(salt=f"notifications.{kind}", sep=".")


def _token(kind: str, public_id: str) -> str:
    return _signer(kind).sign(public_id.removeprefix(_PREFIX[kind]))


def _read(kind: str, token: str) -> str:
    """The public id in a token, empty for one that we did not make."""
    try:
        return _PREFIX[kind] + _signer(kind).unsign(token)
    except BadSignature:
        return ""


def link_token(public_id: str) -> str:
    return _token("link", public_id)


def link_read(token: str) -> str:
    return _read("link", token)


def link_url(public_id: str) -> str:
    """The address of a payer's page. Whoever has it may see and pay the invoice: never log or store it."""
    return settings.PUBLIC_URL + reverse("hosted:page", args=[link_token(public_id)])


def unsubscribe_token(public_id: str) -> str:
    return _token("message", public_id)


def unsubscribe_read(token: str) -> str:
    return _read("message", token)


def unsubscribe_url(public_id: str) -> str:
    """Works for good: an opt-out must outlive every payment link (RFC 8058)."""
    return settings.PUBLIC_URL + reverse("hosted:unsubscribe", args=[unsubscribe_token(public_id)])
