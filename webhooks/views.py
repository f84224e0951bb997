"""The inbound door for servers that speak WSGI: raw bytes, a signature, one durable row per item, 200.

The shipped web server takes the other road to the same answers (webhooks/door).
"""

import uuid
from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, JsonResponse
from django.views.decorators.csrf import csrf_exempt

from providers.base import AnswersChallenge, BodyMalformed, InboundRequest
from providers.registry import PROVIDERS, dialect
from recovery_site.common.errors import RecoveryError
from webhooks.door.answers import BodyTooLarge, EndpointUnknown, accepted, refused
from webhooks.door.taking import rows_take
from webhooks.models import WebhookEndpoint
from webhooks.services import endpoint_secrets, inbox_store

_CHUNK = 65_536


@csrf_exempt
def receive(request: HttpRequest, provider: str, endpoint_uuid: uuid.UUID) -> HttpResponse:
    """`POST /webhooks/<provider>/<uuid>/`: 200 stored or known, 400 not signed or not readable, 404, 413.

    One log line each; a sender that is refused learns no more than the code. What nobody expected is a 500, and the
    sender tries again.
    """
    where = {"provider": provider, "endpoint": str(endpoint_uuid)}
    if request.method == "GET" and (challenger := _challenger(provider)) is not None:
        return _answer_challenge(challenger, request, provider, endpoint_uuid, where)
    if request.method != "POST":
        return HttpResponseNotAllowed(["POST"])
    try:
        sent = InboundRequest(
            body=_body(request),
            headers={name.lower(): value for name, value in request.headers.items()},
            query={name: str(value) for name, value in request.GET.items()},
        )
        endpoint = _endpoint(provider, endpoint_uuid)
        new = inbox_store(rows_take(endpoint, endpoint_secrets(endpoint), sent))
    except RecoveryError as error:
        return _refuse(error, where)
    return JsonResponse(accepted(new, where))


def _challenger(provider: str) -> AnswersChallenge | None:
    known = PROVIDERS.get(provider)
    spoken: object = dialect(provider) if known is not None and known.dialect else None
    return spoken if isinstance(spoken, AnswersChallenge) else None


def _answer_challenge(
    challenger: AnswersChallenge, request: HttpRequest, provider: str, endpoint_uuid: uuid.UUID, where: dict[str, str]
) -> HttpResponse:
    """By GET a provider asks whether the endpoint knows its secret; nothing is stored."""
    asked = InboundRequest(body=b"", headers={}, query={name: str(value) for name, value in request.GET.items()})
    try:
        answer = challenger.challenge_answer(asked, endpoint_secrets(_endpoint(provider, endpoint_uuid)))
    except RecoveryError as error:
        return _refuse(error, where)
    return HttpResponse(answer, content_type="text/plain")


def _body(request: HttpRequest) -> bytes:
    """The raw body, read no further than one byte past the limit. Raises BodyTooLarge, BodyMalformed."""
    limit = settings.WEBHOOK_MAX_BODY_BYTES
    too_large = BodyTooLarge(f"The body is larger than {limit} bytes; send fewer items at once.")
    declared = request.META.get("CONTENT_LENGTH") or ""
    if declared and not (declared.isascii() and declared.isdecimal()):
        raise BodyMalformed("The Content-Length is no number; send the body's size in bytes.")
    if len(declared) > 18 or (declared and int(declared) > limit):
        raise too_large
    stream: Any = request
    if not declared and request.META.get("wsgi.input_terminated"):
        # A chunked body: Django takes it for empty, because it has no length; the server knows where it ends.
        stream = request.META["wsgi.input"]
    parts, size = [], 0
    try:
        while size <= limit and (part := stream.read(min(_CHUNK, limit + 1 - size))):
            parts.append(part)
            size += len(part)
    except OSError as error:
        raise BodyMalformed("The body broke off; send it again.") from error
    if size > limit:
        raise too_large
    return b"".join(parts)


def _endpoint(provider: str, endpoint_uuid: uuid.UUID) -> WebhookEndpoint:
    try:
        endpoint = WebhookEndpoint.objects.get(uuid=endpoint_uuid)
    except WebhookEndpoint.DoesNotExist:
        raise EndpointUnknown("There is no webhook endpoint with this id; webhook_endpoint create makes one.") from None
    if endpoint.provider != provider:
        raise EndpointUnknown(f"This endpoint is for {endpoint.provider}; send there what its address says.")
    if not endpoint.enabled:
        raise EndpointUnknown("This endpoint is switched off; enable it in the admin if it should be used.")
    return endpoint


def _refuse(error: RecoveryError, where: dict[str, str]) -> HttpResponse:
    answer = JsonResponse(refused(error, where), status=error.http_status)
    if (seconds := error.data.get("retry_after")) is not None:
        answer["Retry-After"] = str(seconds)
    # Else Django adds a line of its own for every 4xx, which says nothing more.
    answer._has_been_logged = True  # type: ignore[attr-defined]
    return answer
