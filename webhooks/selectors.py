"""Reads of the inbox."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from django.db.models import QuerySet

from accounts.models import Merchant
from invoices.models import Connection
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


def connection_endpoint(connection: Connection) -> WebhookEndpoint | None:
    """The newest address of a connection, None if it has none."""
    mine = WebhookEndpoint.objects.filter(connection=connection, provider=connection.provider)
    return mine.order_by("-pk").first()


@dataclass(frozen=True, slots=True)
class Arrivals:
    """What has come in at an endpoint: its first event, or only the newest where there are too many to tell."""

    first: InboxEvent | None
    newest: InboxEvent | None


_FEW = 500


def endpoint_arrivals(endpoint: WebhookEndpoint) -> Arrivals:
    """Reads no more rows at a busy endpoint than at a quiet one."""
    mine = InboxEvent.objects.filter(endpoint=endpoint).defer("body")
    few = list(mine.order_by().values_list("pk", flat=True)[: _FEW + 1])
    if len(few) > _FEW:
        return Arrivals(None, mine.filter(merchant=endpoint.merchant_id).order_by("-pk").first())
    return Arrivals(mine.get(pk=min(few)), mine.get(pk=max(few))) if few else Arrivals(None, None)
