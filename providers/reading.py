"""Typed reading of what a provider sent: every key optional unless asked for, every mistake named by its path.

Objects of old and new versions, shortened samples and hostile bodies all go through here, so nothing may raise anything
but InvalidInput, and no message repeats a value.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, ClassVar, Self

from recovery_site.common import money
from recovery_site.common.clock import FIRST_YEAR, LAST_YEAR
from recovery_site.common.errors import InvalidInput
from recovery_site.common.scrubbing import FILTERED
from recovery_site.common.text import storable

MAX_ID = 200
MAX_CODE = 100
MAX_TEXT = 500
# The end of LAST_YEAR.
MAX_TIMESTAMP = 7_258_118_399
_MAX_COUNT = 2**31 - 1
_WHOLE = re.compile(r"[0-9]{1,18}", re.ASCII)
_TRUTH = {"true": True, "false": False}


@dataclass(frozen=True, slots=True)
class Node:
    """One object of the body; `path` names it in messages, such as `invoice.lines`. Providers refine it."""

    OWNER: ClassVar[str] = "The provider"
    # Whether this provider may send whole numbers, amounts and truth values as text.
    AS_TEXT: ClassVar[bool] = False
    values: Mapping[str, Any]
    path: str

    def __bool__(self) -> bool:
        return bool(self.values)

    def has(self, name: str) -> bool:
        """True if the key was sent at all, even as null."""
        return name in self.values

    def text(self, name: str, limit: int = MAX_TEXT) -> str:
        """Free text, cut to `limit`; characters that PostgreSQL or UTF-8 cannot hold are dropped. A whole number is its
        digits: codes come as either."""
        value = self.values.get(name)
        if value is None:
            return ""
        if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**18:
            return str(value)
        if not isinstance(value, str):
            raise self.wrong(name, "must be text")
        return storable(value).strip()[:limit]

    def full_name(self, first: str, last: str, company: str) -> str:
        """A person's name from its two parts, else the company's."""
        person = " ".join(filter(None, (self.text(first, 100), self.text(last, 100))))
        return person or self.text(company, 200)

    def code(self, name: str) -> str:
        return self.text(name, MAX_CODE)

    def identifier(self, name: str) -> str:
        """An id, or the id of the object that was put in its place because it was expanded."""
        value = self.values.get(name)
        if isinstance(value, Mapping):
            return self.node(name).identifier("id")
        if value is None:
            return ""
        if not isinstance(value, str):
            raise self.wrong(name, "must be an id")
        if len(value) > MAX_ID or not value.isprintable():
            raise self.wrong(name, f"is no id: ids are printable and have at most {MAX_ID} characters")
        if FILTERED in value:
            # Two such ids would look like one.
            raise self.wrong(name, "looked like a card number and was not stored")
        return value.strip()

    def number(self, name: str) -> str:
        """An id that is a number, or text."""
        value = self.values.get(name)
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value) if 0 <= value < 10**18 else ""
        return self.identifier(name)

    def required_identifier(self, name: str) -> str:
        value = self.identifier(name)
        if not value:
            raise self.wrong(name, "is missing")
        return value

    def integer(self, name: str, *, minimum: int = 0, maximum: int = _MAX_COUNT) -> int | None:
        value = self._whole(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not minimum <= value <= maximum:
            raise self.wrong(name, f"must be a whole number from {minimum} to {maximum}")
        return value

    def _whole(self, name: str) -> Any:
        """What stands at a key, a whole number in text as a number."""
        value = self.values.get(name)
        if self.AS_TEXT and isinstance(value, str):
            text = value.strip()
            return int(text) if _WHOLE.fullmatch(text) else text or None
        return value

    def month(self, name: str) -> int | None:
        """Of a card's date. It only describes: one that cannot be is none, and does not refuse a payment."""
        return self._within(name, 12)

    def year(self, name: str) -> int | None:
        """As for months; two digits are of this century."""
        year = self._within(name, 9999)
        return year + 2000 if year is not None and year < 100 else year

    def _within(self, name: str, most: int) -> int | None:
        value = self._whole(name)
        return value if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= most else None

    def flag(self, name: str) -> bool | None:
        value = self.values.get(name)
        if self.AS_TEXT and isinstance(value, str):
            value = _TRUTH.get(value.strip().lower(), value or None)
        if value is not None and not isinstance(value, bool):
            raise self.wrong(name, "must be true or false")
        return value

    def instant(self, name: str) -> datetime | None:
        """A Unix time in seconds as an aware UTC datetime."""
        seconds = self.integer(name, maximum=MAX_TIMESTAMP)
        return None if seconds is None else datetime.fromtimestamp(seconds, UTC)

    def required_instant(self, name: str) -> datetime:
        value = self.instant(name)
        if value is None:
            raise self.wrong(name, "is missing")
        return value

    def moment(self, name: str) -> datetime | None:
        """An ISO 8601 time as an aware UTC datetime; one that names no zone is UTC. One before 1970 is none: some
        languages write their zero like that."""
        value = self.text(name, 64)
        if not value:
            return None
        try:
            told = datetime.fromisoformat(value)
        except ValueError:
            told = None
        if told is None or told.year > LAST_YEAR:
            raise self.wrong(name, "must be a time such as 2026-03-01T09:30:00Z")
        if told.year < FIRST_YEAR:
            return None
        return told.replace(tzinfo=UTC) if told.tzinfo is None else told.astimezone(UTC)

    def required_moment(self, name: str) -> datetime:
        value = self.moment(name)
        if value is None:
            raise self.wrong(name, "is missing")
        return value

    def currency(self, name: str = "currency") -> str:
        """Upper-case ISO 4217 code; InvalidInput if it is missing or unknown."""
        value = self.values.get(name)
        try:
            return money.currency_code(value)
        except InvalidInput:
            shown = repr(value)[:20]
            raise self.wrong(name, f"is {shown}, which is no ISO 4217 currency code") from None

    def amount(self, name: str, currency: str) -> int | None:
        """ISO minor units of an amount field, None if it was not sent."""
        value = self._whole(name)
        if value is None:
            return None
        try:
            return self._minor(money.amount_minor(value), currency)
        except InvalidInput as error:
            raise self.wrong(name, f"cannot be used ({error.message})") from None

    def _minor(self, value: int, currency: str) -> int:
        """ISO minor units of the provider's own."""
        return value

    def decimal_amount(self, name: str, currency: str) -> int | None:
        """ISO minor units of an amount that is sent in major units as decimal text; None if it was not sent."""
        value = self.values.get(name)
        if value is None or value == "":
            return None
        try:
            return money.from_decimal_string(value if isinstance(value, str) else repr(value), currency)
        except InvalidInput:
            raise self.wrong(name, f"is no amount with at most {money.exponent(currency)} decimals") from None

    def required_amount(self, name: str, currency: str) -> int:
        value = self.amount(name, currency)
        if value is None:
            raise self.wrong(name, "is missing")
        return value

    def node(self, name: str) -> Self:
        """The object at a key; empty if there is none or only its id. Empty ones may come as empty lists. Of several
        the first is meant: XML repeats elements."""
        value = self.values.get(name)
        path = f"{self.path}.{name}"
        if isinstance(value, list) and value and isinstance(value[0], Mapping):
            value = value[0]
        if isinstance(value, Mapping):
            return type(self)(value, path)
        if value is None or isinstance(value, str) or value == []:
            return type(self)({}, path)
        raise self.wrong(name, "must be an object")

    def nodes(self, name: str) -> tuple[Self, ...]:
        """The objects of a list."""
        value = self.values.get(name)
        if value is None:
            return ()
        if not isinstance(value, list) or not all(isinstance(entry, Mapping) for entry in value):
            raise self.wrong(name, "must be a list of objects")
        return tuple(type(self)(entry, f"{self.path}.{name}[{index}]") for index, entry in enumerate(value))

    def first(self, name: str) -> Self:
        """The first object of a list, or an empty one."""
        found = self.nodes(name)
        return found[0] if found else type(self)({}, f"{self.path}.{name}[0]")

    def wrong(self, name: str, what: str) -> InvalidInput:
        """The refusal of a field, to be raised."""
        advice = f"open it in {self.OWNER}'s dashboard to see what was sent"
        return InvalidInput(f"{self.OWNER}'s {self.path}.{name} {what}; {advice}.", field=f"{self.path}.{name}")
