"""Delays are exact, jitter is bounded and repeatable, and quiet hours are right on every clock there is."""

from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from django.apps import apps
from hypothesis import example, given, settings
from hypothesis import strategies as st

from retries import timing
from retries.categories import Category
from retries.policy import parse_policy, preset_document
from retries.timing import (
    LONGEST_DELAY,
    Exponential,
    Fixed,
    QuietHours,
    TimingError,
    build_strategy,
    customer_zone,
    next_allowed_instant,
    next_delay,
    register_strategy,
    strategy_names,
    with_jitter,
)

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
SECOND = timedelta(seconds=1)


def delays(strategy, count, seed="case"):
    return [next_delay(strategy, number, seed) for number in range(1, count + 1)]


def test_fixed_delays_come_in_turn_and_the_last_repeats():
    strategy = build_strategy("fixed", {"delays": ["1m", "5m", "30m"]})
    assert delays(strategy, 5) == [MINUTE, 5 * MINUTE, 30 * MINUTE, 30 * MINUTE, 30 * MINUTE]


def test_at_once_is_a_delay_of_zero():
    assert delays(build_strategy("fixed", {"delays": ["0s"]}), 3) == [timedelta()] * 3


def test_exponential_delays_grow_by_the_factor_up_to_the_cap():
    strategy = build_strategy("exponential", {"base": "30m", "factor": 2, "cap": "5h"})
    assert delays(strategy, 6) == [30 * MINUTE, HOUR, 2 * HOUR, 4 * HOUR, 5 * HOUR, 5 * HOUR]


def test_a_fractional_factor_is_exact():
    strategy = build_strategy("exponential", {"base": "10s", "factor": 1.5, "cap": "1h"})
    assert delays(strategy, 4) == [10 * SECOND, 15 * SECOND, 22.5 * SECOND, 33.75 * SECOND]


def test_the_factor_is_two_where_none_is_given_and_one_never_grows():
    assert delays(build_strategy("exponential", {"base": "1m", "cap": "1h"}), 3) == [
        MINUTE,
        2 * MINUTE,
        4 * MINUTE,
    ]
    flat = build_strategy("exponential", {"base": "1m", "factor": 1, "cap": "1h"})
    assert next_delay(flat, 10**9, "case") == MINUTE


durations = st.timedeltas(timedelta(), timedelta(days=30))
shares = st.decimals(0, 1, places=3)


@given(durations, shares, st.text(max_size=40), st.integers(1, 50))
@example(HOUR, Decimal(1), "", 1)
def test_jitter_only_lengthens_and_stays_within_its_share(delay, share, seed, number):
    jittered = with_jitter(delay, share, seed, number)
    assert (
        delay <= jittered <= delay + timedelta(microseconds=int(delay / timedelta(microseconds=1) * float(share)) + 1)
    )
    assert with_jitter(delay, share, seed, number) == jittered
    if share == 0:
        assert jittered == delay


def test_jitter_spreads_cases_and_is_the_same_on_every_machine():
    drawn = {with_jitter(HOUR, Decimal("0.5"), f"case {number}", 1) for number in range(1000)}
    assert len(drawn) > 990
    third = HOUR / 6
    for low in (HOUR, HOUR + third, HOUR + 2 * third):
        assert 250 < sum(low <= delay < low + third for delay in drawn) < 420
    assert with_jitter(HOUR, Decimal("0.5"), "case", 1) == timedelta(seconds=5087, microseconds=143275)


@given(
    st.integers(1, 10**6).map(lambda milliseconds: timedelta(milliseconds=milliseconds)),
    st.decimals(1, 10, places=2),
    st.timedeltas(timedelta(), timedelta(days=60)),
    shares,
    st.integers(1, 200),
)
def test_exponential_never_shrinks_and_never_passes_cap_and_jitter(base, factor, more, jitter, number):
    strategy = Exponential(base, factor, base + more, jitter)
    plain = Exponential(base, factor, base + more)
    assert base <= plain.delay(number, "") <= base + more
    assert plain.delay(number, "") <= plain.delay(number + 1, "")
    delay = strategy.delay(number, "seed")
    assert plain.delay(number, "") <= delay <= (base + more) * 2


@pytest.mark.parametrize("number", [0, -1])
def test_tries_are_numbered_from_one(number):
    with pytest.raises(TimingError, match="numbered from 1"):
        next_delay(Fixed((MINUTE,)), number, "case")


