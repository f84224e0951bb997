"""Reads of the inbox."""

from collections.abc import Sequence
from uuid import UUID

from django.db.models import QuerySet

from accounts.models import Merchant
from recovery_site.common.errors import NotFound
from webhooks.models import InboxEvent, WebhookEndpoint


def inbox_events(
    *, merchant: Merchant | None = None, statuses: Sequence[str] = (), event_type: str = ""
) -> QuerySet[InboxEvent]:
    """Items without their bodies, newest first; the caller limits how many."""
    found = InboxEvent.objects.select_related("merchant").defer("body").order_by("-pk")
    if merchant is not None:
        found = found.filter(merchant=merchant)
    if statuses:
        found = found.filter(status__in=statuses)
    if event_type:
        found = found.filter(event_type=event_type)
    return found


def endpoint_require(endpoint_uuid: UUID) -> WebhookEndpoint:
    """An endpoint by the id in its address. Raises NotFound."""
    endpoint = WebhookEndpoint.objects.filter(uuid=endpoint_uuid).first()
    if endpoint is None:
        raise NotFound(f"There is no webhook endpoint {endpoint_uuid}; `webhook_endpoint create` prints its id.")
    return endpoint
