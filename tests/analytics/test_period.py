from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

import pytest

from analytics.period import length_from, period_of, zone_of

PARIS = ZoneInfo("Europe/Paris")


def test_period_begins_at_the_merchants_midnight_and_ends_now() -> None:
    now = datetime(2026, 11, 20, 23, 30, tzinfo=UTC)  # already the 21st in Paris
    period = period_of(7, now, PARIS)
    assert period.start == datetime(2026, 11, 14, 23, tzinfo=UTC)
    assert period.end == now
    assert period.dates == [date(2026, 11, day) for day in range(15, 22)]


def test_period_over_the_end_of_summer_time_still_begins_at_midnight() -> None:
    period = period_of(30, datetime(2026, 11, 10, 12, tzinfo=UTC), PARIS)
    assert period.start == datetime(2026, 10, 11, 22, tzinfo=UTC)  # summer time then: midnight is 22:00 UTC
    assert len(period.dates) == 30


def test_weeks_begin_on_monday_and_cover_every_day_once() -> None:
    period = period_of(30, datetime(2026, 11, 20, 12, tzinfo=UTC), ZoneInfo("UTC"))  # a Friday
    assert list(period.weeks) == [
        date(2026, 10, 22),  # the rest of a week that began before the period
        date(2026, 10, 26),
        date(2026, 11, 2),
        date(2026, 11, 9),
        date(2026, 11, 16),
    ]
    assert [day for days in period.weeks.values() for day in days] == period.dates


@pytest.mark.parametrize(
    ("text", "days"), [("7", 7), ("30", 30), ("90", 90), ("", 30), ("31", 30), ("-7", 30), ("x", 30)]
)
def test_only_offered_lengths_are_taken_from_the_address(text: str, days: int) -> None:
    assert length_from(text) == days


@pytest.mark.parametrize("name", ["", "Mars/Olympus", "../etc/passwd"])
def test_unknown_time_zone_means_utc(name: str) -> None:
    assert zone_of(name) == ZoneInfo("UTC")
