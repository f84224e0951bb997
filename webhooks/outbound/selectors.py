"""Reads of outbound endpoints and their deliveries."""

from collections.abc import Sequence

from django.db.models import QuerySet

from accounts.models import Merchant
from recovery_site.common.errors import NotFound
from webhooks.models import Delivery, DeliveryTry, OutboundEndpoint


def outbound_endpoints(merchant: Merchant) -> QuerySet[OutboundEndpoint]:
    """A merchant's endpoints, newest first."""
    return OutboundEndpoint.objects.filter(merchant=merchant).order_by("-pk")


def outbound_endpoint_require(public_id: str, merchant: Merchant | None = None) -> OutboundEndpoint:
    """An endpoint by its public id, the merchant's own if one is given. Raises NotFound."""
    found = OutboundEndpoint.objects.filter(public_id=public_id)
    endpoint = (found if merchant is None else found.filter(merchant=merchant)).first()
    if endpoint is None:
        raise NotFound(f"There is no outbound endpoint {public_id}; `outbound list` shows those there are.")
    return endpoint


def deliveries(
    *,
    merchant: Merchant | None = None,
    endpoint: OutboundEndpoint | None = None,
    statuses: Sequence[str] = (),
    event_type: str = "",
) -> QuerySet[Delivery]:
    """Deliveries without their bodies, newest first; the caller limits how many."""
    found = Delivery.objects.select_related("endpoint", "merchant").defer("body").order_by("-pk")
    if merchant is not None:
        found = found.filter(merchant=merchant)
    if endpoint is not None:
        found = found.filter(endpoint=endpoint)
    if statuses:
        found = found.filter(status__in=statuses)
    if event_type:
        found = found.filter(event_type=event_type)
    return found


def delivery_require(public_id: str, merchant: Merchant | None = None) -> Delivery:
    """A delivery by its public id, the merchant's own if one is given. Raises NotFound."""
    found = Delivery.objects.select_related("endpoint").filter(public_id=public_id)
    delivery = (found if merchant is None else found.filter(merchant=merchant)).first()
    if delivery is None:
        raise NotFound(f"There is no delivery {public_id}; `outbound deliveries` shows those there are.")
    return delivery


def delivery_log(delivery: Delivery) -> QuerySet[DeliveryTry]:
    """Every request of a delivery, oldest first."""
    return DeliveryTry.objects.filter(delivery=delivery).order_by("pk")
