"""The request log without personal data: an address names our own ids, never a query string nor somebody else's id."""

import re

from django.http import HttpRequest
from django.urls import Resolver404, resolve
from django_structlog.middlewares import RequestMiddleware

# Public ids, numbers and UUIDs are ours. A customer's id at a provider may well be a mail address.
_OURS = re.compile(r"[a-z]{3,5}_[0-9a-hjkmnp-tv-z]{26}|[0-9]{1,18}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class PlainRequestMiddleware(RequestMiddleware):
    """django-structlog's, with addresses that may be kept."""

    @staticmethod
    def format_request(request: HttpRequest) -> str:
        return f"{request.method} {plain_path(request.path_info)}"


def plain_path(path: str) -> str:
    """`/api/v1/payments/retry/ann@example.com` becomes `/api/v1/payments/retry/<transaction_id>`."""
    try:
        match = resolve(path)
    except Resolver404:
        return "<unknown address>"
    for name, value in match.kwargs.items():
        text = str(value)
        if text and not _OURS.fullmatch(text):
            path = path.replace(text, f"<{name}>")
    return path
