"""What people may do from the dashboards; the writing is the other apps' services."""

from collections.abc import Collection
from datetime import datetime

from accounts.models import Merchant, User
from accounts.selectors import may
from accounts.states import Role
from notifications.services.alerts import alert_acknowledge
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
    return alert_acknowledge(merchant_pk=merchant.pk, alert_pks=alert_pks, by=user.get_username(), now=now)
