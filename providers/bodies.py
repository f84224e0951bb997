"""Bodies of webhooks as dictionaries: JSON, and XML that no parser trick gets through.

Both end in plain JSON values, so that scrubbing by key name and by Luhn works on either.
"""

import json
from collections.abc import Mapping
from typing import Any
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml import ElementTree as SafeTree

from providers.base import BodyMalformed

MAX_ID = 200
_MAX_DEPTH = 40


def json_object(body: bytes, sender: str) -> Mapping[str, Any]:
    """One JSON object in UTF-8. Raises BodyMalformed."""
    try:
        payload = json.loads(body.decode("utf-8"), parse_constant=_refuse_constant)
    except UnicodeDecodeError:
        raise BodyMalformed(f"The body is not UTF-8; send {sender}'s event as it is.") from None
    except (ValueError, RecursionError):
        raise BodyMalformed(f"The body is not JSON; send {sender}'s event as it is.") from None
    if not isinstance(payload, dict):
        raise BodyMalformed(f"The body is JSON but no object; send one event of {sender}.")
    return payload


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON")


def xml_object(body: bytes, sender: str) -> tuple[str, dict[str, Any]]:
    """The root's name and what it holds: texts, None for `nil`, lists for `type="array"` and repeated names.

    Declarations of types and entities are refused, not expanded. Raises BodyMalformed.
    """
    try:
        root = SafeTree.fromstring(body, forbid_dtd=True)
    except DefusedXmlException:
        raise BodyMalformed(f"The body declares a document type; {sender} never does.") from None
    except (ParseError, ValueError, LookupError, RecursionError):
        raise BodyMalformed(f"The body is not XML; send {sender}'s notification as it is.") from None
    value = _value(root, _MAX_DEPTH, sender)
    if not isinstance(value, dict):
        raise BodyMalformed(f"The body is XML but holds nothing; send one notification of {sender}.")
    return root.tag, value


def _value(element: Element, depth: int, sender: str) -> Any:
    if depth == 0:
        raise BodyMalformed(f"The body is nested deeper than {_MAX_DEPTH} levels; {sender} never does that.")
    children = list(element)
    if element.get("type") == "array":
        return [_value(child, depth - 1, sender) for child in children]
    if not children:
        return None if element.get("nil") == "true" else (element.text or "").strip()
    found: dict[str, Any] = {}
    for child in children:
        value = _value(child, depth - 1, sender)
        if child.tag in found:
            before = found[child.tag]
            found[child.tag] = [*before, value] if isinstance(before, list) else [before, value]
        else:
            found[child.tag] = value
    return found


def short_text(payload: Mapping[str, Any], name: str, limit: int = MAX_ID) -> str:
    """Text that has to be there and can be a key. Raises BodyMalformed."""
    value = payload.get(name)
    if not isinstance(value, str) or not value or len(value) > limit or not value.isprintable():
        raise BodyMalformed(f"The event's {name} must be text of 1 to {limit} characters.")
    return value


def key_of(value: object) -> str:
    """An id that can order events, or that of the object in its place; an empty string for anything else."""
    if isinstance(value, Mapping):
        value = value.get("id")
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**18:
        return str(value)
    return value if isinstance(value, str) and 0 < len(value) <= MAX_ID and value.isprintable() else ""
