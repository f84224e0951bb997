"""Inbox items that ended long ago."""

from collections.abc import Callable
from datetime import datetime, timedelta

from django.db.models import Q

from recovery_site.common.purging import purge
from webhooks.models import InboxEvent
from webhooks.states import InboxStatus


def inbox_purge(*, now: datetime, keep: timedelta, keep_going: Callable[[], bool] = lambda: True) -> int:
    """Delete items that ended more than `keep` ago; returns how many. What FAILED stays: it is a question that nobody
    has answered. A provider that repeats a deleted item makes a new one, which changes nothing in the ledger."""
    ended = Q(status__in=(InboxStatus.PROCESSED, InboxStatus.IGNORED), processed_at__lt=now - keep)
    return purge(InboxEvent.objects.filter(received_at__lt=now - keep), ended, keep_going)
