"""Reporting periods: whole days in the merchant's time zone, up to now. Pure."""

from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

# To PostgreSQL these names are fixed offsets; as zones they are links to these places (tzdata 2024b).
_ABBREVIATIONS = {"CET": "Europe/Brussels", "MET": "Europe/Brussels", "EET": "Europe/Athens", "WET": "Europe/Lisbon"}
LENGTHS = (7, 30, 90)
DEFAULT_LENGTH = 30


@dataclass(frozen=True, slots=True)
class Period:
    """`days` calendar days, today included: from local midnight `start` (inclusive) to `end`, which is now."""

    days: int
    start: datetime
    end: datetime
    zone: ZoneInfo

    @property
    def dates(self) -> list[date]:
        """Every local date of the period, oldest first."""
        first = self.start.astimezone(self.zone).date()
        return [first + timedelta(days=offset) for offset in range(self.days)]

    @property
    def weeks(self) -> dict[date, list[date]]:
        """The dates grouped by week (Monday first); a week is named by its first day within the period."""
        grouped: dict[date, list[date]] = {}
        monday: dict[date, date] = {}
        for day in self.dates:
            first = monday.setdefault(day - timedelta(days=day.weekday()), day)
            grouped.setdefault(first, []).append(day)
        return grouped


def zone_of(name: str) -> ZoneInfo:
    """The named time zone, UTC for a name that this system does not know."""
    try:
        return ZoneInfo(_ABBREVIATIONS.get(name, name))
    except (ZoneInfoNotFoundError, ValueError):
        return ZoneInfo("UTC")


def length_from(text: str) -> int:
    """The `days` parameter of an address; anything but one of LENGTHS means the default (`address_check` tells)."""
    return int(text) if text in {str(length) for length in LENGTHS} else DEFAULT_LENGTH


def period_of(days: int, now: datetime, zone: ZoneInfo) -> Period:
    """The last `days` days in `zone`, today included."""
    first = now.astimezone(zone).date() - timedelta(days=days - 1)
    return Period(days=days, start=datetime.combine(first, time(), tzinfo=zone), end=now, zone=zone)
