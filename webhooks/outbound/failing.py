"""What an endpoint's answers say about the endpoint: rest, and in the end being switched off with an alert."""

from datetime import datetime, timedelta
from typing import Final

import structlog
from django.conf import settings
from django.db import transaction
from django.db.models import F
from django.db.models.functions import Coalesce

from invoices.services.ledger import Stamp, alert
from recovery_site.common.clock import database_now
from recovery_site.common.db import DatabaseClock
from retries.locking import scope_lock
from webhooks.models import Delivery, OutboundEndpoint
from webhooks.outbound.endpoints import outbound_endpoint_lock, outbound_endpoint_switch

log = structlog.get_logger()
# After so many failures in a row it gets one try at a time and rests between them, so that one dead receiver with a
# thousand deliveries does not keep the others waiting.
FAILING: Final = 3
_FIRST_REST, _REST_AT_MOST = timedelta(seconds=5), timedelta(minutes=5)
# The receiver's own word that it wants no more (Standard Webhooks).
GONE: Final = 410


def endpoint_accepted(endpoint_pk: int) -> None:
    """A clean record; one cheap statement, which mostly finds nothing to do."""
    OutboundEndpoint.objects.filter(pk=endpoint_pk, failing_since__isnull=False).update(
        failing_since=None, failures=0, rests_until=None
    )


def endpoint_failed(endpoint_pk: int) -> None:
    """One more failure, and a rest that grows with them."""
    endpoint = OutboundEndpoint.objects.filter(pk=endpoint_pk)
    endpoint.update(failing_since=Coalesce("failing_since", DatabaseClock()), failures=F("failures") + 1)
    failures = endpoint.values_list("failures", flat=True).get()
    if failures >= FAILING:
        rest = min(_FIRST_REST * 2 ** min(failures - FAILING, 10), _REST_AT_MOST)
        endpoint.update(rests_until=DatabaseClock() + rest)


def endpoint_judge(delivery: Delivery, status: int | None, now: datetime) -> bool:
    """Switch the endpoint off if it said that it is gone, or has accepted nothing for WEBHOOK_OUT_DISABLE_AFTER.

    Raises the alert `webhook_endpoint_disabled` in the same transaction, on the invoice whose delivery failed last.
    What waits for the endpoint is kept and goes out once it is on again. True if it was switched off.
    """
    if not _worn_out(OutboundEndpoint.objects.get(pk=delivery.endpoint_id), status):
        return False
    invoice = delivery.event.invoice
    with transaction.atomic():
        scope = scope_lock(customer_pk=invoice.customer_id, invoice_pk=invoice.pk)
        endpoint = outbound_endpoint_lock(delivery.endpoint_id)
        if not _worn_out(endpoint, status):
            return False
        reason = "it answered 410 Gone" if status == GONE else f"it has accepted nothing since {endpoint.failing_since}"
        outbound_endpoint_switch(endpoint_pk=endpoint.pk, enabled=False, reason=f"Switched off: {reason}.", now=now)
        alert(
            scope.invoice,
            "webhook_endpoint_disabled",
            f"The webhook endpoint {endpoint} was switched off: {reason}.",
            Stamp("system:webhooks", "a receiver that does not accept", now),
            {"endpoint": endpoint.public_id},
        )
    return True


def _worn_out(endpoint: OutboundEndpoint, status: int | None) -> bool:
    if not endpoint.enabled:
        return False
    since = endpoint.failing_since
    return status == GONE or (since is not None and database_now() - since >= settings.WEBHOOK_OUT_DISABLE_AFTER)
