"""The generic webhook format: signature over raw bytes, a published schema, facts out."""

import json
import re
from collections.abc import Iterator
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from standardwebhooks import Webhook

from providers.base import (
    BodyMalformed,
    CardFacts,
    CustomerFacts,
    DeclineFacts,
    DisputeFacts,
    DisputeStatus,
    EventKind,
    Ignored,
    InboundRequest,
    InvoiceFacts,
    MethodFacts,
    PaymentEvent,
    PaymentFacts,
    RefundFacts,
    RefundStatus,
    SignatureInvalid,
)
from providers.generic.dialect import KINDS
from providers.generic.schema import SCHEMA_PATH
from tests.contract.generic_bodies import DIALECT, FIXTURES, ROOT, changed, event, fixture, refusal, split

VECTORS = ROOT.parent / "shared" / "samples" / "vectors.json"
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER_SECRET = "whsec_dGhpcyBpcyBhbm90aGVyIHNlY3JldA=="
SENT_AT = 1_700_000_000


def signed(body: bytes, *, secret: str = SECRET, event_id: str = "evt_1", at: int = SENT_AT) -> InboundRequest:
    signature = Webhook(secret).sign(event_id, datetime.fromtimestamp(at, UTC), body.decode("latin-1"))
    return InboundRequest(body, {"webhook-id": event_id, "webhook-timestamp": str(at), "webhook-signature": signature})


def verify(request: InboundRequest, *secrets: str, now: float = SENT_AT, tolerance_seconds: int = 300) -> None:
    DIALECT.verify(request, secrets or [SECRET], now=now, tolerance_seconds=tolerance_seconds)


# Signature. Times are years away from the system clock, so these also show that it is not read.


def _vectors() -> Iterator[Any]:
    if VECTORS.exists():
        for vector in json.loads(VECTORS.read_text()):
            if vector["provider"] == "generic":
                yield pytest.param(vector, id=vector["id"])


@pytest.mark.skipif(not VECTORS.exists(), reason="the published signature vectors are not beside the checkout")
@pytest.mark.parametrize("vector", list(_vectors()))
def test_published_vectors_are_judged_as_published(vector: dict[str, Any]) -> None:
    request = InboundRequest(vector["payload"].encode(), vector["headers"])
    if vector["strict_valid"]:
        verify(request, vector["secret"], now=vector["now"])
    else:
        with pytest.raises(SignatureInvalid):
            verify(request, vector["secret"], now=vector["now"])


def test_a_known_answer_is_accepted() -> None:
    headers = {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }
    verify(InboundRequest(b'{"test": 2432232314}', headers), now=1614265330)


@pytest.mark.parametrize("off", [-300, -1, 0, 299.5, 300])
def test_a_timestamp_within_the_tolerance_is_accepted(off: float) -> None:
    verify(signed(b"{}"), now=SENT_AT + off)


@pytest.mark.parametrize("off", [-301, -300.5, 300.5, 86400])
def test_a_stale_or_future_timestamp_is_refused(off: float) -> None:
    with pytest.raises(SignatureInvalid, match="not within 300 seconds"):
        verify(signed(b"{}"), now=SENT_AT + off)


def test_the_tolerance_is_the_callers() -> None:
    verify(signed(b"{}"), now=SENT_AT + 4000, tolerance_seconds=4000)
    with pytest.raises(SignatureInvalid):
        verify(signed(b"{}"), now=SENT_AT + 11, tolerance_seconds=10)


def test_any_of_several_secrets_may_have_signed() -> None:
    verify(signed(b"{}", secret=OTHER_SECRET), SECRET, OTHER_SECRET)
    with pytest.raises(SignatureInvalid):
        verify(signed(b"{}", secret=OTHER_SECRET), SECRET)


def test_one_fitting_signature_among_others_is_enough() -> None:
    request = signed(b"{}")
    mixed = {
        **request.headers,
        "webhook-signature": f"v9,abc nonsense {request.headers['webhook-signature']}",
    }
    verify(InboundRequest(request.body, mixed))


def test_without_secrets_nothing_is_valid() -> None:
    with pytest.raises(SignatureInvalid):
        DIALECT.verify(signed(b"{}"), [], now=SENT_AT, tolerance_seconds=300)