@pytest.mark.parametrize(
    ("name", "parameters", "field", "message"),
    [
        ("weekly", {}, "", "no timing strategy 'weekly'; use one of"),
        ("fixed", {}, "delays", "List the delays"),
        ("fixed", {"delays": []}, "delays", "List the delays"),
        ("fixed", {"delays": ["1m", "soon"]}, "delays/1", "'soon' is no duration; write it like 30s"),
        ("fixed", {"delays": [60]}, "delays/0", "write it as text"),
        ("fixed", {"delays": ["366d"]}, "delays/0", "the longest is 365d"),
        ("fixed", {"delays": ["1m"], "jitter": 2}, "jitter", "give a number from 0 to 1"),
        ("fixed", {"delays": ["1m"], "jitter": True}, "jitter", "give a number from 0 to 1"),
        ("fixed", {"delays": ["1m"], "factor": 2}, "factor", "no parameter 'factor'"),
        ("exponential", {"cap": "1h"}, "base", "is no duration"),
        ("exponential", {"base": "0s", "cap": "1h"}, "base", "above zero"),
        ("exponential", {"base": "2h", "cap": "1h"}, "cap", "at least as long"),
        ("exponential", {"base": "1m", "cap": "1h", "factor": 0.5}, "factor", "from 1 to 10"),
        ("exponential", {"base": "1m", "cap": "1h", "factor": "NaN"}, "factor", "from 1 to 10"),
    ],
)
def test_mistakes_name_the_parameter(name, parameters, field, message):
    with pytest.raises(TimingError, match=message) as caught:
        build_strategy(name, parameters)
    assert caught.value.field == field


class EveryFullMoon:
    def delay(self, attempt_number, seed):
        return timedelta(days=30) * attempt_number


def _full_moon(parameters):
    return EveryFullMoon()


def test_a_plug_in_is_used_by_its_name():
    register_strategy("full_moon", _full_moon)
    register_strategy("full_moon", _full_moon)  # twice is the same, as when a module is imported twice
    assert "full_moon" in strategy_names()
    assert delays(build_strategy("full_moon", {}), 2) == [timedelta(days=30), timedelta(days=60)]
    assert next_delay(build_strategy("full_moon", {}), 1000, "") == LONGEST_DELAY
    with pytest.raises(TimingError, match="choose another name"):
        register_strategy("fixed", _full_moon)


def test_a_plug_in_that_looks_back_in_time_is_refused():
    class Yesterday:
        def delay(self, attempt_number, seed):
            return timedelta(days=-1)

    with pytest.raises(TimingError, match="negative delay"):
        next_delay(Yesterday(), 1, "case")


# --- quiet hours ----------------------------------------------------------------------------------

BERLIN = ZoneInfo("Europe/Berlin")
NIGHT = QuietHours(time(21), time(8))


def at(text, zone=UTC):
    return datetime.fromisoformat(text).replace(tzinfo=zone)


@pytest.mark.parametrize(
    ("asked", "allowed"),
    [
        ("2026-06-10T12:00:00", "2026-06-10T12:00:00"),
        ("2026-06-10T20:59:59.999999", "2026-06-10T20:59:59.999999"),
        ("2026-06-10T21:00:00", "2026-06-11T08:00:00"),
        ("2026-06-10T23:59:59", "2026-06-11T08:00:00"),
        ("2026-06-11T00:00:00", "2026-06-11T08:00:00"),
        ("2026-06-11T07:59:59.999999", "2026-06-11T08:00:00"),
        ("2026-06-11T08:00:00", "2026-06-11T08:00:00"),
        ("2028-02-28T22:00:00", "2028-02-29T08:00:00"),
    ],
)
def test_quiet_hours_over_midnight(asked, allowed):
    assert next_allowed_instant(at(asked, BERLIN), BERLIN, NIGHT) == at(allowed, BERLIN)


def test_quiet_hours_within_a_day():
    lunch = QuietHours(time(12), time(13, 30))
    for asked in ("2026-06-10T12:00:00", "2026-06-10T12:10:00", "2026-06-10T13:29:59"):
        assert next_allowed_instant(at(asked), UTC, lunch) == at("2026-06-10T13:30:00")
    assert next_allowed_instant(at("2026-06-10T11:59:59"), UTC, lunch) == at("2026-06-10T11:59:59")


def test_business_days_move_the_weekend_to_monday():
    weekdays = QuietHours(time(21), time(8), frozenset(range(5)))
    assert next_allowed_instant(at("2026-06-12T21:30:00", BERLIN), BERLIN, weekdays) == at("2026-06-15T08:00", BERLIN)
    only_days = QuietHours(weekdays=frozenset({2}))
    assert next_allowed_instant(at("2026-06-11T00:00:00"), UTC, only_days) == at("2026-06-17T00:00:00")


def test_the_customers_zone_decides():
    evening_in_berlin = at("2026-06-10T19:30:00")  # 21:30 there, 15:30 in New York
    assert next_allowed_instant(evening_in_berlin, BERLIN, NIGHT) == at("2026-06-11T06:00:00")
    assert next_allowed_instant(evening_in_berlin, ZoneInfo("America/New_York"), NIGHT) == evening_in_berlin


def test_quiet_hours_that_end_in_the_skipped_hour_end_with_the_jump():
    """On 29 March 2026 Berlin goes from 02:00 to 03:00: there is no 02:30."""
    quiet = QuietHours(time(22), time(2, 30))
    assert next_allowed_instant(at("2026-03-29T01:59:59", BERLIN), BERLIN, quiet) == at("2026-03-29T01:00:00")


