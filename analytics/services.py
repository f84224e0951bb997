"""What people write from the dashboards."""

from collections.abc import Collection
from datetime import datetime

from accounts.models import Merchant, User
from accounts.selectors import may
from accounts.states import Role
from notifications.models import Alert
from recovery_site.common.errors import RecoveryError


class Forbidden(RecoveryError):
    """The person's role does not allow this."""

    code = "forbidden"
    http_status = 403


def alerts_acknowledge(*, merchant: Merchant, alert_pks: Collection[int], user: User, now: datetime) -> int:
    """Mark the merchant's alerts as seen by `user`; those already seen keep their first reader. Returns how
    many changed.

    Needs role support. Raises Forbidden.
    """
    if not may(user, merchant, Role.SUPPORT):
        raise Forbidden("Viewers cannot acknowledge alerts: ask an owner for the support role.")
    return Alert.objects.filter(merchant=merchant, pk__in=alert_pks, acknowledged_at__isnull=True).update(
        acknowledged_by=user.get_username()[:100], acknowledged_at=now
    )
