"""Filters of lists: exact values and instants; what nobody offers is refused, so that a misspelt filter is noticed."""

from datetime import UTC, datetime
from typing import Any

from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django_filters import rest_framework as filters
from django_filters.fields import IsoDateTimeField
from rest_framework import serializers

_PAGING = frozenset({"cursor", "limit", "ordering"})


class StrictFilterBackend(filters.DjangoFilterBackend):
    """django-filter, which passes over unknown names, made to refuse them."""

    def filter_queryset(self, request, queryset: QuerySet[Any], view) -> QuerySet[Any]:
        filterset = self.get_filterset(request, queryset, view)
        known = set(filterset.filters) if filterset is not None else set()
        unknown = set(request.query_params) - known - _PAGING
        if unknown:
            names = ", ".join(sorted(known)) or "none"
            raise serializers.ValidationError(
                {
                    name: [
                        serializers.ErrorDetail(
                            f"There is no filter of this name; there are: {names}.", "unknown_field"
                        )
                    ]
                    for name in sorted(unknown)
                }
            )
        if filterset is None:
            return queryset
        if not filterset.is_valid():
            raise serializers.ValidationError(
                {name: [str(text) for text in texts] for name, texts in filterset.errors.items()}
            )
        return filterset.qs


class InstantField(IsoDateTimeField):
    """In UTC: PostgreSQL takes no offset beyond 16 hours, ISO 8601 does."""

    def clean(self, value: Any) -> datetime | None:
        found = super().clean(value)
        try:
            return found.astimezone(UTC) if found is not None else None
        except OverflowError as error:
            raise ValidationError("This instant lies outside of the calendar.") from error


class InstantFilter(filters.IsoDateTimeFilter):
    """An ISO 8601 instant with an offset."""

    field_class = InstantField


class ListFilters(filters.FilterSet):
    """Base of every list's filters: when a row was created."""

    created_after = InstantFilter(field_name="created_at", lookup_expr="gte", label="Created at or after this instant.")
    created_before = InstantFilter(field_name="created_at", lookup_expr="lt", label="Created before this instant.")


class IdFilter(filters.CharFilter):
    """By the public id of a related row."""

    def __init__(self, path: str, label: str) -> None:
        super().__init__(field_name=f"{path}__public_id", label=label, max_length=40)


class WordFilter(filters.CharFilter):
    """An exact text."""

    def __init__(self, field: str, label: str, max_length: int = 200) -> None:
        super().__init__(field_name=field, label=label, max_length=max_length)
