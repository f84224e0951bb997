"""The one source of `now`: the system clock, or in the demo a clock that runs faster.

Decisions never call this themselves; entry points (commands, tasks, views) read it once and pass `now` down.
Leases do not use it at all: they live on the database clock, which nobody can accelerate.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from django.conf import settings
from django.db import connection

# Years in which something can have happened that is told to us; every time zone can show each of their instants.
FIRST_YEAR, LAST_YEAR = 1970, 2199


@dataclass(frozen=True, slots=True)
class ClockAnchor:
    """The instant at which virtual time equalled `virtual` while the system clock showed `real`."""

    real: datetime
    virtual: datetime


def now() -> datetime:
    """Aware UTC datetime; virtual when CLOCK_ANCHOR and CLOCK_SPEED are set (demo only)."""
    real = datetime.now(UTC)
    anchor: ClockAnchor | None = settings.CLOCK_ANCHOR
    if anchor is None:
        return real
    return anchor.virtual + (real - anchor.real) * settings.CLOCK_SPEED


def to_real_seconds(virtual: timedelta) -> float:
    """Seconds of system time that pass while `virtual` passes on the clock above."""
    return virtual.total_seconds() / float(settings.CLOCK_SPEED)


def database_now() -> datetime:
    """The database's wall clock (not the transaction's start); the clock of every lease."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        (value,) = cursor.fetchone()
    return value  # type: ignore[no-any-return]
