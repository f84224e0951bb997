"""Stripe's objects of all API versions: lists in two shapes, amounts as Stripe counts them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

from providers import reading
from providers.stripe import amounts


@dataclass(frozen=True, slots=True)
class Node(reading.Node):
    """One object of Stripe's JSON."""

    OWNER: ClassVar[str] = "Stripe"

    def nodes(self, name: str) -> tuple[Self, ...]:
        """The objects of a list, be it plain or Stripe's `{object: list, data: [...]}`."""
        if isinstance(self.values.get(name), Mapping):
            return self.node(name).nodes("data")
        return reading.Node.nodes(self, name)

    def _minor(self, value: int, currency: str) -> int:
        return amounts.from_stripe(value, currency)
