"""Keeps Redis like PostgreSQL: after every commit, after losses, and for all customers at once."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

import structlog
from django.conf import settings
from django.db import transaction
from django.db.models import QuerySet

from invoices.models import Customer
from recovery_site.common import clock
from recovery_site.common.compiled import Compiled, Param
from recovery_site.common.errors import RecoveryError
from tokens.mirror import client
from tokens.mirror.keys import CustomerKeys, customer_keys
from tokens.mirror.loading import customer_image
from tokens.mirror.slots import SlotHolder, slot_keeper
from tokens.models import Token

log = structlog.get_logger()
# A customer nobody has touched for this long is loaded again when asked about.
KEEP = timedelta(days=45)
_BATCH = 500
# A card that more customers share is nobody's own; the rest stay as they are until something happens to them.
_NEIGHBOURS = 20


class MirrorUnavailable(RecoveryError):
    """Redis does not answer."""

    code = "mirror_unavailable"
    http_status = 503
    retryable = True


def mirror_after_commit(customer_pk: int) -> None:
    """Mirror the customer once the running transaction has committed; never if it rolls back, never failing it.

    Other customers whose cards share a budget with this one's have less left too.
    """
    transaction.on_commit(partial(_mirror_with_neighbours, customer_pk), robust=True)


def _mirror_with_neighbours(customer_pk: int) -> None:
    if not mirror_customer(customer_pk):
        return
    for pk in _NEXT_DOOR.all(customer=customer_pk):
        mirror_customer(pk)


def _next_door() -> QuerySet[Token, int]:
    groups = Token.objects.filter(customer=Param("customer")).values("card__budget_group")
    sharing = Token.objects.filter(card__budget_group__in=groups).exclude(customer=Param("customer"))
    return sharing.values_list("customer_id", flat=True).distinct()[:_NEIGHBOURS]


_NEXT_DOOR = Compiled(_next_door)


def mirror_customer(customer_pk: int) -> bool:
    """Write the customer's three keys from PostgreSQL, unless newer ones stand there; False if Redis gave no answer.

    Foreign or damaged content is replaced and logged. Call it with no transaction open.
    """
    if not client.breaker.allows():
        client.count("skipped")
        return False
    now = clock.now()
    image = customer_image(customer_pk, now=now)
    if image is None:
        return False
    holder = slot_keeper().holder(customer_pk)
    keys = image.keys
    reply = client.call(
        client.WRITE,
        [keys.status, keys.tokens, keys.budget],
        image.version,
        holder.owner if holder else "",
        _milliseconds(holder, now),
        _whole(KEEP),
        image.budget,
        *(part for pair in image.statuses.items() for part in pair),
    )
    if not isinstance(reply, list):
        return False
    written, *foreign = reply
    client.count("written" if written else "outdated")
    for key in foreign:
        client.count("repaired")
        log.warning("mirror_repaired", key=key.decode("utf-8", "replace"), customer=customer_pk)
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
            read += 1
            written += mirror_customer(customer.pk)
        last = batch[-1].pk
        progress(len(batch))
    return Rebuilt(read, written)