def test_quiet_hours_in_the_hour_that_happens_twice():
    """On 25 October 2026 Berlin lives through 02:00 to 03:00 twice."""
    quiet = QuietHours(time(22), time(2, 30))
    first_end = at("2026-10-25T00:30:00")
    second_end = at("2026-10-25T01:30:00")
    assert next_allowed_instant(at("2026-10-24T23:00:00"), BERLIN, quiet) == first_end
    assert next_allowed_instant(first_end + timedelta(minutes=29), BERLIN, quiet) == first_end + timedelta(minutes=29)
    assert next_allowed_instant(at("2026-10-25T01:00:00"), BERLIN, quiet) == second_end


ZONES = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "America/Sao_Paulo",
    "Asia/Kolkata",
    "Asia/Kathmandu",
    "Australia/Lord_Howe",  # half an hour of summer time
    "Africa/Casablanca",  # summer time suspended for Ramadan
    "Pacific/Apia",  # skipped a whole day in 2011
    "America/Havana",  # the clock changes at midnight
]
clock_times = st.builds(time, st.integers(0, 23), st.sampled_from([0, 15, 30, 45]))


@st.composite
def quiet_hours(draw):
    start = draw(clock_times)
    end = draw(clock_times.filter(lambda clock: clock != start))
    days = draw(st.sets(st.integers(0, 6), min_size=1))
    return QuietHours(start, end, frozenset(days))


@st.composite
def moments(draw):
    """Around the changes of the clock, and anywhere."""
    near = draw(
        st.sampled_from(
            ["2026-03-29", "2026-10-25", "2026-03-08", "2026-11-01", "2011-12-30", "2026-02-15", "2026-04-05"]
        )
    )
    minutes = draw(st.integers(-3 * 1440, 3 * 1440))
    return at(near) + timedelta(minutes=minutes, seconds=draw(st.sampled_from([0, 0, 1, 59])))


@given(moments(), st.sampled_from(ZONES), quiet_hours())
@settings(max_examples=250, deadline=None)
@example(at("2026-03-29T00:59:59"), "Europe/Berlin", QuietHours(time(22), time(2, 30)))
@example(at("2011-12-30T09:00:00"), "Pacific/Apia", QuietHours(time(22), time(8)))
def test_the_next_allowed_instant_is_the_one_found_by_waiting(moment, zone_name, quiet):
    """The oracle waits minute by minute; every edge there is lies on a minute."""
    zone = ZoneInfo(zone_name)
    waiting = moment
    while quiet.is_quiet(waiting.astimezone(zone)):
        waiting = waiting.replace(second=0) + MINUTE
    assert next_allowed_instant(moment, zone, quiet) == waiting


def test_without_quiet_hours_now_is_fine():
    moment = at("2026-06-10T03:00:00")
    assert next_allowed_instant(moment, BERLIN, None) == moment


def test_quiet_hours_that_make_no_sense_are_refused():
    with pytest.raises(TimingError, match="Allow at least one weekday"):
        QuietHours(weekdays=frozenset())
    with pytest.raises(TimingError, match="leave them out"):
        QuietHours(time(8), time(8))
    with pytest.raises(TimingError, match="both a start and an end"):
        QuietHours(time(8))
    with pytest.raises(ValueError, match="no time zone"):
        next_allowed_instant(datetime(2026, 1, 1), UTC, NIGHT)  # noqa: DTZ001 - the point of the test


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Europe/Berlin", "Europe/Berlin"),
        (" Asia/Tokyo ", "Asia/Tokyo"),
        ("", "UTC"),
        ("Mars/Olympus", "UTC"),
        ("../../etc/passwd", "UTC"),
        ("x" * 5000, "UTC"),
        ("\x00", "UTC"),
    ],
)
def test_a_zone_nobody_knows_is_utc(name, expected):
    assert customer_zone(name).key == expected
    assert customer_zone("", default="America/Lima").key == "America/Lima"


def test_a_strategy_of_ones_own_is_loaded_by_its_module_and_used_by_its_name(tmp_path, monkeypatch):
    module = tmp_path / "paydays_of_ours.py"
    module.write_text(
        "from datetime import timedelta\n"
        "from retries.timing import register_strategy\n"
        "class Payday:\n"
        "    def delay(self, attempt_number, seed):\n"
        "        return timedelta(days=7 * attempt_number)\n"
        "register_strategy('payday', lambda parameters: Payday())\n",
        encoding="utf-8",
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(timing, "_BUILDERS", dict(timing._BUILDERS))
    monkeypatch.setattr("django.conf.settings.RETRY_STRATEGY_MODULES", ["paydays_of_ours"])
    apps.get_app_config("retries").load_strategies()
    assert "payday" in strategy_names()
    document = preset_document("standard")
    document["categories"]["SOFT_DECLINE"] = {"strategy": "payday", "max_attempts": 2}
    soft = parse_policy(document).strategy_for("standard", Category.SOFT_DECLINE)
    assert [soft.delay(number, "") for number in (1, 2, 3)] == [timedelta(days=7), timedelta(days=14), None]
