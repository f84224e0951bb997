"""The simulator's model of issuers: deterministic, and calibrated to published recovery figures."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.decline_tables import decline_table, network_table
from providers.simulator import issuer, people

START = datetime(2026, 3, 5, 9, 30, tzinfo=UTC)
DAY = timedelta(days=1)
NEVER = ("hard", "fraud", "auth")


def token(profile: str, serial: int = 1, *, network: str = "visa", failed_at: datetime = START) -> str:
    return issuer.token_name(profile, network=network, funding="credit", failed_at=failed_at, serial=f"x{serial}")


def recovered_on(name: str, failed_at: datetime, days: Sequence[float]) -> float | None:
    """The day of the first approval on this schedule."""
    for day in days:
        if issuer.decide(name, failed_at + day * DAY, f"att_{day}").approved:
            return day
    return None


def book(size: int = 4000) -> list[tuple[str, str, datetime]]:
    """Failing cards in the published mix: profile, token, first failure."""
    rng = Random(7)
    cards = []
    for number in range(size):
        funding = "credit" if rng.random() < 0.61 else "debit"
        profile = people.trouble(rng, funding)
        failed_at = START + rng.random() * 30 * DAY
        name = issuer.token_name(profile, network="visa", funding=funding, failed_at=failed_at, serial=f"b{number}")
        cards.append((profile, name, failed_at))
    return cards


BOOK = book()


def recovery(days: Sequence[float], profile: str = "") -> float:
    chosen = [card for card in BOOK if not profile or card[0] == profile]
    return sum(recovered_on(name, at, days) is not None for _, name, at in chosen) / len(chosen)


# Calibration


def test_a_fixed_schedule_of_a_week_recovers_what_is_published() -> None:
    assert 0.47 <= recovery([1, 3, 5, 7]) <= 0.57


def test_no_schedule_of_retries_alone_beats_the_best_published() -> None:
    hourly = [hour / 24 for hour in range(6, 27 * 24, 6)]
    assert 0.57 <= recovery(hourly) <= 0.66


def test_nine_tenths_of_recoveries_come_within_ten_days() -> None:
    days = [1, 2, 3, 5, 7, 9, 11, 14, 18, 22, 27]
    found = [day for _, name, at in BOOK if (day := recovered_on(name, at, days)) is not None]
    assert 0.87 <= sum(day <= 10 for day in found) / len(found) <= 0.97


def test_patience_pays_for_low_funds_and_haste_for_outages() -> None:
    assert recovery([0.1, 0.2, 0.3], "funds") < 0.25 < 0.65 < recovery([3, 7, 10], "funds")
    assert recovery([10 / 1440, 30 / 1440, 2 / 24], "outage") > 0.9


def test_reasons_rank_as_they_do_in_the_field() -> None:
    days = [1, 3, 5, 7, 10, 14]
    assert recovery(days, "funds") > recovery(days, "flaky") > recovery(days, "generic") > 0.5
    assert recovery(days, "expired") > 0.3
    for profile in NEVER:
        assert recovery(days, profile) == 0


# Behaviour


@given(
    profile=st.sampled_from(sorted(issuer.PROFILES)),
    serial=st.integers(0, 10**6),
    hours=st.floats(0, 24 * 90),
    network=st.sampled_from(["visa", "mastercard", "amex", "discover"]),
)
def test_every_answer_is_deterministic_and_its_codes_are_known(
    profile: str, serial: int, hours: float, network: str
) -> None:
    name = token(profile, serial, network=network)
    moment = START + timedelta(hours=hours)
    verdict = issuer.decide(name, moment, "att_1")
    assert verdict == issuer.decide(name, moment, "att_1")
    assert issuer.card_of(name, moment).network == network
    if verdict.decline:
        assert verdict.decline.raw_code in decline_table("simulator")
        assert verdict.decline.network_code in {"", *(code for _, code, _ in issuer.PROFILES[profile].codes)}
        advice = verdict.decline.advice_code
        assert not advice or (network == "mastercard" and advice in network_table("mastercard_mac"))


def test_another_try_of_the_same_minute_is_another_draw() -> None:
    name = next(card for _, card, _ in BOOK if issuer.clears_at(card, START + 40 * DAY) and "generic" in card)
    clears = issuer.clears_at(name, START + 40 * DAY)
    assert clears
    answers = {issuer.decide(name, clears + timedelta(hours=1), f"att_{number}").approved for number in range(60)}
    assert answers == {True, False}


def test_before_the_first_failure_and_after_the_trouble_cards_work() -> None:
    cards = [(name, at) for profile, name, at in BOOK if profile == "funds"][:300]
    assert all(issuer.decide(name, at - timedelta(hours=1), "att_1").approved for name, at in cards)
    over = [(name, clears) for name, at in cards if (clears := issuer.clears_at(name, at))]
    assert len(over) > 200
    before = sum(issuer.decide(name, clears - timedelta(minutes=5), "a").approved for name, clears in over)
    after = sum(issuer.decide(name, clears + timedelta(minutes=5), "a").approved for name, clears in over)
    assert before / len(over) < 0.1
    assert after / len(over) > 0.8


def test_some_cards_fail_again_a_month_later_and_most_do_not() -> None:
    cards = [(name, at) for profile, name, at in BOOK if profile == "funds"]
    over = [(name, at) for name, at in cards if issuer.clears_at(name, at)]
    again = [name for name, at in over if not issuer.decide(name, at + issuer.CYCLE + timedelta(hours=1), "a").approved]
    assert 0.2 < len(again) / len(over) < 0.6


def test_waiting_as_long_as_mastercard_advises_pays() -> None:
    waits = {"24": 1 / 24, "25": 1, "26": 2, "27": 4, "28": 6, "29": 8}
    advised, paid = 0, 0
    for serial in range(1500):
        name = token("funds", serial, network="mastercard")
        decline = issuer.usual_decline(name, START)
        if decline.advice_code in waits:
            advised += 1
            moment = START + timedelta(days=waits[decline.advice_code], minutes=1)
            paid += issuer.decide(name, moment, "att_1").approved
    assert advised > 300
    assert paid / advised > 0.8


def test_an_expired_card_is_redated_when_it_works_again() -> None:
    name = next(name for serial in range(50) if issuer.clears_at(name := token("expired", serial), START))
    clears = issuer.clears_at(name, START)
    assert clears
    old, new = issuer.card_of(name, START), issuer.card_of(name, clears)
    assert (old.exp_month, old.exp_year, new.exp_month, new.exp_year) == (2, 2026, 2, 2030)
    assert (old.fingerprint, old.last4) == (new.fingerprint, new.last4)
    assert not issuer.decide(name, clears - timedelta(minutes=1), "a").approved


@pytest.mark.parametrize("name", ["tok_sim_funds", "tok_sim_funds__", "tok_sim_funds__anything at all"])
def test_any_suffix_works_and_its_trouble_returns(name: str) -> None:
    assert issuer.is_random(name)
    days = [START + hour * timedelta(hours=6) for hour in range(4 * 400)]
    approved = [issuer.decide(name, moment, "a").approved for moment in days]
    changes = sum(one != other for one, other in pairwise(approved))
    assert changes > 10


def test_names_that_are_no_profile_are_left_to_the_sandbox() -> None:
    for name in ("tok_sim_unknown__x", "tok_ok", "tok_sim_FUNDS", "xtok_sim_funds"):
        assert not issuer.is_random(name)
    with pytest.raises(ValueError, match="Unknown profile 'rich'; use one of funds, "):
        token("rich")
    with pytest.raises(ValueError, match="known profile"):
        issuer.usual_decline("tok_ok", START)