@pytest.mark.parametrize("body", [b'{"a": 1}', b'{"a":1} ', b'{"a":2}', b""])
def test_another_byte_breaks_the_signature(body: bytes) -> None:
    request = signed(b'{"a":1}')
    verify(request)
    with pytest.raises(SignatureInvalid):
        verify(InboundRequest(body, request.headers))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("webhook-id", "evt_2"),
        ("webhook-id", ""),
        ("webhook-timestamp", str(SENT_AT + 1)),
        ("webhook-timestamp", f"{SENT_AT}.0"),
        ("webhook-timestamp", f" {SENT_AT}"),
        ("webhook-timestamp", "nan"),
        ("webhook-timestamp", "-1"),
        ("webhook-timestamp", "9" * 4400),
        ("webhook-timestamp", "".join(chr(0x660 + int(digit)) for digit in str(SENT_AT))),
        ("webhook-signature", ""),
        ("webhook-signature", "v1,"),
        ("webhook-signature", "v1"),
        ("webhook-signature", "v1,é"),
        ("webhook-signature", "\udcff"),
    ],
)
def test_hostile_headers_are_refused_never_raised(name: str, value: str) -> None:
    request = signed(b"{}")
    with pytest.raises(SignatureInvalid):
        verify(InboundRequest(request.body, {**request.headers, name: value}))


@pytest.mark.parametrize("name", ["webhook-id", "webhook-timestamp", "webhook-signature"])
def test_a_missing_header_is_refused(name: str) -> None:
    request = signed(b"{}")
    rest = {key: value for key, value in request.headers.items() if key != name}
    with pytest.raises(SignatureInvalid, match="Send the headers"):
        verify(InboundRequest(request.body, rest))


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_%%%", "é"])
def test_a_broken_secret_never_verifies(secret: str) -> None:
    with pytest.raises(SignatureInvalid):
        verify(signed(b"{}"), secret)


def test_a_body_that_is_no_text_is_refused() -> None:
    with pytest.raises(SignatureInvalid):
        verify(signed(b"\xff\xfe"))


# Meaning


def test_a_full_body_becomes_exactly_these_facts() -> None:
    at = datetime(2026, 3, 1, 9, 30, tzinfo=UTC)
    method = MethodFacts(
        token="pm_55",
        kind="card",
        card=CardFacts(
            fingerprint="fp_3f",
            network="amex",
            last4="0005",
            exp_month=11,
            exp_year=2028,
            funding="debit",
            country="AT",
            bin="374245",
            issuer="Erste Bank",
        ),
        is_default=True,
        updated=True,
        previous=CardFacts(last4="0004"),
    )
    assert event(fixture("payment.failed")) == PaymentEvent(
        kind=EventKind.PAYMENT_FAILED,
        provider="generic",
        event_id="evt_1",
        event_type="payment.failed",
        occurred_at=at,
        customer=CustomerFacts(
            id="cus_81",
            email="lena@example.com",
            name="Lena Weber",
            country="DE",
            timezone="Europe/Berlin",
            locale="de-DE",
        ),
        invoice=InvoiceFacts(
            id="in_204",
            amount_minor=4900,
            currency="EUR",
            paid_minor=500,
            number="2026-0204",
            description="Team, March",
            subscription_id="sub_17",
            plan="Team",
            interval="month",
            status="past_due",
            attempt_count=2,
            next_retry_at=datetime(2026, 3, 3, 9, 30, tzinfo=UTC),
            payment_id="pay_9",
            charge_id="ch_9001",
            token="pm_55",
            due_at=datetime(2026, 3, 1, tzinfo=UTC),
            issued_at=datetime(2026, 2, 28, tzinfo=UTC),
        ),
        payment=PaymentFacts(
            charge_id="ch_9001",
            payment_id="pay_9",
            amount_minor=4400,
            currency="EUR",
            captured_minor=4000,
            invoice_id="in_204",
            reference="att_1",
            method=method,
            decline=DeclineFacts(
                raw_code="insufficient_funds",
                network_code="1A",
                advice_code="25",
                provider_advice="try_again_later",
                message="Not enough money.",
                sent_to_network=False,
                gateway="adyen",
            ),
            occurred_at=datetime(2026, 3, 1, 9, 29, 58, tzinfo=UTC),
            network_reference="MCC9001",
            gateway_reference="PSP9001",
        ),
        subscription_id="sub_17",
    )


def test_the_full_body_fills_every_field_there_is() -> None:
    """A field added to the facts later has to be added to the format, or named here."""
    found = event(fixture("payment.failed"))
    assert found.payment
    assert found.payment.method
    blank = {
        f"{type(facts).__name__}.{field.name}"
        for facts in (
            found.customer,
            found.invoice,
            found.payment,
            found.payment.method,
            found.payment.decline,
        )
        for field in fields(facts)  # type: ignore[arg-type]
        if getattr(facts, field.name) in ("", None)
    }
    # Events of this format are ordered by their own time.
    assert blank == {"InvoiceFacts.told_at"}


