"""Typed reading of Stripe's JSON: webhook objects and API answers alike.

Every key is optional, because Stripe's objects differ by API version; missing and null are the same. A value
of the wrong type, a negative or absurd amount and an unknown currency raise InvalidInput with a sentence
naming the field.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from providers.stripe import amounts
from recovery_site.common import money
from recovery_site.common.errors import InvalidInput

MAX_ID = 200
MAX_CODE = 100
MAX_TEXT = 500
# 9999-12-31: the last instant a datetime can hold.
_MAX_TIMESTAMP = 253_402_300_799
_MAX_COUNT = 2**31 - 1
_ADVICE = "open it in Stripe's dashboard to see what was sent"


@dataclass(frozen=True, slots=True)
class Node:
    """One object of the JSON; `path` names it in messages, such as `invoice.lines`."""

    values: Mapping[str, Any]
    path: str

    def __bool__(self) -> bool:
        return bool(self.values)

    def has(self, name: str) -> bool:
        """True if the key was sent at all, even as null."""
        return name in self.values

    def text(self, name: str, limit: int = MAX_TEXT) -> str:
        """Free text, cut to `limit`; characters that PostgreSQL or UTF-8 cannot hold are dropped."""
        value = self.values.get(name)
        if value is None:
            return ""
        if not isinstance(value, str):
            raise self._wrong(name, "must be text")
        return value.replace("\x00", "").encode("utf-8", "ignore").decode().strip()[:limit]

    def code(self, name: str) -> str:
        return self.text(name, MAX_CODE)

    def identifier(self, name: str) -> str:
        """An id, or the id of the object that Stripe put in its place because it was expanded."""
        value = self.values.get(name)
        if isinstance(value, Mapping):
            return self.node(name).identifier("id")
        if value is None:
            return ""
        if not isinstance(value, str):
            raise self._wrong(name, "must be an id")
        if len(value) > MAX_ID or not value.isprintable():
            raise self._wrong(name, f"is no id: ids are printable and have at most {MAX_ID} characters")
        return value.strip()

    def required_identifier(self, name: str) -> str:
        value = self.identifier(name)
        if not value:
            raise self._wrong(name, "is missing")
        return value

    def integer(self, name: str, *, minimum: int = 0, maximum: int = _MAX_COUNT) -> int | None:
        value = self.values.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not minimum <= value <= maximum:
            raise self._wrong(name, f"must be a whole number from {minimum} to {maximum}")
        return value

    def flag(self, name: str) -> bool | None:
        value = self.values.get(name)
        if value is not None and not isinstance(value, bool):
            raise self._wrong(name, "must be true or false")
        return value

    def instant(self, name: str) -> datetime | None:
        """A Unix time in seconds as an aware UTC datetime."""
        seconds = self.integer(name, maximum=_MAX_TIMESTAMP)
        return None if seconds is None else datetime.fromtimestamp(seconds, UTC)

    def required_instant(self, name: str) -> datetime:
        value = self.instant(name)
        if value is None:
            raise self._wrong(name, "is missing")
        return value

    def currency(self) -> str:
        """Upper-case ISO 4217 code; InvalidInput if it is missing or unknown."""
        value = self.values.get("currency")
        try:
            return money.currency_code(value)
        except InvalidInput:
            shown = repr(value)[:20]
            raise self._wrong("currency", f"is {shown}, which is no ISO 4217 currency code") from None

    def amount(self, name: str, currency: str) -> int | None:
        """ISO minor units of an amount field, None if it was not sent."""
        value = self.values.get(name)
        if value is None:
            return None
        try:
            return amounts.from_stripe(money.amount_minor(value), currency)
        except InvalidInput as error:
            raise self._wrong(name, f"cannot be used ({error.message})") from None

    def required_amount(self, name: str, currency: str) -> int:
        value = self.amount(name, currency)
        if value is None:
            raise self._wrong(name, "is missing")
        return value

    def node(self, name: str) -> "Node":
        """The object at a key; empty if there is none or only its id. Empty ones may come as empty lists."""
        value = self.values.get(name)
        path = f"{self.path}.{name}"
        if isinstance(value, Mapping):
            return Node(value, path)
        if value is None or isinstance(value, str) or value == []:
            return Node({}, path)
        raise self._wrong(name, "must be an object")

    def nodes(self, name: str) -> tuple["Node", ...]:
        """The objects of a list, be it plain or Stripe's `{object: list, data: [...]}`."""
        value = self.values.get(name)
        if isinstance(value, Mapping):
            return self.node(name).nodes("data")
        if value is None:
            return ()
        if not isinstance(value, list) or not all(isinstance(entry, Mapping) for entry in value):
            raise self._wrong(name, "must be a list of objects")
        return tuple(Node(entry, f"{self.path}.{name}[{index}]") for index, entry in enumerate(value))

    def first(self, name: str) -> "Node":
        """The first object of a list, or an empty one."""
        found = self.nodes(name)
        return found[0] if found else Node({}, f"{self.path}.{name}[0]")

    def _wrong(self, name: str, what: str) -> InvalidInput:
        return InvalidInput(f"Stripe's {self.path}.{name} {what}; {_ADVICE}.", field=f"{self.path}.{name}")
