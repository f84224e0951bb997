"""What every address of the API does: authenticate, count, check the scope, run a POST once, write down who asked."""

import hashlib
import json
from collections.abc import Mapping
from contextlib import nullcontext
from functools import partial
from typing import Any, ClassVar

import structlog
from django.conf import settings
from django.db import transaction
from django.db.models import QuerySet
from rest_framework.exceptions import NotAuthenticated
from rest_framework.generics import GenericAPIView
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.api.authentication import BearerAuthentication
from accounts.api.caller import Caller, caller_of
from accounts.api.fields import StrictSerializer
from accounts.api.filters import StrictFilterBackend
from accounts.api.pagination import KeysetPagination
from accounts.api.parsing import JsonAlways, ProblemRenderer, StrictJSONParser
from accounts.api.permissions import ScopePermission
from accounts.api.problems import IdempotencyKeyInvalid, RateLimited
from accounts.audit import access_note
from accounts.idempotency import Answer, run_once
from accounts.limits import Spent, spend
from accounts.models import Merchant
from accounts.scopes import Scope
from recovery_site.common.errors import NotFound

# Only answers that belong to what was done are replayed; headers about limits belong to a moment.
_KEPT_HEADERS = ("Location",)


class ApiView(GenericAPIView):
    """Base of every address. `scopes` names the scope per method; reading needs `read`.

    `calls_out`: its POST calls a provider, so it cannot run inside one transaction.
    """

    authentication_classes = (BearerAuthentication,)
    permission_classes = (ScopePermission,)
    parser_classes = (StrictJSONParser,)
    renderer_classes = (JSONRenderer, ProblemRenderer)
    content_negotiation_class = JsonAlways
    pagination_class: Any = None
    filter_backends: Any = ()
    scopes: ClassVar[Mapping[str, Scope]] = {}
    calls_out: ClassVar[bool] = False
    spent: Spent | None = None

    def scope_for(self, method: str) -> Scope:
        return Scope.READ if method in ("GET", "HEAD", "OPTIONS") else self.scopes[method]

    @property
    def caller(self) -> Caller:
        caller = caller_of(self.request)
        if caller is None:
            raise NotAuthenticated
        return caller

    @property
    def merchant(self) -> Merchant:
        return self.caller.merchant

    def body(self, kind: type[StrictSerializer]) -> dict[str, Any]:
        """The request's checked fields; raises ValidationError."""
        given = kind(data=self.request.data)
        given.is_valid(raise_exception=True)
        return given.validated_data

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        if request.method == "POST":
            # DRF looks the handler up on the instance after this: every POST goes this way.
            vars(self)["post"] = partial(self._once, getattr(self, "post", self.http_method_not_allowed))

    def check_permissions(self, request: Request) -> None:
        """Counted before the scope is looked at, so that refused calls are limited too."""
        caller = caller_of(request)
        if caller is not None:
            structlog.contextvars.bind_contextvars(merchant=caller.merchant.public_id, actor=caller.actor)
            self.spent = spend(caller.credential, limit=settings.API_RATE_LIMIT, window=settings.API_RATE_WINDOW)
            if not self.spent.allowed:
                raise RateLimited(
                    f"More than {self.spent.limit} calls in {self.spent.window_seconds} seconds.",
                    retry_after=self.spent.reset_seconds,
                )
        super().check_permissions(request)

    def _once(self, handler: Any, request: Request, *args: Any, **kwargs: Any) -> Response:
        key = request.headers.get("Idempotency-Key")
        if key is None:
            # A refusal leaves nothing behind, however far the work had come.
            with nullcontext() if self.calls_out else transaction.atomic():
                return handler(request, *args, **kwargs)
        if not 1 <= len(key) <= 255 or not key.isprintable():
            raise IdempotencyKeyInvalid("An Idempotency-Key has 1 to 255 printable characters.")
        answer = run_once(
            merchant=self.merchant,
            key=key,
            fingerprint=_fingerprint(request),
            work=lambda: _answer(handler(request, *args, **kwargs)),
            calls_out=self.calls_out,
        )
        response = Response(answer.body, status=answer.status_code, headers=dict(answer.headers))
        if answer.replayed:
            response["Idempotency-Replayed"] = "true"
        return response

    def finalize_response(self, request: Request, response: Any, *args: Any, **kwargs: Any) -> Any:
        response = super().finalize_response(request, response, *args, **kwargs)
        response["Cache-Control"] = "no-store"
        if self.spent is not None:
            response["RateLimit-Limit"] = str(self.spent.limit)
            response["RateLimit-Remaining"] = str(self.spent.remaining)
            response["RateLimit-Reset"] = str(self.spent.reset_seconds)
            response["RateLimit-Policy"] = f"{self.spent.limit};w={self.spent.window_seconds}"
        caller = caller_of(request)
        if caller is not None:
            self._write_down(caller, request, response)
        # Django would add a line with the address for every 4xx; the request log has one without personal data.
        response._has_been_logged = response.status_code < 500
        return response

    def _write_down(self, caller: Caller, request: Request, response: Any) -> None:
        access_note(
            merchant=caller.merchant,
            actor=caller.actor,
            credential=caller.credential,
            request=request,
            values=self.kwargs,
            status_code=response.status_code,
        )


def _fingerprint(request: Request) -> str:
    """Of the address and of what the body says: another order of its fields is the same request."""
    body = json.dumps(request.data, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(f"{request.method} {request.get_full_path()}\n{body}".encode()).hexdigest()


def _answer(response: Response) -> Answer:
    body = json.loads(JSONRenderer().render(response.data)) if response.data is not None else None
    headers = {name: response.headers[name] for name in _KEPT_HEADERS if name in response.headers}
    return Answer(response.status_code, body, headers)


class ResourceView(ApiView):
    """Rows of the caller's merchant, and only those: `rows` is the queryset that everything starts from."""

    def rows(self) -> QuerySet[Any]:
        raise RuntimeError(f"{type(self).__name__} names no rows.")

    def get_queryset(self) -> QuerySet[Any]:
        # drf-spectacular asks without a request, to learn the model.
        if getattr(self, "swagger_fake_view", False):
            return self.rows().none()
        return self.rows().filter(merchant=self.merchant)


class ListView(ResourceView):
    """`GET` a page. `filterset_class` names the filters, `orderings` the orderings and their fields."""

    pagination_class = KeysetPagination
    orderings: ClassVar[Mapping[str, str]] = {"created_at": "pk"}
    filterset_class: Any = None
    filter_backends: Any = (StrictFilterBackend,)

    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return self.page()

    def page(self) -> Response:
        rows = self.filtered(self.get_queryset())
        page = self.paginate_queryset(rows)
        return self.get_paginated_response(self.get_serializer(page, many=True).data)

    def filtered(self, rows: QuerySet[Any]) -> QuerySet[Any]:
        for backend in self.filter_backends:
            rows = backend().filter_queryset(self.request, rows, self)
        return rows


class RowView(ResourceView):
    """One row by the id in the address; NotFound also for another merchant's. What is done with it, subclasses say."""

    lookup_field = "public_id"
    lookup_url_kwarg = "id"
    what: ClassVar[str] = "thing"

    def row(self) -> Any:
        found = self.get_queryset().filter(**{self.lookup_field: self.kwargs[self.lookup_url_kwarg]}).first()
        if found is None:
            raise NotFound(f"There is no such {self.what} among yours.")
        return found

    def one(self) -> Response:
        return Response(self.get_serializer(self.row()).data)


class DetailView(RowView):
    """`GET` one row."""

    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return self.one()
