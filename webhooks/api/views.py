"""Webhook endpoints in and out, what came in and what was delivered."""

from django.db import transaction
from django.db.models import Prefetch
from django_filters import rest_framework as filters
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.api.fields import StrictSerializer
from accounts.api.filters import IdFilter, ListFilters, WordFilter
from accounts.api.views import DetailView, ListView, ResourceView, RowView
from accounts.scopes import Scope
from invoices.api.stamp import api_stamp
from invoices.services.parties import connection_require
from recovery_site.common import clock
from webhooks.models import Delivery, DeliveryTry, InboxEvent, OutboundEndpoint, WebhookEndpoint
from webhooks.outbound.catalogue import EventType
from webhooks.outbound.deliveries import delivery_replay
from webhooks.outbound.endpoints import (
    NewSecret,
    outbound_endpoint_create,
    outbound_endpoint_rotate,
    outbound_endpoint_switch,
    outbound_endpoint_update,
)
from webhooks.services import endpoint_create, endpoint_rotate, inbox_replay
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


class InboundSecretSerializer(StrictSerializer):
    secret = serializers.CharField(max_length=500, help_text="What the provider signs its webhooks with.")


class InboundRequestSerializer(InboundSecretSerializer):
    provider = serializers.CharField(max_length=40, help_text="Whose webhooks: `stripe`, `adyen`, ...")
    connection = serializers.CharField(
        required=False, max_length=40, help_text="`con_...`; default: the only one of this provider, else a new one."
    )


class _InboundEndpoints(ResourceView):
    serializer_class = InboundEndpointSerializer
    what = "webhook endpoint"
    lookup_field = "uuid"

    def rows(self):
        return WebhookEndpoint.objects.select_related("connection")


class InboundEndpointFilters(ListFilters):
    provider = WordFilter("provider", "Of this provider.", 40)

    class Meta:
        model = WebhookEndpoint
        fields: tuple[str, ...] = ()


class InboundEndpointListView(_InboundEndpoints, ListView):
    """Inbound endpoints, newest first; a POST makes one."""

    filterset_class = InboundEndpointFilters
    scopes = {"POST": Scope.SETTINGS}

    @extend_schema(request=InboundRequestSerializer, responses={201: InboundEndpointSerializer})
    def post(self, request: Request) -> Response:
        given = self.body(InboundRequestSerializer)
        named = given.get("connection")
        endpoint = endpoint_create(
            merchant=self.merchant,
            provider=given["provider"],
            secret=given["secret"],
            connection=connection_require(merchant=self.merchant, public_id=named) if named else None,
        )
        return Response(self.get_serializer(endpoint).data, status=201)


class InboundEndpointView(_InboundEndpoints, DetailView):
    """One inbound endpoint."""


class InboundSecretView(_InboundEndpoints, RowView):
    """A new signing secret; the one before stays valid until the next one."""

    scopes = {"POST": Scope.SETTINGS}

    @extend_schema(request=InboundSecretSerializer, responses=InboundEndpointSerializer)
    def post(self, request: Request, id) -> Response:  # noqa: A002  (the name in the address)
        endpoint = self.row()
        endpoint_rotate(endpoint_pk=endpoint.pk, secret=self.body(InboundSecretSerializer)["secret"])
        return self.one()


class InboxEventSerializer(serializers.ModelSerializer):
    """One item of an inbound webhook, without its body."""

    id = serializers.IntegerField(source="pk")
    endpoint = serializers.UUIDField(source="endpoint.uuid")
    status = serializers.ChoiceField(choices=InboxStatus.choices)

    class Meta:
        model = InboxEvent
        fields = (
            "id",
            "endpoint",
            "provider_event_id",
            "event_type",
            "status",
            "reason",
            "received_at",
            "processed_at",
        )
        read_only_fields = fields


class InboxFilters(filters.FilterSet):
    status = filters.ChoiceFilter(choices=InboxStatus.choices)
    event_type = WordFilter("event_type", "Of this type.", 120)

    class Meta:
        model = InboxEvent
        fields: tuple[str, ...] = ()


class _Inbox(ResourceView):
    serializer_class = InboxEventSerializer
    what = "inbox event"
    lookup_field = "pk"

    def rows(self):
        return InboxEvent.objects.select_related("endpoint").defer("body")


class InboxListView(_Inbox, ListView):
    """What came in, newest first."""

    filterset_class = InboxFilters


class InboxView(_Inbox, DetailView):
    """One item that came in."""


class InboxReplayView(_Inbox, RowView):
    """Process a finished item once more."""

    scopes = {"POST": Scope.PAYMENTS}

    @extend_schema(request=None, responses=InboxEventSerializer)
    def post(self, request: Request, id: int) -> Response:  # noqa: A002
        inbox_replay(event_pk=self.row().pk, stamp=api_stamp(self.caller))
        return self.one()


class OutboundEndpointSerializer(serializers.ModelSerializer):
    """An address that hears of the merchant's events; the secret is shown once, when it is made."""

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
            "previous_until",
            "created_at",
        )
        read_only_fields = fields


