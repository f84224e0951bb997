"""The reverse scan: payments that a provider lists and this ledger does not know become events like any other."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import islice

import structlog
from django.db import transaction

from invoices.models import Attempt, Connection
from invoices.selectors.parties import charging_obstacle, connection_client
from invoices.services.ledger import Stamp
from invoices.services.parties import connection_scanned
from invoices.states import ConnectionMode, TransactionKind
from providers.base import (
    ChargeResult,
    CustomerFacts,
    EventKind,
    MethodFacts,
    Outcome,
    PaymentEvent,
    PaymentFacts,
    ProviderUnavailable,
)
from recovery_site.common.errors import RecoveryError
from retries.engine.send import differences, mismatch_review
from retries.handler import event_handle
from retries.locking import scope_lock

log = structlog.get_logger()
# Providers list a charge a little after it was made, so each scan looks back over the last one's end.
_OVERLAP = timedelta(hours=1)
_MOST_PER_TICK = 1000
_KIND = {
    Outcome.SUCCEEDED: EventKind.PAYMENT_SUCCEEDED,
    Outcome.DECLINED: EventKind.PAYMENT_FAILED,
    Outcome.AWAITING: EventKind.PAYMENT_PENDING,
}


def connections_to_scan() -> list[int]:
    """Connections whose provider can be asked for its payments."""
    charging = Connection.objects.filter(enabled=True, paused_reason="").exclude(mode=ConnectionMode.OBSERVE)
    return list(charging.order_by("pk").values_list("pk", flat=True))


def connection_scan(connection_pk: int, *, now: datetime) -> int:
    """Compare one connection's list with the ledger, oldest first; returns how many payments were news.

    A payment that cannot be placed is logged and passed over; a provider that cannot be read is left for the next tick.
    """
    connection = Connection.objects.get(pk=connection_pk)
    if charging_obstacle(connection):
        return 0
    since = connection.scanned_until or connection.created_at
    try:
        listed = sorted(_listed(connection, since - _OVERLAP), key=lambda result: result.created_at or since)
    except ProviderUnavailable as error:
        log.info("reconcile", action="unreadable", connection=connection.public_id, reason=error.message)
        return 0
    news = sum(_take_in(connection, result, now) for result in listed)
    newest = max((result.created_at for result in listed if result.created_at), default=None)
    if newest is not None and newest > since:
        connection_scanned(connection_pk=connection_pk, until=newest)
    return news


def _listed(connection: Connection, since: datetime) -> Iterator[ChargeResult]:
    return islice(connection_client(connection).charges_list(since), _MOST_PER_TICK)


def _take_in(connection: Connection, result: ChargeResult, now: datetime) -> bool:
    known = _known(connection, result)
    if known is not None:
        _compare(known, result, now)
        return False
    if not result.customer or result.amount_minor is None or result.outcome not in _KIND:
        return False
    event = PaymentEvent(
        kind=_KIND[result.outcome],
        provider=connection.provider,
        event_id=f"scan:{result.provider_id}",
        event_type="found in the provider's list",
        occurred_at=result.created_at or now,
        customer=CustomerFacts(id=result.customer),
        payment=PaymentFacts(
            charge_id=result.provider_id,
            payment_id=result.payment_id,
            amount_minor=result.amount_minor,
            currency=result.currency,
            method=MethodFacts(token=result.token, card=result.card) if result.token else None,
            decline=result.decline,
            names_invoice=False,
        ),
        source="poll",
    )
    try:
        handled = event_handle(event=event, connection=connection, cause=event.event_id[:200], now=now)
    except RecoveryError as error:
        log.warning("reconcile", action="scan_refused", charge=result.provider_id, reason=error.message)
        return False
    log.info("reconcile", action="scanned", charge=result.provider_id, status=result.outcome, reason=handled.reason)
    return handled.effect


def _known(connection: Connection, result: ChargeResult) -> Attempt | None:
    ours = Attempt.objects.filter(connection=connection, kind=TransactionKind.CHARGE)
    if result.reference and (found := ours.filter(public_id=result.reference).first()):
        return found
    return ours.filter(provider_id=result.provider_id).first()


def _compare(attempt: Attempt, result: ChargeResult, now: datetime) -> None:
    """The same charge with another amount or currency is a question for staff."""
    found = differences(result, attempt.public_id, attempt.amount_minor, attempt.currency)
    if not found or not result.provider_id:
        return
    with transaction.atomic():
        scope = scope_lock(customer_pk=attempt.customer_id, invoice_pk=attempt.invoice_id)
        stamp = Stamp(actor="system:reconcile", cause="compared with the provider's list", now=now)
        mismatch_review(scope, attempt, found, result, stamp)
