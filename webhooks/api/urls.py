"""Addresses of webhooks in and out, under /api/v1/."""

from django.urls import path

from webhooks.api import views
from webhooks.stream.elsewhere import stream_elsewhere

urlpatterns = [
    path("stream", stream_elsewhere),
    path("webhook-endpoints/in", views.InboundEndpointListView.as_view(), name="inbound-endpoints"),
    path("webhook-endpoints/in/<uuid:id>", views.InboundEndpointView.as_view(), name="inbound-endpoint"),
    path("webhook-endpoints/in/<uuid:id>/secret", views.InboundSecretView.as_view(), name="inbound-secret"),
    path("webhook-endpoints/out", views.OutboundEndpointListView.as_view(), name="outbound-endpoints"),
    path("webhook-endpoints/out/<public_id:id>", views.OutboundEndpointView.as_view(), name="outbound-endpoint"),
    path("webhook-endpoints/out/<public_id:id>/secret", views.OutboundSecretView.as_view(), name="outbound-secret"),
    path("inbox-events", views.InboxListView.as_view(), name="inbox-events"),
    path("inbox-events/<row:id>", views.InboxView.as_view(), name="inbox-event"),
    path("inbox-events/<row:id>/replay", views.InboxReplayView.as_view(), name="inbox-event-replay"),
    path("deliveries", views.DeliveryListView.as_view(), name="deliveries"),
    path("deliveries/<public_id:id>", views.DeliveryView.as_view(), name="delivery"),
    path("deliveries/<public_id:id>/replay", views.DeliveryReplayView.as_view(), name="delivery-replay"),
]
