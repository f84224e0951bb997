"""Keeps Redis like PostgreSQL: after every commit, after losses, and for all customers at once."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import structlog
from django.conf import settings
from django.db import transaction
from django.db.models import QuerySet

from invoices.models import Customer
from recovery_site.common import clock
from recovery_site.common.compiled import AnyOf, Compiled, Param
from recovery_site.common.errors import RecoveryError
from tokens.mirror import client
from tokens.mirror.keys import CustomerKeys, customer_keys
from tokens.mirror.loading import CustomerImage, customer_images
from tokens.mirror.slots import SlotHolder, slot_keeper
from tokens.models import Token

log = structlog.get_logger()
# A customer nobody has touched for this long is loaded again when asked about.
KEEP = timedelta(days=45)
_BATCH = 500
# Changed customers wait for each other until there are this many, or one has waited this long: the events of one failed
# payment come within a second.
_MANY, _SECONDS = 500, 1.0
# Customers written in one round trip, which Redis answers within a few milliseconds.
_WRITTEN = 50
# Cards that more customers share are nobody's own; the rest stay as they are until something happens to them.
_NEIGHBOURS = 100


class MirrorUnavailable(RecoveryError):
    """Redis does not answer."""

    code = "mirror_unavailable"
    http_status = 503
    retryable = True


def mirror_after_commit(customer_pk: int) -> None:
    """Mirror the customer once the running transaction has committed; never if it rolls back, never failing it.

    Other customers whose cards share a budget with this one's have less left too.
    """
    transaction.on_commit(partial(_changed, customer_pk), robust=True)


class _Together:
    """Customers that wait to be mirrored together, of all threads of the process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open = 0
        self._waiting: set[int] = set()
        self._since = 0.0

    def keep(self, customer_pk: int) -> bool:
        """False if nobody collects now."""
        with self._lock:
            if self._open:
                self._since = self._since if self._waiting else time.monotonic()
                self._waiting.add(customer_pk)
            return bool(self._open)

    def change(self, by: int) -> None:
        with self._lock:
            self._open += by

    def take(self, *, all_of_them: bool = False) -> list[int]:
        """Those whose turn it is: many at once, or after a second."""
        with self._lock:
            many = len(self._waiting) >= _MANY or time.monotonic() - self._since > _SECONDS
            if not self._waiting or not (many or all_of_them):
                return []
            taken, self._waiting = sorted(self._waiting), set()
        return taken


_together = _Together()


@contextmanager
def mirrored_together() -> Iterator[Callable[[], None]]:
    """What commits in this process meanwhile is mirrored for many customers at once: reading fifty costs what one does.

    Yields what the drain calls after each step; the rest follows at the end. What a killed process had collected stays
    old in Redis until the customer's next change; PostgreSQL, which is asked before every charge, knows better.
    """

    def step(*, last: bool = False) -> None:
        if customers := _together.take(all_of_them=last):
            transaction.on_commit(partial(_mirror_with_neighbours, customers), robust=True)

    _together.change(+1)
    try:
        yield step
    finally:
        _together.change(-1)
        step(last=True)


def _changed(customer_pk: int) -> None:
    if not _together.keep(customer_pk):
        _mirror_with_neighbours([customer_pk])


def _mirror_with_neighbours(customer_pks: Sequence[int]) -> None:
    mirror_customers(customer_pks)
    if client.breaker.open:
        return
    if neighbours := _NEXT_DOOR.all(customers=list(customer_pks)):
        mirror_customers(sorted(neighbours))


def _next_door() -> QuerySet[Token, int]:
    groups = Token.objects.filter(AnyOf("customer_id", Param("customers"))).values("card__budget_group")
    sharing = Token.objects.filter(card__budget_group__in=groups).exclude(AnyOf("customer_id", Param("customers")))
    return sharing.values_list("customer_id", flat=True).distinct()[:_NEIGHBOURS]


_NEXT_DOOR = Compiled(_next_door)


def mirror_customer(customer_pk: int) -> bool:
    """`mirror_customers` for one; False if there is no such customer or Redis gave no answer."""
    return mirror_customers([customer_pk]) == 1


