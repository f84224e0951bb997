"""Everything that is kept only for a while: one call for the schedule and the command."""

from collections.abc import Callable
from datetime import datetime

from django.conf import settings

from accounts.audit import accesses_purge, idempotency_purge
from accounts.oauth.services import tokens_purge
from invoices.services.outbox import outbox_purge
from webhooks.outbound.deliveries import deliveries_purge
from webhooks.services import inbox_purge


def purge_all(*, now: datetime, keep_going: Callable[[], bool] = lambda: True) -> dict[str, int]:
    """Delete what is older than the *_RETENTION settings say, and tokens that have expired; how many of each."""
    return {
        "inbox": inbox_purge(now=now, keep=settings.INBOX_RETENTION, keep_going=keep_going),
        "deliveries": deliveries_purge(now=now, keep=settings.WEBHOOK_OUT_RETENTION, keep_going=keep_going),
        "outbox": outbox_purge(now=now, keep=settings.OUTBOX_RETENTION, keep_going=keep_going),
        "accesses": accesses_purge(keep=settings.AUDIT_RETENTION, keep_going=keep_going),
        "idempotency": idempotency_purge(keep=settings.IDEMPOTENCY_RETENTION, keep_going=keep_going),
        "tokens": tokens_purge(),
    }
