"""Chargebee's objects: times as Unix seconds, versions as milliseconds, amounts as integers of minor units."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import ClassVar, Self

from providers import reading

# 9999-12-31 in milliseconds.
_MAX_VERSION = 253_402_300_799_000


@dataclass(frozen=True, slots=True)
class Node(reading.Node):
    """One object of Chargebee's JSON."""

    OWNER: ClassVar[str] = "Chargebee"

    def version(self) -> datetime | None:
        """`resource_version`: when this state of the object came to be, in milliseconds."""
        told = self.integer("resource_version", maximum=_MAX_VERSION)
        return None if told is None else datetime.fromtimestamp(told / 1000, UTC)

    def packed(self, name: str, inner: str) -> Self:
        """The object `inner` of an object that is sent as JSON in text, or as it is; empty if there is none."""
        value = self.values.get(name)
        if isinstance(value, str):
            try:
                value = json.loads(value)
            except (ValueError, RecursionError):
                value = None
        found = value.get(inner) if isinstance(value, dict) else None
        return type(self)(found if isinstance(found, dict) else {}, f"{self.path}.{name}.{inner}")
