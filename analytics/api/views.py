"""What the dashboards show, for programs: the same selectors, so the same numbers."""

from typing import Any, ClassVar

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.exceptions import ErrorDetail
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.api.views import ApiView
from analytics.api import figures as told
from analytics.api.serializers import (
    BoardSerializer,
    FailuresSerializer,
    OverviewSerializer,
    PoliciesSerializer,
    RetriesSerializer,
)
from analytics.definitions import DEFINITIONS
from analytics.period import DEFAULT_LENGTH, LENGTHS, period_of, zone_of
from analytics.rollups.reading import Figures
from analytics.selectors.invariants import NAMES
from invoices.services.parties import connection_require
from recovery_site.common import clock

_DAYS = OpenApiParameter(
    "days", OpenApiTypes.INT, enum=LENGTHS, default=DEFAULT_LENGTH, description="How many days, today included."
)
_CONNECTION = OpenApiParameter("connection", OpenApiTypes.STR, description="Only of this connection (`con_...`).")


class _FiguresView(ApiView):
    """`find` gives the figures by the keys of their definitions."""

    by_connection: ClassVar[bool] = False
    extra_definitions: ClassVar[tuple[str, ...]] = ()

    def find(self, figures: Figures) -> dict[str, Any]:
        raise RuntimeError(f"{type(self).__name__} finds no figures.")

    def tell(self, request: Request) -> Response:
        figures = self._asked(request.query_params.dict())
        found = self.find(figures)
        definitions = [DEFINITIONS[key] for key in (*found, *self.extra_definitions)]
        body = {"period": figures.period, "figures": found, "definitions": definitions}
        return Response(self.get_serializer(body).data)

    def _asked(self, query: dict[str, str]) -> Figures:
        known = ("connection", "days") if self.by_connection else ("days",)
        if unknown := sorted(set(query) - set(known)):
            text = ErrorDetail(f"There is no parameter of this name; there are: {', '.join(known)}.", "unknown_field")
            raise serializers.ValidationError({name: [text] for name in unknown})
        days, named = query.get("days", str(DEFAULT_LENGTH)), query.get("connection", "")
        if days not in {str(length) for length in LENGTHS}:
            raise serializers.ValidationError({"days": [f"Give one of {', '.join(map(str, LENGTHS))}."]})
        period = period_of(int(days), clock.now(), zone_of(self.merchant.timezone))
        connection = connection_require(merchant=self.merchant, public_id=named) if named else None
        return Figures(self.merchant, period, connection.pk if connection else None)


class OverviewView(_FiguresView):
    """Revenue at risk, what was recovered, the recovery rate, how long it took, what may still come."""

    serializer_class = OverviewSerializer

    @extend_schema(parameters=[_DAYS])
    def get(self, request: Request) -> Response:
        return self.tell(request)

    def find(self, figures: Figures) -> dict[str, Any]:
        return told.overview(figures)


class FailuresView(_FiguresView):
    """Failed attempts by category, code, network, country and connection."""

    serializer_class = FailuresSerializer
    by_connection = True

    @extend_schema(parameters=[_DAYS, _CONNECTION])
    def get(self, request: Request) -> Response:
        return self.tell(request)

    def find(self, figures: Figures) -> dict[str, Any]:
        return told.failures(figures)


class RetriesView(_FiguresView):
    """What was tried, by number and sender, what brought the money, and how much of the networks' budgets is used."""

    serializer_class = RetriesSerializer
    by_connection = True

    @extend_schema(parameters=[_DAYS, _CONNECTION])
    def get(self, request: Request) -> Response:
        return self.tell(request)

    def find(self, figures: Figures) -> dict[str, Any]:
        return told.retries(figures)


class PoliciesView(_FiguresView):
    """Recovery by policy version and segment."""

    serializer_class = PoliciesSerializer
    by_connection = True

    @extend_schema(parameters=[_DAYS, _CONNECTION])
    def get(self, request: Request) -> Response:
        return self.tell(request)

    def find(self, figures: Figures) -> dict[str, Any]:
        return told.policies(figures)


class BoardView(_FiguresView):
    """Promises of this service as counters; anything but zero is a fault."""

    serializer_class = BoardSerializer
    extra_definitions = NAMES

    @extend_schema(parameters=[_DAYS])
    def get(self, request: Request) -> Response:
        return self.tell(request)

    def find(self, figures: Figures) -> dict[str, Any]:
        return told.board(figures)
