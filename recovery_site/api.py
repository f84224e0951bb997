"""Every address under /api/: each app brings its own, this page puts them together."""

from django.http import HttpRequest, HttpResponse, HttpResponsePermanentRedirect, JsonResponse
from django.urls import URLPattern, URLResolver, include, path
from drf_spectacular.views import SpectacularJSONAPIView

from accounts.api import converters, problems

converters.register()


class OpenApi(SpectacularJSONAPIView):
    """The OpenAPI 3.1 document; it says nothing about anybody, so it needs no key."""

    authentication_classes = ()
    permission_classes = ()


class _SameRequest(HttpResponsePermanentRedirect):
    status_code = 308  # keeps method and body


def without_slash(request: HttpRequest, rest: str) -> HttpResponse:
    """Addresses have no slash at the end; who sends one is told, and most clients then go there by themselves."""
    query = request.META.get("QUERY_STRING", "")
    return _SameRequest(f"/api/{rest}" + (f"?{query}" if query else ""))


def unknown(request: HttpRequest, rest: str = "") -> JsonResponse:
    return problems.page_not_found(request)


v1: list[URLPattern | URLResolver] = [
    path("", include("invoices.api.urls")),
    path("", include("tokens.api.urls")),
    path("", include("retries.api.urls")),
    path("", include("webhooks.api.urls")),
    path("", include("analytics.api.urls")),
    path("openapi.json", OpenApi.as_view(), name="openapi"),
]

urlpatterns: list[URLPattern | URLResolver] = [
    path("v1/", include(v1)),
    path("<path:rest>/", without_slash),
    path("", unknown),
    path("<path:rest>", unknown),
]
