"""What ids look like in addresses; anything else is no address at all."""

from django.urls import register_converter


class PublicIdConverter:
    """One of our public ids (recovery_site.common.ids)."""

    regex = "[a-z]{3,5}_[0-9a-hjkmnp-tv-z]{26}"

    def to_python(self, value: str) -> str:
        return value

    def to_url(self, value: str) -> str:
        return value


class ReferenceConverter(PublicIdConverter):
    """An id of ours or of somebody else: up to 200 characters, no slash, nothing that cannot be printed."""

    regex = r"[^/\x00-\x1f\x7f-\x9f]{1,200}"


class RowConverter(PublicIdConverter):
    """A number that a primary key can be."""

    regex = "[0-9]{1,18}"

    def to_python(self, value: str) -> int:  # type: ignore[override]
        return int(value)


def register() -> None:
    """All, once; called where the addresses of the API are put together."""
    register_converter(PublicIdConverter, "public_id")
    register_converter(ReferenceConverter, "reference")
    register_converter(RowConverter, "row")
