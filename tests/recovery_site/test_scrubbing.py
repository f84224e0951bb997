"""Card numbers and secrets go, everything else stays exactly as it was."""

import json
from enum import StrEnum

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recovery_site.common.scrubbing import (
    FILTERED,
    MAX_DEPTH,
    is_secret_name,
    passes_luhn,
    scrub,
    scrub_text,
)

VISA = "4242424242424242"
AMEX = "378282246310005"
INSTANT_MS = 1700000000004  # a time in milliseconds that happens to pass Luhn


def luhn_number(body: str) -> str:
    return next(body + digit for digit in "0123456789" if passes_luhn(body + digit))


card_numbers = st.text("0123456789", min_size=12, max_size=18).map(luhn_number)
harmless_text = st.text(
    st.characters(codec="utf-8", exclude_categories=("Nd", "Cs"), exclude_characters=":=/@"), max_size=40
)
harmless_names = st.sampled_from(["id", "object", "amount", "note", "order_number", "lines", "Metadata", "x-y"])
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**11), 10**11) | st.floats(allow_nan=False) | harmless_text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(harmless_names, inner, max_size=4),
    max_leaves=20,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"card {VISA} declined", f"card {FILTERED} declined"),
        ("4242 4242 4242 4242", FILTERED),
        ("4242-4242-4242-4242", FILTERED),
        ("3782 822463 10005", FILTERED),
        (f"pan={AMEX};", f"pan={FILTERED};"),
        (f"amount 12 {VISA} 2024", f"amount 12 {FILTERED} 2024"),
        (f"2024 4242 4242 4242 4242 and {AMEX}.", f"2024 {FILTERED} and {FILTERED}."),
        (f'{{"number":"{VISA}"}}', f'{{"number":"{FILTERED}"}}'),
        (f"{VISA}/12/27", f"{FILTERED}/12/27"),
        ("Authorization: Bearer abc.def-123", f"Authorization: Bearer {FILTERED}"),
        ("basic dXNlcjpwYXNz", f"basic {FILTERED}"),
        ("api_key=live_9f8 next", f"api_key={FILTERED} next"),
        ('{"cvc":"123","exp":"12"}', f'{{"cvc":"{FILTERED}","exp":"12"}}'),
        ("password: hunter2", f"password: {FILTERED}"),
        ("stripe said sk_live_51Habc no", f"stripe said {FILTERED} no"),
        ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", FILTERED),
        ("redis://:s3cret@10.0.0.1:6379/0", f"redis://:{FILTERED}@10.0.0.1:6379/0"),
        ("postgresql://me:pa55@db/x", f"postgresql://me:{FILTERED}@db/x"),
    ],
)
def test_text_loses_what_must_not_be_kept(text: str, expected: str) -> None:
    assert scrub_text(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "4242424242424241",  # fails Luhn
        "424242424242",  # 12 digits
        "42424242424242424242",  # 20 digits
        f"order-{VISA}",
        f"in_{VISA}",
        f"{VISA}-3",
        f"{VISA}.5",
        f"1.{VISA}",
        "550e8400-e29b-41d4-a716-446655440000",
        "2026-11-21T03:04:39.138000+00:00",
        "insufficient_funds",
        "https://recovery.example.com:8443/webhooks/stripe/",
        "panel=4 company: 7 secretary: Ann",
        "tok_1Nabc ch_3Nabc",
        "",
    ],
)
def test_text_that_is_no_card_stays_the_very_same_object(text: str) -> None:
    assert scrub_text(text) is text


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"number": VISA}, {"number": FILTERED}),
        ({"number": int(VISA)}, {"number": FILTERED}),
        ({"number": "4242424242424241"}, {"number": FILTERED}),
        ({"number": "4242 4242 4242 4242"}, {"number": FILTERED}),
        ({"card": {"number": "****4242", "brand": "visa"}}, {"card": {"number": FILTERED, "brand": "visa"}}),
        ({"number": "x4242", "exp_month": 4}, {"number": FILTERED, "exp_month": 4}),
        (
            {"cvc": 123, "CVV2": "999", "cardCvc": "1"},
            {"cvc": FILTERED, "CVV2": FILTERED, "cardCvc": FILTERED},
        ),
        ({"Card-Number": "1"}, {"Card-Number": FILTERED}),
        ({"stripe_api_key": "k"}, {"stripe_api_key": FILTERED}),
        ({"client_secret": "pi_1_secret_2"}, {"client_secret": FILTERED}),
        ({"password": ["a", {"b": "c"}]}, {"password": [FILTERED, FILTERED]}),
        ({"secret": {"inner": "x"}}, {"secret": FILTERED}),
        ({"authorization": {"id": "A1", "cvc": "1"}}, {"authorization": {"id": "A1", "cvc": FILTERED}}),
        ({"authorization": "Bearer abcdef"}, {"authorization": FILTERED}),
        ({"note": f"paid with {VISA}"}, {"note": f"paid with {FILTERED}"}),
        ({"order_id": VISA}, {"order_id": FILTERED}),
        ({"order_id": int(VISA)}, {"order_id": FILTERED}),
        ({VISA: 1}, {FILTERED: 1}),
        ([VISA, (AMEX,)], [FILTERED, (FILTERED,)]),
        (VISA.encode(), FILTERED),
    ],
)
def test_structure_loses_secrets_by_name_and_by_checksum(value: object, expected: object) -> None:
    assert scrub(value) == expected


