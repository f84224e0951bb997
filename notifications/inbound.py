"""The address that mail services report to: signed JSON, or the returned mail itself."""

import time
from uuid import UUID

from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from notifications.models import MessageSettings
from notifications.reports import report_of_json, report_of_mail
from notifications.services.reports import report_apply
from providers.base import InboundRequest
from providers.generic.standard_webhooks import json_object, verify_signature
from recovery_site.common import clock
from recovery_site.common.crypto import decrypt_json
from recovery_site.common.errors import RecoveryError


@csrf_exempt
@require_POST
def mail_reports(request: HttpRequest, endpoint: UUID) -> HttpResponse:
    """200 with what changed; 404 for an unknown address, 400 for a signature or body that does not fit."""
    row = MessageSettings.objects.filter(events_uuid=endpoint).exclude(events_secret_encrypted="").first()
    if row is None:
        return JsonResponse({"error": "not_found"}, status=404)
    inbound = InboundRequest(
        body=request.body, headers={name.lower(): value for name, value in request.headers.items()}
    )
    try:
        secret = decrypt_json(row.events_secret_encrypted)["secret"]
        verify_signature(inbound, [secret], now=time.time(), tolerance_seconds=settings.WEBHOOK_TOLERANCE_SECONDS)
        as_mail = request.content_type == "message/rfc822"
        report = report_of_mail(inbound.body) if as_mail else report_of_json(json_object(inbound.body))
        changed = report is not None and report_apply(report=report, now=clock.now(), merchant_pk=row.merchant_id)
    except RecoveryError as error:
        return JsonResponse({"error": error.code, "message": error.message}, status=error.http_status)
    return JsonResponse({"changed": changed})
