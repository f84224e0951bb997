"""Reads about attempts."""

from django.db.models import Q

from invoices.models import Attempt
from invoices.states import AttemptStatus
from recovery_site.common.clock import database_now
from recovery_site.common.db import DatabaseClock

# Charges that may be at the provider at this very moment: being sent, or being sent again under their old key.
ON_ITS_WAY = Q(status=AttemptStatus.SENDING) | Q(
    status=AttemptStatus.UNKNOWN, resends__gt=0, lease_until__gt=DatabaseClock()
)


def lease_over(attempt: Attempt) -> bool:
    """True once no worker may send this attempt any more, on the database's clock."""
    return attempt.lease_until is None or attempt.lease_until < database_now()
