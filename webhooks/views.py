"""The inbound door: raw bytes, a signature, one durable row per item, 200."""

import time
import uuid

import structlog
from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from providers.base import InboundRequest
from recovery_site.common import clock
from recovery_site.common.errors import RecoveryError
from webhooks.models import WebhookEndpoint
from webhooks.services import inbox_receive

log = structlog.get_logger()


@csrf_exempt
@require_POST
def receive(request: HttpRequest, provider: str, endpoint_uuid: uuid.UUID) -> HttpResponse:
    """`POST /webhooks/<provider>/<uuid>/`: 200 stored or known, 400 not signed or not readable, 404, 413."""
    declared = request.META.get("CONTENT_LENGTH") or "0"
    if not declared.isdigit() or int(declared) > settings.WEBHOOK_MAX_BODY_BYTES:
        return _refuse(413, "body_too_large", f"The body is larger than {settings.WEBHOOK_MAX_BODY_BYTES} bytes.")
    endpoint = (
        WebhookEndpoint.objects.select_related("connection")
        .filter(uuid=endpoint_uuid, provider=provider, enabled=True)
        .first()
    )
    if endpoint is None:
        return _refuse(404, "unknown_endpoint", "There is no such webhook endpoint.")
    inbound = InboundRequest(
        body=request.read(settings.WEBHOOK_MAX_BODY_BYTES + 1),
        headers={name.lower(): value for name, value in request.headers.items()},
        query={name: str(value) for name, value in request.GET.items()},
    )
    if len(inbound.body) > settings.WEBHOOK_MAX_BODY_BYTES:
        return _refuse(413, "body_too_large", f"The body is larger than {settings.WEBHOOK_MAX_BODY_BYTES} bytes.")
    try:
        new = inbox_receive(
            endpoint=endpoint,
            request=inbound,
            now=clock.now(),
            clock=time.time(),
            tolerance_seconds=settings.WEBHOOK_TOLERANCE_SECONDS,
        )
    except RecoveryError as error:
        log.warning("webhook_refused", endpoint=endpoint.pk, provider=provider, code=error.code, reason=error.message)
        return _refuse(error.http_status, error.code, "The webhook was not accepted: check its signature and body.")
    log.info("webhook_received", endpoint=endpoint.pk, provider=provider, new_items=new)
    return JsonResponse({"received": True, "new": new})


def _refuse(status: int, code: str, message: str) -> HttpResponse:
    if status in (404, 413):
        log.warning("webhook_refused", code=code, reason=message)
    return JsonResponse({"error": code, "message": message}, status=status)
