"""One webhook from its bytes to its rows, by the same rules on both roads."""

import time
from collections.abc import Sequence

from django.conf import settings

from providers.base import InboundRequest, SignatureInvalid
from recovery_site.common import clock
from webhooks.door.guard import spend_bad, spend_good
from webhooks.models import WebhookEndpoint
from webhooks.services.receiving import InboxRow, inbox_rows


def rows_take(endpoint: WebhookEndpoint, secrets: Sequence[str], request: InboundRequest) -> list[InboxRow]:
    """Verified, counted, split and scrubbed; no database is asked. Verified first: what nobody signed is counted apart.

    Raises SignatureInvalid, BodyMalformed, TooMany.
    """
    try:
        rows = inbox_rows(
            endpoint=endpoint,
            request=request,
            secrets=secrets,
            now=clock.now(),
            clock=time.time(),
            tolerance_seconds=settings.WEBHOOK_TOLERANCE_SECONDS,
        )
    except SignatureInvalid:
        spend_bad(endpoint.pk)
        raise
    spend_good(endpoint.pk)
    return rows
