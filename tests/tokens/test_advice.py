"""What the networks' answers demand: stop, wait, or nothing."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokens.advice import NO_EFFECT, advice_effect, code_of, load_advice
from tokens.networks import CARD_NETWORKS
from tokens.rules import RuleError

CATEGORY_1 = ("04", "07", "12", "14", "15", "41", "43", "46", "57")
REVOKED = ("R0", "R1", "R3")
OTHER_CARDS = ("amex", "discover", "diners", "jcb", "unionpay", "elo", "unknown")


@pytest.mark.parametrize("network", ["mastercard", "maestro", "unknown"])
@pytest.mark.parametrize("code", ["03", "21"])
def test_mastercard_stops_survive_a_new_expiry(network, code):
    effect = advice_effect(network, "51", code)
    assert (effect.stop, effect.wait, effect.revivable) == (True, None, False)
    assert effect.source.startswith("Mastercard merchant advice codes")


@pytest.mark.parametrize(
    ("code", "wait"),
    [
        ("02", timedelta(hours=72)),
        ("24", timedelta(hours=1)),
        ("25", timedelta(hours=24)),
        ("26", timedelta(days=2)),
        ("27", timedelta(days=4)),
        ("28", timedelta(days=6)),
        ("29", timedelta(days=8)),
        ("30", timedelta(days=10)),
    ],
)
def test_mastercard_waits(code, wait):
    effect = advice_effect("mastercard", "51", code)
    assert (effect.stop, effect.wait, effect.revivable) == (False, wait, True)


@pytest.mark.parametrize("network", ["visa", *OTHER_CARDS])
@pytest.mark.parametrize("code", CATEGORY_1)
def test_category_1_stops_the_card_until_it_is_renewed(network, code):
    effect = advice_effect(network, code, None)
    assert (effect.stop, effect.wait, effect.revivable) == (True, None, True)


@pytest.mark.parametrize("network", ["visa", *OTHER_CARDS])
@pytest.mark.parametrize("code", REVOKED)
def test_a_stop_by_the_cardholder_survives_a_new_expiry(network, code):
    effect = advice_effect(network, code, None)
    assert (effect.stop, effect.revivable) == (True, False)


def test_only_visa_says_so_itself_and_the_others_are_marked_as_caution():
    assert advice_effect("visa", "14", None).source.startswith("Visa Core Rules")
    for network in OTHER_CARDS:
        assert advice_effect(network, "14", None).source.startswith("Own caution")


@pytest.mark.parametrize(
    ("network", "network_code", "advice_code"),
    [
        ("visa", "51", None),
        ("visa", "05", "03"),  # advice codes are Mastercard's
        ("amex", "51", "21"),
        ("mastercard", "14", None),  # Mastercard's answer is the advice code
        ("mastercard", "51", "01"),
        ("mastercard", "51", "43"),
        ("ach", "R01", None),
        ("ach", "R0", None),
        ("sepa", "AM04", None),
        ("visa", None, None),
        ("", "", ""),
    ],
)
def test_everything_else_demands_nothing(network, network_code, advice_code):
    assert advice_effect(network, network_code, advice_code) == NO_EFFECT


def test_the_strictest_of_two_demands_wins():
    assert advice_effect("unknown", "14", "24").stop
    assert advice_effect("unknown", "14", "03").revivable is False
    assert advice_effect("unknown", "R1", "02").revivable is False


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("03 : Do not try again", "03"),
        ("3", "03"),
        (" 21 ", "21"),
        ("r1", "R1"),
        ("51 : Insufficient funds", "51"),
        ("", ""),
        (None, ""),
        (": x", ""),
    ],
)
def test_codes_are_read_as_providers_write_them(text, code):
    assert code_of(text) == code


@given(st.sampled_from([*CARD_NETWORKS, "ach", "nonsense"]), st.text(max_size=8), st.text(max_size=8))
def test_no_code_whatever_makes_it_fail(network, network_code, advice_code):
    effect = advice_effect(network, network_code, advice_code)
    assert not (effect.stop and effect.wait is not None)
    assert effect.revivable or effect.stop


GOOD = """
[[advice]]
networks = ["visa"]
network_codes = ["14"]
effect = "stop"
lasting = false
source = "s"
"""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"visa"', '"vsa"', "use some of visa"),
        ('"14"', "14", "write codes such as 03 or R1 as text"),
        ('"14"', '"3"', "write codes such as 03 or R1 as text"),
        ('"14"', '"14", "14"', "14 of visa is listed twice"),
        ('effect = "stop"', 'effect = "pause"', "use stop or wait"),
        ('effect = "stop"', 'effect = "wait"\nhours = 0', "hours must be at least 1"),
        ("lasting = false", "", "lasting is None; give it as bool"),
        ('network_codes = ["14"]', "", "give either network_codes or advice_codes"),
        ('source = "s"', 'source = "s"\nnote = "x"', "unknown field 'note'"),
    ],
)
def test_mistakes_in_the_file_are_named(tmp_path, old, new, message):
    path = tmp_path / "rules.toml"
    path.write_text("format = 1\n" + GOOD.replace(old, new))
    with pytest.raises(RuleError, match=message):
        load_advice(path)
