"""Durations as written in settings."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recovery_site.common.durations import LONGEST, format_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("30s", timedelta(seconds=30)),
        ("5m", timedelta(minutes=5)),
        (" 1h ", timedelta(hours=1)),
        ("2d", timedelta(days=2)),
        ("250ms", timedelta(milliseconds=250)),
        ("007s", timedelta(seconds=7)),
    ],
)
def test_number_with_unit(text: str, expected: timedelta) -> None:
    assert parse_duration(text, name="X") == expected


def test_bare_number_is_milliseconds_only_where_that_is_agreed() -> None:
    assert parse_duration("30000", name="RETRY_X", bare_milliseconds=True) == timedelta(seconds=30)
    with pytest.raises(ValueError, match=r"^X is '30000', which has no unit: write it like 30s, 5m or 1h\.$"):
        parse_duration("30000", name="X")


@pytest.mark.parametrize(
    "text", ["", "s", "1.5h", "-1s", "1 h", "1h30m", "\uff11s", "1H", "none", "1e3s", "9" * 16 + "s"]
)
def test_anything_else_is_refused_with_the_variable_named(text: str) -> None:
    with pytest.raises(ValueError, match=r"^RECONCILE_INTERVAL is .*: write it like 30s, 5m or 1h\.$"):
        parse_duration(text, name="RECONCILE_INTERVAL")


@pytest.mark.parametrize("text", ["0s", "0", "3651d", "999999999999999d"])
def test_zero_and_absurd_lengths_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="choose a duration above zero and at most 3650 days"):
        parse_duration(text, name="X", bare_milliseconds=True)


@given(st.integers(1, LONGEST // timedelta(milliseconds=1)))
def test_written_duration_reads_back(milliseconds: int) -> None:
    duration = timedelta(milliseconds=milliseconds)
    assert parse_duration(format_duration(duration), name="X") == duration
