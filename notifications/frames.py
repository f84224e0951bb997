"""A mail's HTML on a page of ours: in a frame of its own, where its inline styles work and nothing else does."""

from collections.abc import Callable
from typing import Any, TypeVar, cast

from csp.decorators import csp_replace
from django.http import HttpRequest, HttpResponse
from django.views.decorators.clickjacking import xframe_options_sameorigin

_POLICY = {
    "default-src": ["'none'"],
    "style-src": ["'unsafe-inline'"],
    "script-src": ["'none'"],
    "form-action": ["'none'"],
    "frame-ancestors": ["'self'"],
}
ViewT = TypeVar("ViewT", bound=Callable[..., Any])


def framing_page(view: ViewT) -> ViewT:
    """A page that shows such a frame."""
    return cast(ViewT, csp_replace({"frame-src": ["'self'"]})(view))


def mail_frame(request: HttpRequest, html: str) -> HttpResponse:
    """The answer to be framed, by our own pages only."""

    def answer(request: HttpRequest) -> HttpResponse:
        return HttpResponse(html)

    framed: HttpResponse = xframe_options_sameorigin(csp_replace(_POLICY)(answer))(request)  # type: ignore[assignment]
    return framed
