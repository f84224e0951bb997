"""Connections: made, tested, given new credentials, switched. Credentials go in and never come out."""

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.api.fields import StrictSerializer
from accounts.api.views import DetailView, ListView, ResourceView, RowView
from accounts.scopes import Scope
from invoices.api.filters import ConnectionFilters
from invoices.models import Connection
from invoices.services.parties import connection_check, connection_create, connection_rekey, connection_switch
from invoices.states import ConnectionMode
from providers import registry
from providers.guide import Kind
from recovery_site.common.targets import url_check


class ConnectionSerializer(serializers.ModelSerializer):
    """An account at one provider; its secrets are never shown."""

    id = serializers.CharField(source="public_id", help_text="`con_...`")
    mode = serializers.ChoiceField(choices=ConnectionMode.choices)
    gateway = serializers.CharField(source="gateway.public_id", allow_null=True, default=None)

    class Meta:
        model = Connection
        fields = (
            "id",
            "provider",
            "name",
            "mode",
            "enabled",
            "paused_reason",
            "take_over_after",
            "gateway",
            "created_at",
        )
        read_only_fields = fields


class ConnectionRequestSerializer(StrictSerializer):
    """`config` holds `mode`, `take_over`, `max_per_second`, `gateway` and the provider's own settings."""

    provider = serializers.CharField(max_length=40, help_text="`stripe`, `adyen`, ...")
    name = serializers.CharField(required=False, allow_blank=True, max_length=100, default="")
    config = serializers.DictField(required=False, default=dict, help_text="Secrets among it are kept encrypted.")


class ConnectionPatchSerializer(StrictSerializer):
    enabled = serializers.BooleanField(help_text="While off, nothing is charged or read through it.")


class CredentialsSerializer(StrictSerializer):
    secrets = serializers.DictField(
        child=serializers.CharField(max_length=4000), help_text="The provider's secret settings, such as `api_key`."
    )


class CheckedSerializer(serializers.Serializer):
    answer = serializers.CharField(help_text="What the provider answered to a harmless question.")
    connection = ConnectionSerializer()


class _Connections(ResourceView):
    serializer_class = ConnectionSerializer
    what = "connection"

    def rows(self):
        return Connection.objects.select_related("gateway")


class ConnectionListView(_Connections, ListView):
    """Connections, newest first; a POST makes one, without asking its provider (see `check`)."""

    filterset_class = ConnectionFilters
    scopes = {"POST": Scope.SETTINGS}

    @extend_schema(request=ConnectionRequestSerializer, responses={201: ConnectionSerializer})
    def post(self, request: Request) -> Response:
        given = self.body(ConnectionRequestSerializer)
        _addresses_check(given["provider"], given["config"])
        made = connection_create(merchant=self.merchant, **given)
        return Response(self.get_serializer(self.rows().get(pk=made.pk)).data, status=201)


def _addresses_check(provider: str, config: dict[str, Any]) -> None:
    """No address inside our own network, as far as can be told without DNS. Raises InvalidInput, TargetRefused."""
    for setting in registry.guide(provider).settings:
        given = config.get(setting.name)
        if setting.kind is Kind.URL and given and given != setting.default:
            url_check(str(given))


class ConnectionView(_Connections, DetailView):
    """One connection; a PATCH switches it."""

    scopes = {"PATCH": Scope.SETTINGS}

    @extend_schema(request=ConnectionPatchSerializer, responses=ConnectionSerializer)
    def patch(self, request: Request, id: str) -> Response:  # noqa: A002  (the name in the address)
        connection_switch(connection_pk=self.row().pk, enabled=self.body(ConnectionPatchSerializer)["enabled"])
        return self.one()


class ConnectionCheckView(_Connections, RowView):
    """Ask the provider something harmless with the credentials that are kept."""

    scopes = {"POST": Scope.SETTINGS}
    calls_out = True

    @extend_schema(request=None, responses=CheckedSerializer)
    def post(self, request: Request, id: str) -> Response:  # noqa: A002
        return self.told(connection_check(self.row()))

    def told(self, answer: str) -> Response:
        return Response(CheckedSerializer({"answer": answer, "connection": self.row()}).data)


class ConnectionCredentialsView(ConnectionCheckView):
    """Replace credentials; they are kept only if the provider accepts them."""

    @extend_schema(request=CredentialsSerializer, responses=CheckedSerializer)
    def post(self, request: Request, id: str) -> Response:  # noqa: A002
        connection = self.row()
        return self.told(connection_rekey(connection=connection, secrets=self.body(CredentialsSerializer)["secrets"]))
