"""Amounts as Stripe counts them, and fields that cannot be."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.base import (
    BodyMalformed,
    EventKind,
    Ignored,
    PaymentEvent,
)
from providers.stripe.amounts import from_stripe, to_stripe
from recovery_site.common.errors import InvalidInput
from tests.contract.stripe_fixtures import FIXTURES, changed, load, read

ALL_FIXTURES = sorted(path.relative_to(FIXTURES).as_posix() for path in FIXTURES.rglob("*.json"))


@pytest.mark.parametrize(
    ("currency", "at_stripe", "iso"),
    [
        ("USD", 1234, 1234),
        ("JPY", 500, 500),
        ("KWD", 5120, 5120),
        ("ISK", 500, 5),
        ("UGX", 100_000, 1000),
        ("MGA", 5, 500),
        ("HUF", 1045, 1045),
        ("CLP", 7, 7),
    ],
)
def test_amounts_convert_both_ways(currency: str, at_stripe: int, iso: int) -> None:
    assert from_stripe(at_stripe, currency) == iso
    assert to_stripe(iso, currency) == at_stripe


def test_isk_of_a_webhook_is_whole_krona() -> None:
    event = load("2025-10-29.clover/charge.succeeded.json")
    event["data"]["object"].update(amount=500, amount_captured=500, currency="isk")
    meaning = read(event)
    assert isinstance(meaning, PaymentEvent)
    assert meaning.payment is not None
    assert (meaning.payment.amount_minor, meaning.payment.captured_minor, meaning.payment.currency) == (
        5,
        5,
        "ISK",
    )


def test_a_fraction_that_the_currency_does_not_have_is_refused() -> None:
    event = load("2025-10-29.clover/charge.succeeded.json")
    event["data"]["object"].update(amount=501, currency="ugx")
    with pytest.raises(InvalidInput, match=r"charge\.amount .*divisible by 100"):
        read(event)


@pytest.mark.parametrize(("amount", "currency"), [(5124, "KWD"), (5, "MGA")])
def test_what_stripe_cannot_charge_is_refused_before_sending(amount: int, currency: str) -> None:
    with pytest.raises(InvalidInput):
        to_stripe(amount, currency)


@pytest.mark.parametrize(
    ("name", "path", "value", "field"),
    [
        ("2022-11-15/charge.failed.json", "amount", -1, "charge.amount"),
        ("2022-11-15/charge.failed.json", "amount", 10**15 + 1, "charge.amount"),
        ("2022-11-15/charge.failed.json", "amount", 49.0, "charge.amount"),
        ("2022-11-15/charge.failed.json", "amount", "4900", "charge.amount"),
        ("2022-11-15/charge.failed.json", "amount", True, "charge.amount"),
        ("2022-11-15/charge.failed.json", "amount", None, "charge.amount"),
        ("2022-11-15/charge.failed.json", "currency", "zzz", "charge.currency"),
        ("2022-11-15/charge.failed.json", "currency", None, "charge.currency"),
        ("2022-11-15/charge.failed.json", "currency", 978, "charge.currency"),
        ("2022-11-15/charge.failed.json", "customer", 17, "charge.customer"),
        ("2022-11-15/charge.failed.json", "customer", "cus\x00northwind", "charge.customer"),
        ("2022-11-15/charge.failed.json", "payment_intent", "p" * 201, "charge.payment_intent"),
        ("2022-11-15/charge.failed.json", "outcome", 3, "charge.outcome"),
        ("2022-11-15/charge.failed.json", "created", -5, "charge.created"),
        ("2022-11-15/charge.failed.json", "created", 10**12, "charge.created"),
        ("2022-11-15/charge.failed.json", "failure_message", {}, "charge.failure_message"),
        ("2022-11-15/invoice.payment_failed.json", "amount_due", -100, "invoice.amount_due"),
        ("2022-11-15/invoice.payment_failed.json", "amount_remaining", "x", "invoice.amount_remaining"),
        ("2022-11-15/invoice.payment_failed.json", "attempt_count", -1, "invoice.attempt_count"),
        (
            "2022-11-15/invoice.payment_failed.json",
            "next_payment_attempt",
            "soon",
            "invoice.next_payment_attempt",
        ),
        ("2022-11-15/invoice.payment_failed.json", "lines", {"data": [1]}, "invoice.lines.data"),
        ("2022-11-15/invoice.payment_failed.json", "id", None, "invoice.id"),
        ("2022-11-15/payment_intent.payment_failed.json", "amount", -1, "payment_intent.amount"),
        ("2025-10-29.clover/refund.created.json", "amount", -1, "refund.amount"),
        ("2025-10-29.clover/charge.dispute.created.json", "amount", -1, "charge.amount"),
        (
            "2025-10-29.clover/invoice_payment.paid.json",
            "amount_requested",
            -1,
            "invoice_payment.amount_requested",
        ),
    ],
)
def test_an_impossible_field_is_named(name: str, path: str, value: object, field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        read(changed(name, path, value))
    assert caught.value.data["field"] == field
    assert field in caught.value.message


def test_an_event_without_a_time_is_refused() -> None:
    event = load("2022-11-15/charge.failed.json")
    del event["created"]
    with pytest.raises(InvalidInput, match=r"event\.created is missing"):
        read(event)


@pytest.mark.parametrize(
    ("name", "thing"),
    [
        ("2022-11-15/charge.failed.json", "charge"),
        ("2022-11-15/payment_intent.succeeded.json", "payment_intent"),
    ],
)
def test_a_payment_without_an_id_is_refused(name: str, thing: str) -> None:
    with pytest.raises(InvalidInput, match=rf"{thing}\.id is missing"):
        read(changed(name, "id", None))


def test_a_failure_without_a_customer_is_told_without_one() -> None:
    meaning = read(changed("2022-11-15/charge.failed.json", "customer", None))
    assert isinstance(meaning, PaymentEvent)
    assert (meaning.kind, meaning.customer) == (EventKind.PAYMENT_FAILED, None)


def test_text_that_cannot_be_stored_is_cleaned_and_cut() -> None:
    event = changed("2022-11-15/charge.failed.json", "failure_message", "bad\x00 \ud800text" + "x" * 600)
    meaning = read(event)
    assert isinstance(meaning, PaymentEvent)
    assert meaning.payment is not None
    assert meaning.payment.decline is not None
    assert meaning.payment.decline.message == "bad text" + "x" * 492


def test_empty_objects_may_arrive_as_empty_lists() -> None:
    meaning = read(changed("2022-11-15/charge.failed.json", "metadata", []))
    assert isinstance(meaning, PaymentEvent)


_JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(max_size=300),
    st.just([]),
    st.just({}),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.sampled_from(["id", "data", "object", "card"]), st.integers(), max_size=2),
)


def _leaves(node: object, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """The path of every value inside, containers included."""
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [found for key, child in children for found in [(*path, key), *_leaves(child, (*path, key))]]


@given(data=st.data())
def test_whatever_stands_in_a_field_is_either_understood_or_refused_by_name(data: st.DataObject) -> None:
    event = load(data.draw(st.sampled_from(ALL_FIXTURES)))
    for _ in range(data.draw(st.integers(1, 3))):
        *parents, last = data.draw(st.sampled_from(_leaves(event)))
        node: Any = event
        for parent in parents:
            node = node[parent]
        node[last] = data.draw(_JUNK)
    try:
        meaning = read(event)
    except (BodyMalformed, InvalidInput):
        return
    assert isinstance(meaning, PaymentEvent | Ignored)
    for amount in (meaning.payment, meaning.invoice, meaning.dispute) if isinstance(meaning, PaymentEvent) else ():
        assert amount is None or 0 <= amount.amount_minor <= 10**15
