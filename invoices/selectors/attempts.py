"""Reads about attempts."""

from invoices.models import Attempt
from recovery_site.common.clock import database_now


def lease_over(attempt: Attempt) -> bool:
    """True once no worker may send this attempt any more, on the database's clock."""
    return attempt.lease_until is None or attempt.lease_until < database_now()
