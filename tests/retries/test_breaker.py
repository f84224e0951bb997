"""When a provider counts as down: pure, and whatever happens it comes back."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from retries.breaker import COOL_OFF, FORGET_AFTER, LONGEST_COOL_OFF, SHUT_AT, Health, Trouble, after_trouble, cool_off

NOW = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)


def after(*troubles: Trouble, gap: timedelta = timedelta()) -> Health:
    health = Health()
    for number, trouble in enumerate(troubles):
        health = after_trouble(health, trouble, NOW + number * gap, probe=False)
    return health


def test_three_refused_connections_are_proof_and_two_are_not() -> None:
    assert not after(Trouble.NO_CONNECTION, Trouble.NO_CONNECTION).on_trial
    shut = after(*[Trouble.NO_CONNECTION] * 3)
    assert (shut.is_shut(NOW), shut.shut_until, shut.strained_since) == (True, NOW + COOL_OFF, NOW)


def test_lost_answers_need_more() -> None:
    assert not after(*[Trouble.NO_ANSWER] * (SHUT_AT - 1)).on_trial
    assert after(*[Trouble.NO_ANSWER] * SHUT_AT).on_trial


def test_troubles_of_another_hour_say_nothing_about_now() -> None:
    spread = after(*[Trouble.NO_CONNECTION] * 3, gap=FORGET_AFTER + timedelta(seconds=1))
    assert (spread.on_trial, spread.strain) == (False, Trouble.NO_CONNECTION)


def test_only_the_probe_keeps_a_provider_shut_for_longer() -> None:
    shut = after(*[Trouble.NO_CONNECTION] * 3)
    assert after_trouble(shut, Trouble.NO_CONNECTION, NOW + timedelta(seconds=5), probe=False) == shut
    again = after_trouble(shut, Trouble.NO_CONNECTION, NOW + timedelta(minutes=1), probe=True)
    assert (again.shut_times, again.shut_until) == (2, NOW + timedelta(minutes=2))


def test_the_cool_off_doubles_up_to_a_quarter_of_an_hour() -> None:
    assert [cool_off(times).total_seconds() for times in (1, 2, 3, 4, 5, 6, 60)] == [30, 60, 120, 240, 480, 900, 900]


@given(st.lists(st.tuples(st.sampled_from(Trouble), st.booleans(), st.integers(0, 7200)), max_size=40))
def test_a_provider_is_never_shut_for_longer_than_the_longest_cool_off(
    steps: list[tuple[Trouble, bool, int]],
) -> None:
    health, at = Health(), NOW
    for trouble, probe, seconds in steps:
        at += timedelta(seconds=seconds)
        health = after_trouble(health, trouble, at, probe=probe)
        assert health.shut_until is None or health.shut_until <= at + LONGEST_COOL_OFF
        assert 0 <= health.strain <= SHUT_AT
        assert health.on_trial == (health.shut_until is not None)
