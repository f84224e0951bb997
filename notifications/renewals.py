"""When a subscription renews next, and whether a card lives to see it. Pure."""

from calendar import monthrange
from datetime import datetime, timedelta

_MONTHS = {"month": 1, "monthly": 1, "quarter": 3, "quarterly": 3, "year": 12, "yearly": 12, "annual": 12}
_DAYS = {"day": 1, "week": 7, "weekly": 7}


def next_renewal(issued_at: datetime, interval: str, now: datetime) -> datetime | None:
    """The first renewal after `now` of a subscription last billed at `issued_at`; None if its interval says nothing.

    The same day of the month, or its last day where the month is shorter. One that is overdue by more than an interval
    is taken for ended: None.
    """
    word = interval.strip().lower()
    if word in _DAYS:
        at = issued_at + timedelta(days=_DAYS[word])
        latest = at + timedelta(days=_DAYS[word])
    elif word in _MONTHS:
        at = _months_later(issued_at, _MONTHS[word])
        latest = _months_later(issued_at, 2 * _MONTHS[word])
    else:
        return None
    if at > now:
        return at
    return latest if latest > now else None


def _months_later(at: datetime, months: int) -> datetime:
    index = at.month - 1 + months
    year, month = at.year + index // 12, index % 12 + 1
    return at.replace(year=year, month=month, day=min(at.day, monthrange(year, month)[1]))
