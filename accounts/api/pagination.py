"""Pages by keyset: the next page begins behind the last row, so page 10,000 costs as much as the first.

Never a COUNT(*), never an OFFSET. The cursor names its ordering, so it cannot be used with another one.
"""

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from django.db.models import Q, QuerySet
from rest_framework import serializers
from rest_framework.pagination import BasePagination
from rest_framework.response import Response
from rest_framework.utils.urls import replace_query_param

from accounts.api.problems import CursorInvalid

DEFAULT_SIZE = 50
MAX_SIZE = 200


@dataclass(frozen=True, slots=True)
class Ordering:
    """`field` is the model's: `pk` (the order of creation) or an instant; each needs an index (merchant, field, id)."""

    field: str
    descending: bool


class KeysetPagination(BasePagination):
    """`{"data": [...], "next": URL or null, "next_cursor": text or null}`; `?cursor=`, `?limit=`, `?ordering=`."""

    def paginate_queryset(self, queryset, request, view=None) -> list[Any]:
        self.request = request
        size = self._size()
        name, ordering = self._ordering(view.orderings)
        rows = self._behind(queryset, ordering, name)
        sign = "-" if ordering.descending else ""
        by = [f"{sign}{ordering.field}", f"{sign}pk"] if ordering.field != "pk" else [f"{sign}pk"]
        found = list(rows.order_by(*by)[: size + 1])
        page = found[:size]
        self.next_cursor = cursor_of(name, ordering, page[-1]) if len(found) > size else None
        return page

    def get_paginated_response(self, data) -> Response:
        url = self.request.build_absolute_uri()
        following = replace_query_param(url, "cursor", self.next_cursor) if self.next_cursor else None
        return Response({"data": data, "next": following, "next_cursor": self.next_cursor})

    def _size(self) -> int:
        given = self.request.query_params.get("limit", str(DEFAULT_SIZE))
        if not (given.isascii() and given.isdigit() and len(given) <= 4 and 1 <= int(given) <= MAX_SIZE):
            raise serializers.ValidationError({"limit": [f"Give a number from 1 to {MAX_SIZE}."]})
        return int(given)

    def _ordering(self, offered: Mapping[str, str]) -> tuple[str, Ordering]:
        name = self.request.query_params.get("ordering") or "-created_at"
        plain = name.removeprefix("-")
        if plain not in offered:
            names = ", ".join(sorted({*offered, *(f"-{one}" for one in offered)}))
            raise serializers.ValidationError({"ordering": [f"Give one of {names}."]})
        field = offered[plain]
        if field == "pk" and {"created_after", "created_before"} & set(self.request.query_params):
            # Rows are found by an index on the time, so they come in its order.
            field = "created_at"
        return name, Ordering(field, name.startswith("-"))

    def _behind(self, queryset: QuerySet[Any], ordering: Ordering, name: str) -> QuerySet[Any]:
        cursor = self.request.query_params.get("cursor")
        if not cursor:
            return queryset
        value, pk = _decode(cursor, f"{name}/{ordering.field}")
        suffix = "lt" if ordering.descending else "gt"
        if ordering.field == "pk":
            return queryset.filter(**{f"pk__{suffix}": pk})
        try:
            at = datetime.fromisoformat(value).astimezone(UTC)
        except (ValueError, TypeError, OverflowError) as error:
            raise _invalid() from error
        # The first condition is implied by the second; it is what the index can be entered with.
        near = Q(**{f"{ordering.field}__{suffix}e": at})
        behind = Q(**{f"{ordering.field}__{suffix}": at}) | Q(**{ordering.field: at, f"pk__{suffix}": pk})
        return queryset.filter(near & behind)

    def get_paginated_response_schema(self, schema):
        return {
            "type": "object",
            "required": ["data", "next", "next_cursor"],
            "properties": {
                "data": schema,
                "next": {"type": ["string", "null"], "format": "uri", "description": "The next page's address."},
                "next_cursor": {"type": ["string", "null"], "description": "The next page's cursor."},
            },
        }

    def get_schema_operation_parameters(self, view):
        names = [name for one in view.orderings for name in (one, f"-{one}")]
        return [
            {
                "name": "limit",
                "in": "query",
                "schema": {"type": "integer", "minimum": 1, "maximum": MAX_SIZE, "default": DEFAULT_SIZE},
                "description": "How many rows at most.",
            },
            {
                "name": "cursor",
                "in": "query",
                "schema": {"type": "string"},
                "description": "`next_cursor` of the page before; use it with the same ordering and filters.",
            },
            {
                "name": "ordering",
                "in": "query",
                "schema": {"type": "string", "enum": names, "default": "-created_at"},
                "description": "`-` is descending.",
            },
        ]


def _invalid() -> CursorInvalid:
    return CursorInvalid("This cursor does not belong to this list and ordering; start again without one.")


def cursor_of(name: str, ordering: Ordering, row: Any) -> str:
    """The cursor of the page that begins behind `row`; `name` is the ordering as the caller gave it."""
    told = None if ordering.field == "pk" else getattr(row, ordering.field).isoformat()
    text = json.dumps([f"{name}/{ordering.field}", told, row.pk], separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _decode(cursor: str, name: str) -> tuple[Any, int]:
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        kept, value, pk = json.loads(base64.b64decode(padded.encode("ascii"), altchars=b"-_", validate=True))
    except (ValueError, TypeError, binascii.Error, RecursionError) as error:
        raise _invalid() from error
    if kept != name or isinstance(pk, bool) or not isinstance(pk, int) or not 0 <= pk < 2**63:
        raise _invalid()
    return value, pk
