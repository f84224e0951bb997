"""The reverse scan: payments that a provider lists and this ledger does not know become events like any other."""

import heapq
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta

from django.db import transaction

from invoices.models import Attempt, Connection
from invoices.selectors.parties import asking_obstacle, connection_client
from invoices.services.ledger import Stamp
from invoices.services.parties import connection_scanned
from invoices.states import MODES_WE_CALL, AttemptStatus, TransactionKind
from providers.base import (
    ChargeResult,
    CustomerFacts,
    EventKind,
    Outcome,
    PaymentEvent,
    PaymentFacts,
    ProviderClient,
    ProviderUnavailable,
)
from recovery_site.common.db import for_no_key_update
from recovery_site.common.errors import RecoveryError
from retries.engine.send import answer_apply, differences, mismatch_review
from retries.handler import EventWaits, event_handle
from retries.locking import scope_lock
from retries.reconcile_log import attempt_line, reconcile_line

# Providers list a charge a little after it was made, so each scan looks back over the last one's end.
_OVERLAP = timedelta(hours=1)
_MOST_PER_TICK = 1000
_KIND = {
    Outcome.SUCCEEDED: EventKind.PAYMENT_SUCCEEDED,
    Outcome.DECLINED: EventKind.PAYMENT_FAILED,
    Outcome.AWAITING: EventKind.PAYMENT_PENDING,
}
# How an attempt stands that ended as the provider says.
_END: Mapping[str, Outcome] = {
    AttemptStatus.SUCCEEDED: Outcome.SUCCEEDED,
    AttemptStatus.DECLINED: Outcome.DECLINED,
    AttemptStatus.AWAITING: Outcome.AWAITING,
}


def connections_to_scan() -> list[int]:
    """Connections whose provider can be asked for its payments."""
    charging = Connection.objects.filter(enabled=True, paused_reason="", mode__in=MODES_WE_CALL)
    return list(charging.order_by("pk").values_list("pk", flat=True))


def connection_scan(connection_pk: int, *, now: datetime) -> int:
    """Compare one connection's list with the ledger, oldest first; returns how many payments were news.

    A payment that cannot be placed is logged and passed over, one that has to wait for another is met again by the
    next scan; so is everything while the list cannot be read to its end.
    """
    connection = Connection.objects.get(pk=connection_pk)
    if asking_obstacle(connection):
        return 0
    client = connection_client(connection)
    if not client.traits.lists:
        return 0
    since = connection.scanned_until or connection.created_at
    listed, whole = _listed(connection, client, since, now)
    news, until = 0, since
    for result in listed:
        try:
            news += _take_in(connection, result, now)
        except EventWaits as waits:
            _line("scan_waits", result, now, waits.message)
            whole = False
        if whole and result.created_at is not None:
            until = max(until, min(result.created_at, now))
    if until > since:
        connection_scanned(connection_pk=connection_pk, until=until)
    return news


def _listed(
    connection: Connection, client: ProviderClient, since: datetime, now: datetime
) -> tuple[list[ChargeResult], bool]:
    """The oldest charges that were not looked at yet, with those just before them, and whether the list was readable.

    Some providers list the newest first: the whole list is walked, and no more of it is kept than one tick can do.
    """
    trouble: list[ProviderUnavailable] = []
    again: list[ChargeResult] = []

    def unseen(results: Iterable[ChargeResult]) -> Iterator[ChargeResult]:
        try:
            for result in results:
                if result.created_at is not None and result.created_at <= since:
                    again.append(result)
                else:
                    yield result
        except ProviderUnavailable as error:
            trouble.append(error)

    def age(result: ChargeResult) -> datetime:
        return result.created_at or since

    found = heapq.nsmallest(_MOST_PER_TICK, unseen(client.charges_list(since - _OVERLAP)), key=age)
    if trouble:
        reason = trouble[0].message
        reconcile_line(
            "unreadable", status="waiting", stuck=now - since, connection=connection.public_id, reason=reason
        )
    return sorted(again, key=age) + found, not trouble


def _take_in(connection: Connection, result: ChargeResult, now: datetime) -> bool:
    known = _known(connection, result)
    if known is not None:
        return _compare(known, result, now)
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
            method=connection_client(connection).traits.method_of(result),
            decline=result.decline,
            names_invoice=False,
            gateway_reference=result.gateway_reference,
        ),
        source="poll",
    )
    try:
        handled = event_handle(event=event, connection=connection, cause=event.event_id[:200], now=now)
    except EventWaits:
        raise
    except RecoveryError as error:
        _line("scan_refused", result, now, error.message)
        return False
    _line("scanned", result, now, handled.reason)
    return handled.effect


def _line(action: str, result: ChargeResult, now: datetime, reason: str) -> None:
    age = now - (result.created_at or now)
    reconcile_line(action, status=result.outcome, stuck=age, charge=result.provider_id, reason=reason)


def _known(connection: Connection, result: ChargeResult) -> Attempt | None:
    ours = Attempt.objects.filter(connection=connection, kind=TransactionKind.CHARGE)
    if result.reference and (found := ours.filter(public_id=result.reference).first()):
        return found
    return ours.filter(provider_id=result.provider_id).first()


def _compare(known: Attempt, result: ChargeResult, now: datetime) -> bool:
    """The same charge with other facts is a question for staff; what it says of an attempt that we have given up, or
    do not know the end of, counts like any other word of the provider. True if it was news."""
    as_told = known.status == AttemptStatus.SENDING or _END.get(known.status) is result.outcome
    if as_told and not differences(known, result):
        return False
    with transaction.atomic():
        scope = scope_lock(customer_pk=known.customer_id, invoice_pk=known.invoice_id)
        attempt = for_no_key_update(Attempt.objects.filter(pk=known.pk).select_related("connection")).get()
        stamp = Stamp(actor="system:reconcile", cause="compared with the provider's list", now=now)
        before = attempt.status
        if found := differences(attempt, result):
            mismatch_review(scope, attempt, found, result, stamp)
        elif before != AttemptStatus.SENDING:
            answer_apply(scope, attempt, result, attempt.connection.provider, stamp)
        if attempt.status == before:
            return False
    attempt_line("adopted", attempt, now)
    return True
