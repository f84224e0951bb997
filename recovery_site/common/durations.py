"""Durations as people write them in settings and policies: `30s`, `5m`, `1h`."""

import re
from datetime import timedelta

_PATTERN = re.compile(r"(?P<number>[0-9]{1,15})(?P<unit>ms|s|m|h|d)?", re.ASCII)
_MILLISECONDS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
LONGEST = timedelta(days=3650)


def parse_duration(text: str, *, name: str, bare_milliseconds: bool = False) -> timedelta:
    """Read `text` as a whole number with a unit (ms, s, m, h, d).

    `name` is the variable the text came from, used in the message. A number without a unit counts as
    milliseconds when `bare_milliseconds` is true (the RETRY_* settings) and is refused otherwise, because
    nobody can tell what it was meant to be. Raises ValueError with a sentence that says what to write.
    """
    match = _PATTERN.fullmatch(text.strip())
    if match is None:
        hint = ", or a whole number of milliseconds" if bare_milliseconds else ""
        raise ValueError(f"{name} is {text!r}, which is no duration: write it like 30s, 5m or 1h{hint}.")
    unit = match["unit"] or ("ms" if bare_milliseconds else None)
    if unit is None:
        raise ValueError(f"{name} is {text!r}, which has no unit: write it like 30s, 5m or 1h.")
    milliseconds = int(match["number"]) * _MILLISECONDS[unit]
    longest = int(LONGEST.total_seconds() * 1000)
    if not 0 < milliseconds <= longest:
        raise ValueError(f"{name} is {text!r}: choose a duration above zero and at most {LONGEST.days} days.")
    return timedelta(milliseconds=milliseconds)


def format_duration(duration: timedelta) -> str:
    """The shortest text `parse_duration` reads back as `duration`, rounded down to milliseconds."""
    milliseconds = duration // timedelta(milliseconds=1)
    for unit in ("d", "h", "m", "s"):
        if milliseconds and milliseconds % _MILLISECONDS[unit] == 0:
            return f"{milliseconds // _MILLISECONDS[unit]}{unit}"
    return f"{milliseconds}ms"
