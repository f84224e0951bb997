"""Who holds a customer's slot. That truth is the job index of the layer above, which registers itself here."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from invoices.services.ledger import Stamp


@dataclass(frozen=True, slots=True)
class SlotHolder:
    """The transaction (public id) whose retry is booked or running; `until`: when it is due, on the virtual clock."""

    owner: str
    until: datetime


@dataclass(frozen=True, slots=True)
class SlotKeeper:
    """`holders(customer_pks)` reads who holds slots of theirs, by customer, without a lock.
    `unlock(customer_pk, reason, stamp)` frees the slot, audited, and says in a sentence what it did."""

    holders: Callable[[Sequence[int]], Mapping[int, SlotHolder]]
    unlock: Callable[[int, str, Stamp], str]

    def holder(self, customer_pk: int) -> SlotHolder | None:
        return self.holders([customer_pk]).get(customer_pk)


_keeper: list[SlotKeeper] = []


def slot_keeper_register(keeper: SlotKeeper) -> None:
    """Called once at start by the layer that owns the jobs."""
    _keeper[:] = [keeper]


def slot_keeper() -> SlotKeeper:
    return _keeper[0]