class Category(StrEnum):
    SOFT = "soft_decline"


@pytest.mark.parametrize(
    "value",
    [
        {"number": "INV-2026-0042", "total": 1999},  # an invoice's number is how people find it
        {"number": 42},
        {"order_number": "100200300400"},
        {"created_at": INSTANT_MS, "resource_version": INSTANT_MS},
        {"pspReference": luhn_number("883551121068132")},  # bare 16 digits are Adyen's own format
        {"connector_transaction_id": luhn_number("883551121068132"), "id_at_gateway": luhn_number("883551121068133")},
        {"network_transaction_id": luhn_number("70000000000000")},
        {"cvc_check": "pass", "number_of_retries": 3, "span": "x", "pinned": True, "tokenId": "tok_1"},
        {"cvc": None, "password": "", "pin": False},
        {"category": Category.SOFT, "share": 0.25},
        {"last4": "4242", "bin": "424242", "exp_month": 12, "fingerprint": "Xt5EWLLDS7FJjR1c"},
    ],
)
def test_structure_without_secrets_comes_back_equal(value: object) -> None:
    assert scrub(value) == value


def test_millisecond_number_under_any_other_name_counts_as_a_card() -> None:
    assert passes_luhn(str(INSTANT_MS))
    assert scrub({"reference": INSTANT_MS}) == {"reference": FILTERED}


def test_too_deep_nesting_is_cut_instead_of_failing() -> None:
    value: object = VISA
    for _ in range(5000):
        value = [value]
    text = repr(scrub(value))
    assert FILTERED in text
    assert VISA not in text
    assert text.count("[") == MAX_DEPTH + 2  # MAX_DEPTH + 1 lists around the word, which has a bracket itself


def test_secret_names_are_recognised_in_any_spelling() -> None:
    assert all(is_secret_name(name) for name in ("API-Key", "apiKey", "webhook_secret", "PASSWORD", "cvv"))
    assert not any(is_secret_name(name) for name in ("number", "token", "key", "secretary", "company"))


@given(st.text(max_size=60), card_numbers, st.text(max_size=60))
def test_no_card_number_standing_alone_survives(before: str, number: str, after: str) -> None:
    assert number not in scrub_text(f"{before} {number} {after}").replace(before, "").replace(after, "")


@given(st.integers(12, 18).flatmap(lambda size: st.tuples(st.just(size), st.integers(10 ** (size - 1), 10**size - 1))))
def test_no_card_number_survives_as_an_integer(sized: tuple[int, int]) -> None:
    number = int(luhn_number(str(sized[1])))
    assert scrub({"value": number}) == {"value": FILTERED}


@given(json_values)
def test_harmless_json_is_unchanged(value: object) -> None:
    assert json.dumps(scrub(value)) == json.dumps(value)


@given(
    st.recursive(
        st.text(max_size=30) | card_numbers | st.integers(),
        lambda inner: (
            st.lists(inner) | st.dictionaries(st.sampled_from(["number", "card", "cvc", "note", "secret"]), inner)
        ),
    )
)
def test_scrubbing_twice_changes_nothing_more(value: object) -> None:
    once = scrub(value)
    assert scrub(once) == once


@given(st.text("0123456789", min_size=1, max_size=18), st.integers(1, 9), st.data())
def test_luhn_catches_every_single_wrong_digit(body: str, change: int, data: st.DataObject) -> None:
    number = luhn_number(body)
    place = data.draw(st.integers(0, len(number) - 1))
    wrong = number[:place] + str((int(number[place]) + change) % 10) + number[place + 1 :]
    assert passes_luhn(number)
    assert not passes_luhn(wrong)