def mirror_customers(customer_pks: Sequence[int]) -> int:
    """Write the customers' three keys from PostgreSQL, unless newer ones stand there: for how many Redis answered.

    Foreign or damaged content is replaced and logged. Call it with no transaction open.
    """
    if client.breaker.resting:
        client.count("skipped", len(customer_pks))
        return 0
    now = clock.now()
    images = customer_images(customer_pks, now=now)
    holders = slot_keeper().holders(customer_pks)
    answered = 0
    for start in range(0, len(images), _WRITTEN):
        some = images[start : start + _WRITTEN]
        requests = [_request(image, holders.get(image.customer_pk), now) for image in some]
        for image, reply in zip(some, client.call_many(client.WRITE, requests), strict=True):
            answered += _written(image, reply)
    return answered


def _request(image: CustomerImage, holder: SlotHolder | None, now: datetime) -> client.Request:
    keys = image.keys
    return [keys.status, keys.tokens, keys.budget], [
        image.version,
        holder.owner if holder else "",
        _milliseconds(holder, now),
        _whole(KEEP),
        image.budget,
        *(part for pair in image.statuses.items() for part in pair),
    ]


def _written(image: CustomerImage, reply: Any) -> bool:
    """Note what Redis said of a customer; False if that was nothing."""
    if not isinstance(reply, list):
        return False
    written, *foreign = reply
    client.count("written" if written else "outdated")
    for key in foreign:
        client.count("repaired")
        log.warning("mirror_repaired", key=key.decode("utf-8", "replace"), customer=image.customer_pk)
    return True


def _milliseconds(holder: SlotHolder | None, now: datetime) -> int:
    """Until the retry is due and one lease longer, on the clock of Redis."""
    if holder is None:
        return 1
    ahead = timedelta(seconds=clock.to_real_seconds(max(timedelta(), holder.until - now)))
    return _whole(min(ahead + settings.RETRY_LOCK_TIMEOUT, KEEP))


def _whole(duration: timedelta) -> int:
    return duration // timedelta(milliseconds=1)


def slot_entry_keep(customer: Customer, *, owner: str, lease: timedelta) -> None:
    """The owner goes on working: nobody shall think its slot free for one lease. Needs `customer.connection`."""
    client.slot_extend(_keys(customer), owner=owner, milliseconds=_whole(lease))


def slot_entry_refute(customer: Customer, *, owner: str) -> None:
    """PostgreSQL has just taken back a "no" of Redis: what it was based on is removed (only if `owner`, empty if it
    was not the slot, still stands there) and the customer is mirrored anew."""
    client.count("disagreed")
    log.warning("mirror_disagreed", customer=customer.pk, owner=owner)
    if owner:
        client.slot_release(_keys(customer), owner=owner)
    mirror_customer(customer.pk)


def _keys(customer: Customer) -> CustomerKeys:
    return customer_keys(customer.connection.public_id, customer.connector_customer_id)


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """How many customers were read, and for how many Redis took the answer."""

    customers: int
    written: int


def mirror_rebuild(*, merchant_pk: int | None = None, progress: Callable[[int], None] = lambda number: None) -> Rebuilt:
    """Throw away and write again the keys of every customer that has a token, in batches; `progress` hears of each.

    Safe beside running workers. Raises MirrorUnavailable when Redis stops answering.
    """
    customers = Customer.objects.filter(tokens__isnull=False).distinct().select_related("connection")
    if merchant_pk is not None:
        customers = customers.filter(merchant_id=merchant_pk)
    read = written = last = 0
    while batch := list(customers.filter(pk__gt=last).order_by("pk")[:_BATCH]):
        for customer in batch:
            keys = _keys(customer)
            if not client.forget([keys.status, keys.tokens, keys.budget]):
                raise MirrorUnavailable("Redis does not answer; start it, then run this again.", done=written)
        read += len(batch)
        written += mirror_customers([customer.pk for customer in batch])
        last = batch[-1].pk
        progress(len(batch))
    return Rebuilt(read, written)
