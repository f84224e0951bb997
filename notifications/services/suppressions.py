"""Addresses that must not be written to, and the lock under which an address's mail is counted."""

from datetime import datetime

import structlog
from django.db import connection

from notifications.models import Message, Suppression
from notifications.states import SuppressionReason

log = structlog.get_logger()


def address_lock(merchant_pk: int, address: str) -> None:
    """Until the end of the transaction nobody else counts or adds mail to this address of the merchant.

    Two customers of different connections can share an address, so the customer's row lock is not enough. Taken after
    customer and invoice, and nothing is locked after it.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, %s))", [address, merchant_pk])


def address_suppress(
    *, merchant_pk: int, address: str, reason: SuppressionReason, now: datetime, message: Message | None = None
) -> bool:
    """No more mail to this address; False if that was so already."""
    address = address.strip().lower()
    if not address:
        return False
    _, new = Suppression.objects.get_or_create(
        merchant_id=merchant_pk,
        address=address,
        lifted_at=None,
        defaults={"reason": reason, "message": message, "since": now},
    )
    if new:
        log.info("address_suppressed", merchant=merchant_pk, reason=reason, message=message and message.public_id)
    return new


def suppression_lift(*, suppression_pk: int, by: str, now: datetime) -> bool:
    """Let an address get mail again, because its owner asked for it; False if it may already."""
    rows = Suppression.objects.filter(pk=suppression_pk, lifted_at=None)
    return bool(rows.update(lifted_at=now, lifted_by=by[:100]))
