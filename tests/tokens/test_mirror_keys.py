"""Names of keys: readable, and safe for whatever a provider calls its customers."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokens.mirror.keys import customer_keys, key_part

NASTY = ["{", "}", "a{b}c", ":", "%", "#", "a:b", "%7B", "cus 1", "\n", "\x00", "ünïcode", "客户", "🙂", "\ud800", ""]


def test_the_three_keys_of_an_ordinary_customer():
    keys = customer_keys("con_1", "cus_Ann-7")
    assert keys.status == "customer:{con_1:cus_Ann-7}:status"
    assert keys.tokens == "customer:{con_1:cus_Ann-7}:tokens"
    assert keys.budget == "customer:{con_1:cus_Ann-7}:budget"


@pytest.mark.parametrize("customer", [*NASTY, "x" * 500, "{" * 500, "客" * 500])
def test_any_name_gives_one_hash_tag_and_a_short_ascii_key(customer: str):
    key = customer_keys("con_1", customer).budget
    assert re.fullmatch(r"customer:\{con_1:[^{}:\s]*\}:budget", key)
    assert key.isascii()
    assert len(key) <= 200


def test_names_that_look_like_encodings_of_each_other_stay_apart():
    names = [*NASTY, "x" * 500, "x" * 499, "%2F", "/", key_part("x" * 500), "#" + "0" * 64]
    assert len({customer_keys("con_1", name).status for name in names}) == len(names)
    assert customer_keys("con_1", "a").status != customer_keys("con_2", "a").status
    assert customer_keys("a", "b:c").status != customer_keys("a:b", "c").status


@given(st.lists(st.text(max_size=300), min_size=2, max_size=10, unique=True))
def test_no_two_customers_share_a_key(names: list[str]):
    keys = {customer_keys("con_1", name).budget for name in names}
    assert len(keys) == len(names)
    assert all(key.count("{") == key.count("}") == 1 for key in keys)
