"""An incident in the words of its alert. Pure."""

from collections.abc import Mapping
from datetime import UTC, datetime

from analytics.spikes.detect import HOUR, Dimension, Subject


def subject_name(subject: Subject, connections: Mapping[str, str]) -> str:
    """`Stripe main`, `cards from FR`, `code processing_error`."""
    match subject.dimension:
        case Dimension.CONNECTION:
            return connections.get(subject.key, "a connection")
        case Dimension.COUNTRY:
            return f"cards from {subject.key}"
        case Dimension.CODE:
            return f"code {subject.key}"


def incident_text(
    *,
    name: str,
    started_at: datetime,
    ended_at: datetime | None,
    attempts: int,
    failed: int,
    expected: float,
    cause: str,
    lasting: bool,
) -> str:
    """Start, size, likely cause and, once it is over, the end."""
    share, usual = share_words(failed, attempts), share_words(expected, attempts)
    size = f"{failed:,} of {attempts:,} attempts failed ({share}, usually {usual})"
    if lasting:
        return f"{name}: since {_moment(started_at)} {size}. It has lasted for days and now counts as normal. {cause}"
    if ended_at is not None:
        hours = max(1, round((ended_at - started_at) / HOUR))
        span = f"{hours} hour{'' if hours == 1 else 's'}"
        return f"Over since {_moment(ended_at)}, {name}: in {span} {size}. {cause}"
    return f"More payments fail than usual, {name}: since {_moment(started_at)} {size}. {cause}"


def share_words(part: float, whole: int) -> str:
    """`31 %`; below one percent with a decimal, `0.4 %`."""
    share = 100 * part / whole if whole else 0.0
    return f"{share:.1f} %" if 0 < share < 1 else f"{share:.0f} %"


def _moment(at: datetime) -> str:
    here = at.astimezone(UTC)
    return f"{here:%a} {here.day} {here:%b %H:%M} UTC"
