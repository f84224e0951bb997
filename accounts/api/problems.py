"""Errors as RFC 9457 problem details: one shape, stable codes, a hint what to do next.

`code` is what programs look at and never changes; `detail` is for people; `errors` names the fields of a request.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import structlog
from django.conf import settings
from django.core.exceptions import PermissionDenied as DjangoPermissionDenied
from django.http import Http404, HttpRequest, JsonResponse
from rest_framework import exceptions
from rest_framework.response import Response

from recovery_site.common.errors import RecoveryError

CONTENT_TYPE = "application/problem+json"


@dataclass(frozen=True, slots=True)
class Kind:
    """What a code means wherever it appears."""

    code: str
    status: int
    title: str
    hint: str


_KINDS = (
    Kind("malformed_json", 400, "The body is not acceptable JSON", "Send one JSON object in UTF-8."),
    Kind("validation_failed", 400, "Some fields are not acceptable", "Correct the fields listed in errors."),
    Kind("invalid_input", 400, "The request cannot be carried out as it is", "Change the request as the detail says."),
    Kind("cursor_invalid", 400, "The cursor is not one of ours", "Start again without a cursor."),
    Kind("idempotency_key_invalid", 400, "The Idempotency-Key cannot be used", "Send 1 to 255 printable characters."),
    Kind(
        "authentication_required",
        401,
        "No credentials were sent",
        "Send Authorization: Bearer with an API key or an OAuth access token.",
    ),
    Kind(
        "credentials_invalid",
        401,
        "The credentials are not valid",
        "They may be expired, revoked or mistyped: make a new key in the admin, or ask for a new access token.",
    ),
    Kind("scope_missing", 403, "The credentials do not allow this", "Use a key or token with the scope that is named."),
    Kind("person_required", 403, "Only a person can do this", "Use an access token that a person has granted."),
    Kind("forbidden", 403, "This is not allowed", "Ask an owner of the merchant for the role that allows it."),
    Kind("not_found", 404, "There is no such thing among yours", "Check the id and the merchant of the credentials."),
    Kind("method_not_allowed", 405, "This address does not know this method", "See the Allow header."),
    Kind("not_acceptable", 406, "Only JSON is spoken here", "Accept application/json."),
    Kind("conflict", 409, "It is not in a state that allows this", "Read it again and decide anew."),
    Kind(
        "idempotency_in_flight",
        409,
        "The same request is running",
        "Wait for the seconds in Retry-After, then send it again under the same key.",
    ),
    Kind(
        "event_waits",
        409,
        "It cannot be placed yet",
        "A charge of this invoice is in flight: wait for the seconds in Retry-After, then send it again.",
    ),
    Kind(
        "target_refused",
        400,
        "This address is one that nothing is sent to",
        "Use a public https address, or have the operator allow its network.",
    ),
    Kind("target_unknown", 400, "The name has no address now", "Check its DNS record, then send it again."),
    Kind("policy_invalid", 400, "The policy is not acceptable", "Correct what errors names; see the published schema."),
    Kind("body_too_large", 413, "The body is too large", "Send fewer things at once."),
    Kind("misdirected", 421, "Another process serves this", "Ask at the address in the detail."),
    Kind("unsupported_media_type", 415, "Only JSON is read here", "Send Content-Type: application/json."),
    Kind(
        "idempotency_key_reused",
        422,
        "The Idempotency-Key belongs to another request",
        "Send a new key with every new request.",
    ),
    Kind("rate_limited", 429, "Too many requests", "Wait for the seconds in Retry-After."),
    Kind("server_error", 500, "Something broke on our side", "Send it again under the same Idempotency-Key."),
    Kind("provider_uncertain", 502, "The provider gave no usable answer", "Read the payment: it is being looked up."),
    Kind("provider_unavailable", 503, "The provider cannot be reached", "Try again later; nothing was changed."),
)
KINDS: Mapping[str, Kind] = {kind.code: kind for kind in _KINDS}
_BY_STATUS = {400: "invalid_input", 403: "forbidden", 404: "not_found", 409: "conflict", 500: "server_error"}


class BodyTooLarge(RecoveryError):
    code = "body_too_large"
    http_status = 413


class ScopeMissing(RecoveryError):
    code = "scope_missing"
    http_status = 403


class PersonRequired(RecoveryError):
    code = "person_required"
    http_status = 403


class RateLimited(RecoveryError):
    code = "rate_limited"
    http_status = 429
    retryable = True


class CursorInvalid(RecoveryError):
    code = "cursor_invalid"
    http_status = 400


class IdempotencyKeyInvalid(RecoveryError):
    code = "idempotency_key_invalid"
    http_status = 400


def problem(
    code: str, status: int, detail: str, *, instance: str = "", errors: list[dict[str, str]] | None = None
) -> dict[str, Any]:
    """The body of an error. A code without an entry of its own takes title and hint of its status."""
    kind = KINDS.get(code) or KINDS[_BY_STATUS.get(status, "invalid_input")]
    body: dict[str, Any] = {
        "type": f"{settings.PUBLIC_URL}/api/docs/errors#{kind.code}",
        "title": kind.title,
        "status": status,
        "code": code,
        "detail": detail,
        "hint": kind.hint,
        "instance": instance,
        "request_id": str(structlog.contextvars.get_contextvars().get("request_id", "")),
    }
    if errors is not None:
        body["errors"] = errors
    return body


def handle(error: Exception, context: Mapping[str, Any]) -> Response | None:
    """DRF's exception handler. None for what nobody expected: Django then logs it and answers 500."""
    told = _told(error)
    if told is None:
        return None
    code, status, detail, errors = told
    instance = context["request"].path
    response = Response(problem(code, status, detail, instance=instance, errors=errors), status=status)
    response.content_type = CONTENT_TYPE
    if status == 401:
        response["WWW-Authenticate"] = f'Bearer realm="api", error="{code}"'
    if isinstance(error, exceptions.MethodNotAllowed):
        response["Allow"] = ", ".join(context["view"].allowed_methods)
    seconds = _retry_after(error)
    if seconds is not None:
        response["Retry-After"] = str(seconds)
    return response