def test_a_refund_a_dispute_a_method_and_a_subscription() -> None:
    refund = event(fixture("refund.updated"))
    assert (refund.kind, refund.payment, refund.customer) == (EventKind.REFUND_UPDATED, None, None)
    assert refund.refunds == (
        RefundFacts(
            id="re_12",
            amount_minor=990,
            currency="EUR",
            status=RefundStatus.FAILED,
            charge_id="ch_9001",
            payment_id="pay_9",
            reference="att_2",
            reason="requested_by_customer",
            failure_reason="expired_or_canceled_card",
        ),
    )
    assert event(fixture("dispute.updated")).dispute == DisputeFacts(
        id="ret_3",
        amount_minor=4900,
        currency="JPY",
        status=DisputeStatus.LOST,
        charge_id="ch_9002",
        payment_id="pay_10",
        reason_code="R01",
        is_return=True,
        respond_by=datetime(2026, 3, 20, 23, tzinfo=UTC),
    )
    method = event(fixture("payment_method.updated"))
    assert (method.kind, method.method, method.payment) == (
        EventKind.METHOD_UPDATED,
        MethodFacts(token="pm_56", kind="sepa"),
        None,
    )
    ended = event(fixture("subscription.ended"))
    assert (ended.kind, ended.subscription_id) == (EventKind.SUBSCRIPTION_ENDED, "sub_17")
    assert ended.occurred_at == datetime(2026, 3, 31, 23, 59, 59, 500_000, tzinfo=UTC)


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("payment.failed", "in_204"),
        ("refund.updated", "ch_9001"),
        ("dispute.updated", "ch_9002"),
        ("payment_method.updated", "cus_81"),
        ("subscription.ended", "sub_17"),
    ],
)
def test_events_of_one_thing_share_an_order_key(name: str, key: str) -> None:
    assert split(fixture(name)).order_key == key


def test_the_header_names_the_event_not_the_body() -> None:
    assert split(fixture("payment.failed"), event_id="evt_9").event_id == "evt_9"
    for bad in ("", "x" * 301, "a\nb"):
        with pytest.raises(BodyMalformed, match="webhook-id"):
            split(fixture("payment.failed"), event_id=bad)


def test_the_invoice_may_be_named_by_either_part() -> None:
    whole = fixture("payment.failed")
    by_object = event(changed(whole, "payment/invoice_id", drop=True))
    by_name = event(changed(whole, "invoice", drop=True))
    assert by_object.payment
    assert by_name.payment
    assert (by_object.payment.invoice_id, by_name.payment.invoice_id, by_name.invoice) == (
        "in_204",
        "in_204",
        None,
    )
    neither = changed(changed(whole, "invoice", drop=True), "payment/invoice_id", drop=True)
    assert refusal(neither) == (
        "The body is incomplete: name the invoice the payment is for, in /payment/invoice_id or as /invoice."
    )


def test_null_and_empty_text_count_as_absent() -> None:
    body = fixture("payment.failed")
    blank = event(changed(changed(body, "customer/email", ""), "customer/name", None))
    assert blank.customer
    assert (blank.customer.email, blank.customer.name) == ("", "")
    assert refusal(changed(body, "customer", None)).startswith("/customer is missing: ")


def test_an_unknown_type_is_ignored_for_a_stated_reason() -> None:
    item = split({"type": "customer.created", "anything": [1, {"a": 2.5}]})
    assert (item.event_id, item.event_type) == ("evt_1", "customer.created")
    ignored = DIALECT.parse(item)
    assert isinstance(ignored, Ignored)
    assert ignored.reason == "This event type is not known here, so the event changes nothing."


# The published documents


def test_the_published_schema_is_valid_and_accepts_what_the_dialect_accepts() -> None:
    schema = json.loads(SCHEMA_PATH.read_text())
    Draft202012Validator.check_schema(schema)
    assert set(schema["properties"]["type"]["enum"]) == set(KINDS)
    names = sorted(path.stem for path in FIXTURES.glob("*.json"))
    assert len(names) == 5
    for name in names:
        body = {key: value for key, value in fixture(name).items() if value is not None}
        if name == "payment_method.updated":
            body = changed(body, "payment_method/card", drop=True)
        Draft202012Validator(schema).validate(body)
    assert not Draft202012Validator(schema).is_valid(changed(fixture("payment.failed"), "payment/ammount", 1))


def test_every_example_of_the_documentation_is_accepted() -> None:
    text = (ROOT / "docs" / "providers" / "generic.md").read_text()
    examples = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", text, re.DOTALL)]
    assert [event(example).event_type for example in examples] == [
        "payment.failed",
        "invoice.paid",
        "payment_method.updated",
        "dispute.updated",
        "refund.updated",
        "subscription.ended",
    ]


def test_every_field_and_type_of_the_schema_is_documented() -> None:
    text = (ROOT / "docs" / "providers" / "generic.md").read_text()
    schema = json.loads(SCHEMA_PATH.read_text())
    named = set(re.findall(r"`([a-z0-9_.]+)`", text))
    names = set(schema["properties"]["type"]["enum"]) | set(schema["properties"])
    for definition in schema["$defs"].values():
        names |= set(definition.get("properties", {}))
    assert names - named == set()
