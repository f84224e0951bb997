from webhooks.models.inbound import InboxEvent, WebhookEndpoint
from webhooks.models.outbound import Delivery, DeliveryTry, OutboundEndpoint

__all__ = ["Delivery", "DeliveryTry", "InboxEvent", "OutboundEndpoint", "WebhookEndpoint"]
