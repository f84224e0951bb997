"""Typed reading of a provider's JSON. Keys are optional unless asked for as required; missing and null are the same."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar

from providers.reading import MAX_TIMESTAMP
from recovery_site.common.clock import FIRST_YEAR, LAST_YEAR
from recovery_site.common.errors import InvalidInput
from recovery_site.common.money import currency_code, from_decimal_string
from recovery_site.common.scrubbing import scrub

MAX_ID = 200
NodeT = TypeVar("NodeT")
ResultT = TypeVar("ResultT")


class RecordMalformed(ValueError):
    """An object of a provider that makes no sense; the message names the field, never its value."""


def by_node(read: Callable[[NodeT], ResultT], node: NodeT) -> ResultT:
    """What the reading of the provider's webhooks makes of the same object in an answer. Raises RecordMalformed."""
    try:
        return read(node)
    except InvalidInput as error:
        raise RecordMalformed(str(error.data.get("field") or "record")) from None


def required(record: Mapping[str, Any], name: str) -> str:
    """Text that has to be there. Raises RecordMalformed."""
    value = text(record, name)
    if not value:
        raise RecordMalformed(name)
    return value


def text(record: Mapping[str, Any], name: str) -> str:
    """Text, or an empty string. Raises RecordMalformed for anything else."""
    value = record.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise RecordMalformed(name)
    return value


def identifier(record: Mapping[str, Any], name: str) -> str:
    """An id of at most 200 printable characters, or an empty string. Raises RecordMalformed."""
    value = text(record, name)
    if len(value) > MAX_ID or not value.isprintable():
        raise RecordMalformed(name)
    return value


def integer(record: Mapping[str, Any], name: str) -> int | None:
    value = record.get(name)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
        raise RecordMalformed(name)
    return value


def amount(record: Mapping[str, Any], name: str = "amount") -> int:
    """An amount in minor units that has to be there. Raises RecordMalformed."""
    value = integer(record, name)
    if value is None or value < 0:
        raise RecordMalformed(name)
    return value


def decimal_amount(record: Mapping[str, Any], name: str, currency: str) -> int:
    """A decimal in major units, as text or as a JSON number, in minor units. Raises RecordMalformed."""
    value = record.get(name)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise RecordMalformed(name)
    try:
        # repr() of a float is the shortest text that names it: what the provider wrote.
        minor = from_decimal_string(value if isinstance(value, str) else repr(value), currency)
    except InvalidInput:
        raise RecordMalformed(name) from None
    return minor


def currency(record: Mapping[str, Any], name: str = "currency") -> str:
    """An upper-case ISO 4217 code that has to be there. Raises RecordMalformed."""
    try:
        return currency_code(record.get(name))
    except InvalidInput:
        raise RecordMalformed(name) from None


def part(record: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """The object at a key, empty if there is none. Raises RecordMalformed."""
    value = record.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise RecordMalformed(name)
    return value


def parts(record: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    """The objects of a list, empty if there is none. Raises RecordMalformed."""
    value = record.get(name)
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise RecordMalformed(name)
    return list(value)


def instant(record: Mapping[str, Any], name: str) -> datetime | None:
    """An ISO 8601 time (UTC where it names no zone), or None, also for a zero before 1970. Raises RecordMalformed."""
    value = text(record, name)
    if not value:
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        raise RecordMalformed(name) from None
    if moment.year > LAST_YEAR:
        raise RecordMalformed(name)
    if moment.year < FIRST_YEAR:
        return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def epoch(record: Mapping[str, Any], name: str) -> datetime | None:
    """A Unix time in whole seconds, or None. Raises RecordMalformed."""
    seconds = integer(record, name)
    if seconds is None:
        return None
    if not 0 <= seconds <= MAX_TIMESTAMP:
        raise RecordMalformed(name)
    return datetime.fromtimestamp(seconds, UTC)


def kept(record: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """What of an object is kept with a result: the named keys, or all of it, scrubbed."""
    chosen = {name: record[name] for name in names if name in record} if names else dict(record)
    shown = scrub(chosen)
    return shown if isinstance(shown, dict) else {}
