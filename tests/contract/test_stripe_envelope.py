"""Stripe's webhooks before their meaning: signature, envelope, order."""

import json

import pytest
import stripe

from providers import registry
from providers.base import (
    BodyMalformed,
    Ignored,
    InboundRequest,
    SignatureInvalid,
)
from providers.stripe.dialect import StripeDialect
from tests.contract.stripe_fixtures import DIALECT, FIXTURES, load, read

SECRET = "whsec_dialect"


def signed(body: str, at: int, secret: str = SECRET) -> InboundRequest:
    header = stripe.WebhookSignature.generate_signature_header(body, secret, at)
    return InboundRequest(body.encode(), {"stripe-signature": header})


@pytest.mark.parametrize("age", [-300, 0, 300])
def test_signature_within_the_tolerance_is_accepted_whatever_the_real_clock_says(age: int) -> None:
    DIALECT.verify(signed("{}", 1_000_000), [SECRET], now=1_000_000 + age, tolerance_seconds=300)


@pytest.mark.parametrize("age", [-301, -300.5, 300.5, 301, 10**9, float("nan"), float("inf")])
def test_stale_and_future_signatures_are_refused(age: float) -> None:
    with pytest.raises(SignatureInvalid, match="300 seconds"):
        DIALECT.verify(signed("{}", 1_000_000), [SECRET], now=1_000_000 + age, tolerance_seconds=300)


def test_current_and_previous_secret_are_both_accepted() -> None:
    DIALECT.verify(signed("{}", 5000, "whsec_old"), ["whsec_new", "whsec_old"], now=5000, tolerance_seconds=300)


@pytest.mark.parametrize("secrets", [[], [""], ["whsec_other"], [" "]])
def test_no_fitting_secret_is_refused(secrets: list[str]) -> None:
    with pytest.raises(SignatureInvalid):
        DIALECT.verify(signed("{}", 5000), secrets, now=5000, tolerance_seconds=300)


def test_one_changed_byte_is_refused() -> None:
    request = signed('{"amount": 100}', 5000)
    forged = InboundRequest(request.body.replace(b"100", b"101"), request.headers)
    with pytest.raises(SignatureInvalid):
        DIALECT.verify(forged, [SECRET], now=5000, tolerance_seconds=300)


@pytest.mark.parametrize(
    ("body", "header"),
    [
        (b"{}", ""),
        (b"{}", "t=5000,v1=\u00e9\u00e9"),
        (b"{}", "t=5000"),
        (b"{}", "t=" + "9" * 5000 + ",v1=aa"),
        (b"{}", "t=-5000,v1=aa"),
        (b"\xff\xfe{}", "t=5000,v1=aa"),
    ],
)
def test_hostile_headers_and_bodies_are_refused_as_a_bad_signature(body: bytes, header: str) -> None:
    with pytest.raises(SignatureInvalid):
        DIALECT.verify(InboundRequest(body, {"stripe-signature": header}), [SECRET], now=5000, tolerance_seconds=300)


def test_a_missing_header_is_refused() -> None:
    with pytest.raises(SignatureInvalid):
        DIALECT.verify(InboundRequest(b"{}", {}), [SECRET], now=5000, tolerance_seconds=300)


def test_the_weak_test_scheme_is_never_accepted() -> None:
    request = signed("{}", 5000)
    weak = request.headers["stripe-signature"].replace("v1=", "v0=")
    with pytest.raises(SignatureInvalid):
        DIALECT.verify(InboundRequest(b"{}", {"stripe-signature": weak}), [SECRET], now=5000, tolerance_seconds=300)


