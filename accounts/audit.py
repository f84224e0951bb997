"""Who read or changed what: one row per answered call of the API, and per page or form of people who are logged in.

Rows hold ids, never bodies or query strings. What a page polls by itself is not written: the page stands there already.
"""

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

import structlog
from django.db.models import Q
from django.http import HttpRequest, HttpResponseBase

from accounts.current import merchant_noted
from accounts.models import ApiAccess, IdempotencyRecord, Merchant, User
from accounts.selectors import merchants_for
from recovery_site.common.clock import database_now
from recovery_site.common.db import fit
from recovery_site.common.purging import purge

_PAGES = ("console/", "dashboard/", "admin/", "oauth/authorize")
# Fragments that a page in view asks for every few seconds.
_POLLED = frozenset({"dashboard-live", "dashboard-board", "invoice-live", "connection-live", "jsi18n"})


def access_note(
    *,
    merchant: Merchant | None,
    actor: str,
    credential: str,
    request: HttpRequest,
    values: Mapping[str, Any],
    status_code: int,
) -> None:
    """One row. `values` are the parts of the address."""
    match = request.resolver_match
    ApiAccess.objects.create(
        merchant=merchant,
        actor=fit(ApiAccess, "actor", actor),
        credential=fit(ApiAccess, "credential", credential),
        method=request.method or "",
        route=fit(ApiAccess, "route", match.route if match else ""),
        subject=fit(ApiAccess, "subject", "/".join(str(value) for value in values.values())),
        status_code=status_code,
        request_id=str(structlog.contextvars.get_contextvars().get("request_id", ""))[:64],
    )


class AuditMiddleware:
    """Writes down what people see and do in the console, the dashboards and the admin."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        response = self.get_response(request)
        match = request.resolver_match
        if match is None or not match.route.startswith(_PAGES):
            return response  # before the session is looked at: the payer's pages read no cookie
        if request.method in ("GET", "HEAD") and (match.url_name in _POLLED or response.status_code >= 300):
            return response
        user = request.user
        if not isinstance(user, User):
            return response
        access_note(
            merchant=merchant_noted(request) or _only(user),
            actor=f"user:{user.pk}",
            credential="session",
            request=request,
            values=match.kwargs,
            status_code=response.status_code,
        )
        return response


def _only(user: User) -> Merchant | None:
    """The person's merchant, if there is no other that a list could have been about."""
    found = list(merchants_for(user)[:2])
    return found[0] if len(found) == 1 else None


def accesses_purge(*, keep: timedelta, keep_going: Callable[[], bool] = lambda: True) -> int:
    """Delete what was written down more than `keep` ago; returns how many rows."""
    return purge(ApiAccess.objects.filter(at__lt=database_now() - keep), Q(), keep_going)


def idempotency_purge(*, keep: timedelta, keep_going: Callable[[], bool] = lambda: True) -> int:
    """Delete answers kept longer than `keep`; returns how many."""
    return purge(IdempotencyRecord.objects.filter(created_at__lt=database_now() - keep), Q(), keep_going)
