"""Webhook endpoints in and out, what came in and what was delivered."""

from django_filters import rest_framework as filters
from rest_framework import serializers

from accounts.api.filters import IdFilter, ListFilters, WordFilter
from accounts.api.views import DetailView, ListView, ResourceView
from webhooks.models import Delivery, InboxEvent, OutboundEndpoint, WebhookEndpoint
from webhooks.states import DeliveryStatus, InboxStatus


class InboundEndpointSerializer(serializers.ModelSerializer):
    """Where a provider sends to; the secret is never shown."""

    id = serializers.UUIDField(source="uuid")
    connection = serializers.CharField(source="connection.public_id")
    address = serializers.SerializerMethodField(help_text="Below PUBLIC_URL.")

    class Meta:
        model = WebhookEndpoint
        fields = ("id", "connection", "provider", "address", "enabled", "created_at")
        read_only_fields = fields

    def get_address(self, endpoint) -> str:
        return f"/webhooks/{endpoint.provider}/{endpoint.uuid}/"


class _InboundEndpoints(ResourceView):
    serializer_class = InboundEndpointSerializer
    lookup_field = "uuid"

    def rows(self):
        return WebhookEndpoint.objects.select_related("connection")


class InboundEndpointFilters(ListFilters):
    provider = WordFilter("provider", "Of this provider.", 40)

    class Meta:
        model = WebhookEndpoint
        fields: tuple[str, ...] = ()


class InboundEndpointListView(_InboundEndpoints, ListView):
    """Inbound endpoints, newest first."""

    filterset_class = InboundEndpointFilters


class InboundEndpointView(_InboundEndpoints, DetailView):
    """One inbound endpoint."""

    what = "webhook endpoint"


class InboxEventSerializer(serializers.ModelSerializer):
    """One item of an inbound webhook, without its body."""

    endpoint = serializers.UUIDField(source="endpoint.uuid")
    status = serializers.ChoiceField(choices=InboxStatus.choices)

    class Meta:
        model = InboxEvent
        fields = ("endpoint", "provider_event_id", "event_type", "status", "reason", "received_at", "processed_at")
        read_only_fields = fields


class InboxFilters(filters.FilterSet):
    status = filters.ChoiceFilter(choices=InboxStatus.choices)
    event_type = WordFilter("event_type", "Of this type.", 120)

    class Meta:
        model = InboxEvent
        fields: tuple[str, ...] = ()


class InboxListView(ListView):
    """What came in, newest first."""

    serializer_class = InboxEventSerializer
    filterset_class = InboxFilters

    def rows(self):
        return InboxEvent.objects.select_related("endpoint").defer("body")


class OutboundEndpointSerializer(serializers.ModelSerializer):
    """An address that hears of the merchant's events; the secret is never shown."""

    id = serializers.CharField(source="public_id", help_text="`hook_...`")

    class Meta:
        model = OutboundEndpoint
        fields = (
            "id",
            "url",
            "description",
            "event_types",
            "enabled",
            "disabled_at",
            "disabled_reason",
            "failing_since",
            "created_at",
        )
        read_only_fields = fields


class OutboundFilters(ListFilters):
    class Meta:
        model = OutboundEndpoint
        fields: tuple[str, ...] = ()


class _OutboundEndpoints(ResourceView):
    serializer_class = OutboundEndpointSerializer

    def rows(self):
        return OutboundEndpoint.objects.all()


class OutboundEndpointListView(_OutboundEndpoints, ListView):
    """Outbound endpoints, newest first."""

    filterset_class = OutboundFilters


class OutboundEndpointView(_OutboundEndpoints, DetailView):
    """One outbound endpoint."""

    what = "outbound endpoint"


class DeliverySerializer(serializers.ModelSerializer):
    """One event for one endpoint."""

    id = serializers.CharField(source="public_id", help_text="`dlv_...`")
    endpoint = serializers.CharField(source="endpoint.public_id")
    status = serializers.ChoiceField(choices=DeliveryStatus.choices)

    class Meta:
        model = Delivery
        fields = (
            "id",
            "endpoint",
            "message_id",
            "event_type",
            "status",
            "tries",
            "due_at",
            "last_status",
            "last_error",
            "finished_at",
            "created_at",
        )
        read_only_fields = fields


class DeliveryFilters(ListFilters):
    endpoint = IdFilter("endpoint", "Of this endpoint (`hook_...`).")
    status = filters.ChoiceFilter(choices=DeliveryStatus.choices)
    event_type = WordFilter("event_type", "Of this type.", 40)

    class Meta:
        model = Delivery
        fields: tuple[str, ...] = ()


class _Deliveries(ResourceView):
    serializer_class = DeliverySerializer

    def rows(self):
        return Delivery.objects.select_related("endpoint").defer("body")


class DeliveryListView(_Deliveries, ListView):
    """Deliveries, newest first."""

    filterset_class = DeliveryFilters


class DeliveryView(_Deliveries, DetailView):
    """One delivery."""

    what = "delivery"