_ENVELOPE = {"id": "evt_1", "object": "event", "type": "charge.failed", "data": {"object": {"id": "ch_1"}}}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff\xfe",
        b"not json",
        b"[]",
        b"null",
        b'"evt_1"',
        b"[" * 100_000,
        b'{"id": "evt_1", "type": "x", "data": {"object": {"amount": NaN}}}',
        b'{"id": "evt_1", "type": "x", "data": {"object": {"amount": Infinity}}}',
        b'{"id": "evt_1", "type": "x", "data": {"object": {"amount": ' + b"9" * 5000 + b"}}}",
        json.dumps({**_ENVELOPE, "id": ""}).encode(),
        json.dumps({**_ENVELOPE, "id": 7}).encode(),
        json.dumps({**_ENVELOPE, "id": "e" * 201}).encode(),
        json.dumps({**_ENVELOPE, "id": "evt\x00"}).encode(),
        json.dumps({**_ENVELOPE, "type": None}).encode(),
        json.dumps({**_ENVELOPE, "type": "t" * 121}).encode(),
        json.dumps({**_ENVELOPE, "data": None}).encode(),
        json.dumps({**_ENVELOPE, "data": {"object": []}}).encode(),
        json.dumps({**_ENVELOPE, "object": "charge"}).encode(),
        '{"id": "evt_1", "type": "x", "data": {"object": {}}}'.encode("utf-16"),
    ],
)
def test_what_is_no_stripe_event_is_malformed(body: bytes) -> None:
    with pytest.raises(BodyMalformed):
        DIALECT.split(InboundRequest(body, {}))


def test_one_item_per_body_and_a_repeated_key_is_harmless() -> None:
    body = b'{"id": "evt_0", "id": "evt_1", "type": "charge.failed", "data": {"object": {"id": "ch_1"}}}'
    (item,) = DIALECT.split(InboundRequest(body, {}))
    assert (item.event_id, item.event_type, item.order_key) == ("evt_1", "charge.failed", "ch_1")
    assert item.payload["data"]["object"] == {"id": "ch_1"}


@pytest.mark.parametrize(
    ("name", "order_key"),
    [
        ("2022-11-15/invoice.payment_failed.json", "in_renewal_1"),
        ("2022-11-15/charge.failed.json", "in_renewal_1"),
        ("2022-11-15/payment_intent.payment_failed.json", "in_renewal_1"),
        ("2025-10-29.clover/charge.failed.json", "pi_renewal_2"),
        ("2025-10-29.clover/payment_intent.payment_failed.json", "pi_renewal_2"),
        ("2025-10-29.clover/invoice_payment.paid.json", "in_renewal_2"),
        ("2025-10-29.clover/refund.created.json", "pi_renewal_1"),
        ("2025-10-29.clover/charge.dispute.created.json", "pi_renewal_2"),
        ("2025-10-29.clover/payment_method.attached.json", "cus_northwind"),
        ("2025-10-29.clover/customer.updated.json", "cus_northwind"),
        ("2025-10-29.clover/customer.subscription.deleted.json", "cus_northwind"),
        ("2025-10-29.clover/mandate.updated.json", "pm_bank_1"),
        ("thin_event.json", "mtr_1"),
    ],
)
def test_events_about_one_thing_share_an_order_key(name: str, order_key: str) -> None:
    (item,) = DIALECT.split(InboundRequest((FIXTURES / name).read_bytes(), {}))
    assert item.order_key == order_key


def test_an_event_about_nothing_in_particular_is_ordered_by_itself() -> None:
    event = {"id": "evt_9", "type": "balance.available", "data": {"object": {"object": "balance"}}}
    (item,) = DIALECT.split(InboundRequest(json.dumps(event).encode(), {}))
    assert item.order_key == "evt_9"


def test_a_thin_event_is_accepted_and_ignored() -> None:
    meaning = read(load("thin_event.json"))
    assert isinstance(meaning, Ignored)
    assert "thin" in meaning.reason


def test_an_unknown_type_is_ignored_with_a_reason() -> None:
    meaning = read({**_ENVELOPE, "type": "issuing_card.created"})
    assert meaning == Ignored("This event type carries nothing that a payment recovery needs.")


def test_the_registry_hands_out_this_dialect() -> None:
    assert isinstance(registry.dialect("stripe"), StripeDialect)
