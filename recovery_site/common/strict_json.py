"""JSON from outside, read so that PostgreSQL can store it and nobody can read it in two ways."""

import json
from typing import Any

from recovery_site.common.errors import RecoveryError

MAX_DEPTH = 20


class JsonRefused(RecoveryError):
    """The text is not JSON, or JSON that could not be stored as it is."""

    code = "malformed_json"
    http_status = 400


def strict_json(body: bytes) -> Any:
    """The value of a body. Raises JsonRefused for anything but UTF-8 JSON without doubled names, NaN, half characters.

    Floats stay floats: what is an amount refuses them by name.
    """
    try:
        value = json.loads(body.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
    except UnicodeDecodeError:
        raise JsonRefused("The body is not UTF-8: send one JSON object in UTF-8.") from None
    except (ValueError, RecursionError):
        raise JsonRefused("The body is not JSON: send one JSON object in UTF-8.") from None
    _check_storable(value, MAX_DEPTH)
    return value


def strict_object(body: bytes) -> dict[str, Any]:
    """As `strict_json`, and the value is an object."""
    value = strict_json(body)
    if not isinstance(value, dict):
        raise JsonRefused("The body must be one JSON object.")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise JsonRefused("The body has an object that names the same field twice: send each field once.")
    return value


def _no_constant(name: str) -> Any:
    raise JsonRefused(f"The body contains {name}, which is not JSON: send a number, a string or null.")


def _check_storable(value: Any, depth: int) -> None:
    if isinstance(value, str):
        if "\x00" in value or not _encodable(value):
            raise JsonRefused("The body has text with a NUL or half a surrogate pair: remove that character.")
    elif isinstance(value, dict | list):
        if depth == 0:
            raise JsonRefused(f"The body is nested deeper than {MAX_DEPTH} levels: send a flatter one.")
        for item in value if isinstance(value, list) else [*value, *value.values()]:
            _check_storable(item, depth - 1)


def _encodable(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