_Told = tuple[str, int, str, list[dict[str, str]] | None]
_DRF: Mapping[type[exceptions.APIException], str] = {
    exceptions.ParseError: "malformed_json",
    exceptions.NotAuthenticated: "authentication_required",
    exceptions.AuthenticationFailed: "credentials_invalid",
    exceptions.PermissionDenied: "forbidden",
    exceptions.NotFound: "not_found",
    exceptions.MethodNotAllowed: "method_not_allowed",
    exceptions.NotAcceptable: "not_acceptable",
    exceptions.UnsupportedMediaType: "unsupported_media_type",
}


def _told(error: Exception) -> _Told | None:
    if isinstance(error, RecoveryError):
        problems = getattr(error, "problems", None)
        errors = [{"field": _dotted(one.pointer), "code": "invalid", "message": one.message} for one in problems or ()]
        return error.code, error.http_status, error.message, errors or None
    if isinstance(error, exceptions.ValidationError):
        errors = list(_fields(error.get_full_details(), ""))
        first = errors[0] if errors else {"field": "", "message": "The request is not acceptable."}
        detail = f"{first['field']}: {first['message']}" if first["field"] else first["message"]
        return "validation_failed", 400, detail, errors
    if isinstance(error, Http404):
        return "not_found", 404, KINDS["not_found"].title + ".", None
    if isinstance(error, DjangoPermissionDenied):
        return "forbidden", 403, str(error) or KINDS["forbidden"].title, None
    if isinstance(error, exceptions.APIException):
        code = _DRF.get(type(error))
        return (code, KINDS[code].status, str(error.detail), None) if code else None
    return None


def _dotted(pointer: str) -> str:
    return pointer.strip("/").replace("/", ".")


def _fields(details: Any, path: str) -> Iterator[dict[str, str]]:
    """Every message with the dotted name of its field, from DRF's nested details."""
    if isinstance(details, Mapping) and set(details) == {"message", "code"} and isinstance(details["message"], str):
        yield {"field": path, "code": str(details["code"]), "message": details["message"]}
    elif isinstance(details, Mapping):
        for name, inner in details.items():
            own = path if name == "non_field_errors" else f"{path}.{name}" if path else str(name)
            yield from _fields(inner, own)
    elif isinstance(details, list):
        for index, inner in enumerate(details):
            plain = isinstance(inner, Mapping) and isinstance(inner.get("message"), str)
            yield from _fields(inner, path if plain else f"{path}.{index}")


def _retry_after(error: Exception) -> int | None:
    """Seconds: what the error says itself, else one for everything that may succeed later."""
    if not isinstance(error, RecoveryError) or not error.retryable:
        return None
    waits = getattr(error, "retry_after", None)
    return int(error.data.get("retry_after") or (waits.total_seconds() if waits else 1))


def page_not_found(request: HttpRequest) -> JsonResponse:
    """For addresses under /api/ that nothing answers."""
    body = problem("not_found", 404, "There is no such address.", instance=request.path)
    answer = JsonResponse(body, status=404, content_type=CONTENT_TYPE)
    # Django would log the address as it came; it may hold somebody's mail address.
    answer._has_been_logged = True  # type: ignore[attr-defined]
    return answer


def server_error(request: HttpRequest) -> JsonResponse:
    """For what broke under /api/; the reason stands in the log only."""
    body = problem("server_error", 500, "The request could not be finished.", instance=request.path)
    return JsonResponse(body, status=500, content_type=CONTENT_TYPE)