class OutboundSecretSerializer(OutboundEndpointSerializer):
    """With its signing secret, which is told in this answer only."""

    secret = serializers.CharField()

    class Meta:
        model = OutboundEndpoint
        fields = (*OutboundEndpointSerializer.Meta.fields, "secret")
        read_only_fields = fields


class OutboundChangeSerializer(StrictSerializer):
    url = serializers.CharField(required=False, max_length=500, help_text="An https address that accepts POST.")
    description = serializers.CharField(required=False, allow_blank=True, max_length=200)
    event_types = serializers.ListField(
        child=serializers.ChoiceField(choices=EventType.choices), required=False, help_text="Empty: every type."
    )


class OutboundPatchSerializer(OutboundChangeSerializer):
    enabled = serializers.BooleanField(required=False, help_text="While off nothing is sent there or kept for it.")


class OutboundRequestSerializer(OutboundChangeSerializer):
    url = serializers.CharField(max_length=500, help_text="An https address that accepts POST.")


class OutboundFilters(ListFilters):
    class Meta:
        model = OutboundEndpoint
        fields: tuple[str, ...] = ()


def _with_secret(new: NewSecret) -> dict:
    return {**OutboundEndpointSerializer(new.endpoint).data, "secret": new.secret}


class _OutboundEndpoints(ResourceView):
    serializer_class = OutboundEndpointSerializer
    what = "outbound endpoint"

    def rows(self):
        return OutboundEndpoint.objects.all()


class OutboundEndpointListView(_OutboundEndpoints, ListView):
    """Outbound endpoints, newest first; a POST makes one."""

    filterset_class = OutboundFilters
    scopes = {"POST": Scope.SETTINGS}

    @extend_schema(request=OutboundRequestSerializer, responses={201: OutboundSecretSerializer})
    def post(self, request: Request) -> Response:
        new = outbound_endpoint_create(merchant=self.merchant, **self.body(OutboundRequestSerializer))
        new.endpoint.refresh_from_db(fields=["created_at"])
        return Response(_with_secret(new), status=201)


class OutboundEndpointView(_OutboundEndpoints, DetailView):
    """One outbound endpoint; a PATCH changes what is given."""

    scopes = {"PATCH": Scope.SETTINGS}

    @extend_schema(request=OutboundPatchSerializer, responses=OutboundEndpointSerializer)
    def patch(self, request: Request, id: str) -> Response:  # noqa: A002
        endpoint, given = self.row(), dict(self.body(OutboundPatchSerializer))
        enabled = given.pop("enabled", None)
        with transaction.atomic():
            if given:
                outbound_endpoint_update(endpoint_pk=endpoint.pk, **given)
            if enabled is not None and enabled != endpoint.enabled:
                outbound_endpoint_switch(
                    endpoint_pk=endpoint.pk, enabled=enabled, reason=f"Switched by {self.caller.actor}", now=clock.now()
                )
        return self.one()


class OutboundSecretView(_OutboundEndpoints, RowView):
    """A new signing secret, told in this answer only; for 24 hours messages are signed with both."""

    scopes = {"POST": Scope.SETTINGS}

    @extend_schema(request=None, responses=OutboundSecretSerializer)
    def post(self, request: Request, id: str) -> Response:  # noqa: A002
        return Response(_with_secret(outbound_endpoint_rotate(endpoint_pk=self.row().pk, now=clock.now())))


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


class DeliveryTrySerializer(serializers.ModelSerializer):
    """One request of a delivery, and how it ended."""

    class Meta:
        model = DeliveryTry
        fields = ("at", "duration_ms", "status_code", "error", "answer")
        read_only_fields = fields


class DeliveryDetailSerializer(DeliverySerializer):
    """With every request that was made for it, oldest first."""

    log = DeliveryTrySerializer(many=True)

    class Meta:
        model = Delivery
        fields = (*DeliverySerializer.Meta.fields, "log")
        read_only_fields = fields


class DeliveryFilters(ListFilters):
    endpoint = IdFilter("endpoint", "Of this endpoint (`hook_...`).")
    status = filters.ChoiceFilter(choices=DeliveryStatus.choices)
    event_type = WordFilter("event_type", "Of this type.", 40)

    class Meta:
        model = Delivery
        fields: tuple[str, ...] = ()


class DeliveryListView(ListView):
    """Deliveries, newest first."""

    serializer_class = DeliverySerializer
    filterset_class = DeliveryFilters

    def rows(self):
        return Delivery.objects.select_related("endpoint").defer("body")


class _Delivery(ResourceView):
    serializer_class = DeliveryDetailSerializer
    what = "delivery"

    def rows(self):
        tries = DeliveryTry.objects.order_by("pk")
        return Delivery.objects.select_related("endpoint").defer("body").prefetch_related(Prefetch("log", tries))


class DeliveryView(_Delivery, DetailView):
    """One delivery with the log of its tries."""


class DeliveryReplayView(_Delivery, RowView):
    """Send a finished delivery again, with the same message id and body."""

    scopes = {"POST": Scope.PAYMENTS}

    @extend_schema(request=None, responses=DeliveryDetailSerializer)
    def post(self, request: Request, id: str) -> Response:  # noqa: A002
        delivery_replay(delivery_pk=self.row().pk, stamp=api_stamp(self.caller))
        return self.one()
