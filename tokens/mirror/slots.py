"""Who holds a customer's slot. That truth is the job index of the layer above, which registers itself here."""

from collections.abc import Callable
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
    """`holder(customer_pk)` reads, without a lock. `unlock(customer_pk, reason, stamp)` frees the slot, audited, and
    says in a sentence what it did."""

    holder: Callable[[int], SlotHolder | None]
    unlock: Callable[[int, str, Stamp], str]


_keeper: list[SlotKeeper] = []


def slot_keeper_register(keeper: SlotKeeper) -> None:
    """Called once at start by the layer that owns the jobs."""
    _keeper[:] = [keeper]


def slot_keeper() -> SlotKeeper:
    return _keeper[0]
