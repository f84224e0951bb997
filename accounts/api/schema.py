"""What the OpenAPI document says of every address: pages, the Idempotency-Key, and the errors there can be."""

from typing import Any

from drf_spectacular.openapi import AutoSchema
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter
from rest_framework import serializers

from accounts.api.pagination import KeysetPagination
from accounts.api.problems import CONTENT_TYPE

_ALWAYS = ("400", "401", "403", "429")


class FieldErrorSerializer(serializers.Serializer):
    field = serializers.CharField(help_text="Dotted, as in `metadata.amount`.")
    code = serializers.CharField()
    message = serializers.CharField()


class ProblemSerializer(serializers.Serializer):
    """RFC 9457. `code` is stable, `hint` says what to do next."""

    type = serializers.CharField()
    title = serializers.CharField()
    status = serializers.IntegerField()
    code = serializers.CharField()
    detail = serializers.CharField()
    hint = serializers.CharField()
    instance = serializers.CharField()
    request_id = serializers.CharField()
    errors = FieldErrorSerializer(many=True, required=False)  # type: ignore[assignment]  # the metaclass takes it out


class ApiSchema(AutoSchema):
    """DRF views cannot say these things themselves."""

    def _is_list_view(self, serializer: Any = None) -> bool:
        return self.method == "GET" and getattr(self.view, "pagination_class", None) is KeysetPagination

    def map_renderers(self, attribute: str) -> list[Any]:
        """Answers are JSON; problem details are those of the errors only."""
        return ["application/json"]

    def get_override_parameters(self) -> list[Any]:
        if self.method != "POST":
            return []
        text = "The same key and body get the stored answer; another body 422; one that is running 409."
        return [OpenApiParameter("Idempotency-Key", OpenApiTypes.STR, OpenApiParameter.HEADER, description=text)]

    def _get_response_bodies(self, direction: Any = "response") -> dict[str, Any]:
        bodies: dict[str, Any] = super()._get_response_bodies(direction)
        codes = set(_ALWAYS)
        if "{" in self.path or self.method == "POST" or getattr(self.view, "by_connection", False):
            codes.add("404")
        if self.method in ("POST", "DELETE"):
            codes.add("409")
        if self.method == "POST":
            codes |= {"413", "415", "422", "502", "503"}
        for code in sorted(codes - set(bodies)):
            bodies[code] = self._get_response_for_code(ProblemSerializer, code, media_types=[CONTENT_TYPE])
        return bodies
