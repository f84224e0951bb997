"""Every address under /api/: each app brings its own, this page puts them together."""

from csp.decorators import csp_update
from django.http import HttpRequest, HttpResponse, HttpResponsePermanentRedirect, JsonResponse
from django.shortcuts import render
from django.urls import URLPattern, URLResolver, include, path, re_path
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_safe
from drf_spectacular.views import SpectacularJSONAPIView

from accounts.api import converters, problems
from providers.generic.schema import SCHEMA_PATH as PAYMENT_EVENT_SCHEMA
from retries.documents import FOLDER
from retries.policy import SCHEMA as POLICY_SCHEMA

converters.register()
_SCHEMAS = {"payment-event": PAYMENT_EVENT_SCHEMA, "policy": FOLDER / POLICY_SCHEMA}


class OpenApi(SpectacularJSONAPIView):
    """The OpenAPI 3.1 document; it says nothing about anybody, so it needs no key."""

    authentication_classes = ()
    permission_classes = ()


@csp_update({"img-src": ["data:"]})
@require_safe
def reference(request: HttpRequest) -> HttpResponse:
    """The document drawn for people. Swagger UI's stylesheet carries its icons as data."""
    return render(request, "api/docs.html")


@require_safe
def errors(request: HttpRequest) -> HttpResponse:
    """Every stable code and what to do about it: where the `type` of a problem leads."""
    return render(request, "api/errors.html", {"kinds": sorted(problems.KINDS.values(), key=lambda kind: kind.code)})


@require_safe
def json_schema(request: HttpRequest, name: str) -> HttpResponse:
    """The JSON Schemas of what merchants write themselves: webhook bodies of the generic dialect, and policies."""
    if name not in _SCHEMAS:
        return problems.page_not_found(request)
    return HttpResponse(_SCHEMAS[name].read_bytes(), content_type="application/schema+json")


class _SameRequest(HttpResponsePermanentRedirect):
    status_code = 308  # keeps method and body


# Nothing here reads a cookie, so there is nothing to protect; a program that posts must not get a page for people.
@csrf_exempt
def without_slash(request: HttpRequest, rest: str) -> HttpResponse:
    """Addresses have no slash at the end; who sends one is told, and most clients then go there by themselves."""
    query = request.META.get("QUERY_STRING", "")
    return _SameRequest(f"/api/{rest}" + (f"?{query}" if query else ""))


@csrf_exempt
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
    path("docs", reference, name="api-docs"),
    path("docs/errors", errors, name="api-errors"),
    path("docs/schemas/<slug:name>.json", json_schema, name="api-json-schema"),
    path("<path:rest>/", without_slash),
    path("", unknown),
    re_path(r"^(?P<rest>[\s\S]+)$", unknown),  # a path with line breaks, too
]
