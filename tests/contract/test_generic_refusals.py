"""What the generic format refuses: the field by JSON pointer, what to send instead, never the value."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.base import BodyMalformed, Ignored, InboundRequest, PaymentEvent
from providers.generic.dialect import KINDS
from tests.contract.generic_bodies import DIALECT, changed, event, fixture, refusal

AMOUNT = "is not valid: send integer minor units or a decimal string, not negative."


@pytest.mark.parametrize("value", [19.0, 19.99, -1, True, 10**15 + 1, "-1", "1e3", "1,00", "49.00\n", [], {}])
def test_an_amount_is_an_integer_or_a_decimal_string(value: object) -> None:
    assert refusal(changed(fixture("payment.failed"), "payment/amount", value)) == f"/payment/amount {AMOUNT}"


@pytest.mark.parametrize(
    ("currency", "value", "minor"),
    [
        ("JPY", "1200", 1200),
        ("USD", "12", 1200),
        ("USD", "0.07", 7),
        ("KWD", "1.234", 1234),
        ("USD", 1200, 1200),
    ],
)
def test_decimal_strings_are_exact_in_every_currency(currency: str, value: object, minor: int) -> None:
    body = fixture("dispute.updated")
    found = event(changed(changed(body, "dispute/currency", currency), "dispute/amount", value)).dispute
    assert found
    assert (found.amount_minor, found.currency) == (minor, currency)


@pytest.mark.parametrize(
    ("currency", "value", "decimals"), [("JPY", "1.5", 0), ("USD", "0.001", 2), ("KWD", "0.0001", 3)]
)
def test_more_decimals_than_the_currency_has_are_refused(currency: str, value: str, decimals: int) -> None:
    body = changed(changed(fixture("dispute.updated"), "dispute/currency", currency), "dispute/amount", value)
    assert refusal(body) == (
        f"/dispute/amount is not an amount in {currency}: send integer minor units or a decimal string"
        f" with at most {decimals} decimals."
    )


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("customer/id", 7, "/customer/id is not valid: send an id as text of 1 to 200 characters"),
        ("customer/id", "x" * 201, "/customer/id is not valid: "),
        ("customer/id", " padded", "/customer/id is not valid: "),
        ("customer/country", "DEU", "/customer/country is not valid: send an ISO 3166"),
        ("customer/timezone", "../etc/passwd", "/customer/timezone is not valid: send an IANA time zone"),
        ("customer", [], "/customer is not valid: send who pays"),
        ("payment/currency", "EURO", "/payment/currency is not valid: send an ISO 4217"),
        ("payment/currency", "XQZ", "/payment/currency is not an ISO 4217 currency code: send three letters"),
        ("payment/currency", "USD", "/payment/currency and /invoice/currency differ"),
        ("payment/invoice_id", "in_205", "/payment/invoice_id and /invoice/id differ"),
        ("payment/ammount", 5, "/payment/ammount is not a known field: correct its name"),
        ("payment_method/card/last4", "42424", "/payment_method/card/last4 is not valid: send the last four"),
        ("payment_method/card/exp_month", 13, "/payment_method/card/exp_month is not valid: send an integer"),
        (
            "payment_method/card/exp_month",
            11.0,
            "/payment_method/card/exp_month is not valid: send an integer",
        ),
        ("payment_method/is_default", "yes", "/payment_method/is_default is not valid: send true or false"),
        ("error/code", "", "/error/code is missing: send your processor's decline code"),
        ("occurred_at", 1772357400, "/occurred_at is not valid: send a time with its offset"),
        ("occurred_at", "2026-03-01T09:30:00", "/occurred_at is not valid: send a time with its offset"),
        ("occurred_at", "2026-02-30T09:30:00Z", "/occurred_at is not a date that exists"),
        ("invoice/due_at", "2026-13-01T00:00:00Z", "/invoice/due_at is not a date that exists"),
        ("type", 5, "/type is missing: send one of the event types"),
    ],
)
def test_a_refusal_names_the_field_and_says_what_to_send(path: str, value: object, message: str) -> None:
    assert refusal(changed(fixture("payment.failed"), path, value)).startswith(message)


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("payment.failed", "customer"),
        ("payment.failed", "payment"),
        ("payment.failed", "error"),
        ("payment.failed", "occurred_at"),
        ("payment.failed", "type"),
        ("payment.failed", "invoice/id"),
        ("refund.updated", "refund"),
        ("refund.updated", "refund/status"),
        ("dispute.updated", "dispute"),
        ("payment_method.updated", "customer"),
        ("payment_method.updated", "payment_method/token"),
        ("subscription.ended", "subscription_id"),
    ],
)
def test_a_missing_part_is_named(name: str, part: str) -> None:
    assert refusal(changed(fixture(name), part, drop=True)).startswith(f"/{part} is missing: send ")


@pytest.mark.parametrize(
    ("event_type", "parts"),
    [
        ("payment.succeeded", {"customer", "payment"}),
        ("payment.pending", {"customer", "payment"}),
        ("invoice.failed", {"customer", "invoice"}),
        ("invoice.paid", {"customer", "invoice"}),
        ("invoice.updated", {"customer", "invoice"}),
        ("invoice.voided", {"invoice"}),
        ("invoice.uncollectible", {"invoice"}),
        ("payment_method.removed", {"payment_method"}),
    ],
)
def test_every_other_type_needs_exactly_its_parts(event_type: str, parts: set[str]) -> None:
    whole = fixture("payment.failed")
    body = {"type": event_type, "occurred_at": whole["occurred_at"]} | {part: whole[part] for part in parts}
    assert event(body).kind is KINDS[event_type]
    for part in parts:
        assert refusal(changed(body, part, drop=True)).startswith(f"/{part} is missing: ")


def test_a_refund_or_dispute_must_say_what_it_is_about() -> None:
    for name, part, ids in (
        ("refund.updated", "refund", ("charge_id", "payment_id", "reference")),
        ("dispute.updated", "dispute", ("charge_id", "payment_id")),
    ):
        body = fixture(name)
        for field in ids:
            body = changed(body, f"{part}/{field}", drop=True)
        assert refusal(body).startswith(f"/{part} is incomplete: send the {part}")


@pytest.mark.parametrize("path", ["payment_method/token", "payment_method/card/fingerprint", "customer/id"])
def test_a_card_number_is_refused_and_never_repeated(path: str) -> None:
    message = refusal(changed(fixture("payment.failed"), path, "4111111111111111"))
    assert message.startswith(f"/{path} is not valid: ")
    assert "4111" not in message
    named = refusal(changed(fixture("payment.failed"), "payment/4111111111111111", 1))
    assert named == "/payment has a field with an unusable name: remove it."


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "The body is not JSON: send one JSON object in UTF-8."),
        (b"payment=1", "The body is not JSON: send one JSON object in UTF-8."),
        (b"[" * 100_000, "The body is not JSON: send one JSON object in UTF-8."),
        (b'{"a":' + b"1" * 5000 + b"}", "The body is not JSON: send one JSON object in UTF-8."),
        (b'{"type":"\xff"}', "The body is not UTF-8: send one JSON object in UTF-8."),
        (b"[]", "The body must be one JSON object."),
        (
            b'{"type":"a","type":"b"}',
            "The body has an object that names the same field twice: send each field once.",
        ),
        (b'{"a":NaN}', "The body contains NaN, which is not JSON: send a number, a string or null."),
        (b'{"a":"\\u0000"}', "The body has text with a NUL or half a surrogate pair: remove that character."),
        (b'{"\\ud800":1}', "The body has text with a NUL or half a surrogate pair: remove that character."),
        (b'{"a":' * 40 + b"1" + b"}" * 40, "The body is nested deeper than 20 levels: send a flatter one."),
        (b"{}", "/type is missing: send one of the event types listed in the documentation."),
    ],
)
def test_a_body_that_cannot_be_stored_is_refused(raw: bytes, message: str) -> None:
    assert refusal(raw) == message


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=10,
)
PATHS = st.sampled_from(
    [
        "occurred_at", "customer", "customer/id", "customer/timezone", "invoice", "invoice/amount",
        "invoice/currency", "invoice/due_at", "payment", "payment/amount", "payment/currency",
        "payment/occurred_at", "payment_method", "payment_method/card", "payment_method/card/exp_year",
        "error", "error/code", "metadata", "extra",
    ]
)  # fmt: skip


@given(path=PATHS, value=JSON)
def test_whatever_a_field_holds_the_answer_is_an_event_or_a_refusal(path: str, value: object) -> None:
    raw = json.dumps(changed(fixture("payment.failed"), path, value)).encode()
    try:
        items = DIALECT.split(InboundRequest(raw, {"webhook-id": "evt_1"}))
    except BodyMalformed:
        return
    parsed = DIALECT.parse(items[0])
    assert isinstance(parsed, PaymentEvent)
    assert parsed.payment is not None
    assert 0 <= parsed.payment.amount_minor <= 10**15


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_refused_or_ignored(raw: bytes) -> None:
    try:
        (item,) = DIALECT.split(InboundRequest(raw, {"webhook-id": "evt_1"}))
    except BodyMalformed:
        return
    assert isinstance(DIALECT.parse(item), Ignored)
