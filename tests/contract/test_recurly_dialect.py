"""Recurly's webhooks: the classic XML in every field, the JSON that names what to read, and what vouches for each."""

import hmac
from datetime import UTC, datetime

import pytest

from providers.base import (
    BodyMalformed,
    CustomerFacts,
    DeclineFacts,
    EventKind,
    InboundItem,
    InboundRequest,
    InvoiceFacts,
    MethodFacts,
    PaymentEvent,
    PaymentFacts,
    Proof,
    RefundFacts,
    RefundStatus,
    SignatureInvalid,
    Thin,
)
from providers.recurly.dialect import RecurlyDialect
from recovery_site.common.errors import InvalidInput
from tests.contract import dialect_fixtures
from tests.contract.dialect_fixtures import FIXTURES, items_of

FAILED = (FIXTURES / "recurly" / "failed_payment_notification.xml").read_bytes()
DUNNING = (FIXTURES / "recurly" / "new_dunning_event_notification.xml").read_bytes()
UUID = "0123456789abcdef0123456789abcdef"
SUBSCRIPTION = "aaaabbbbccccddddeeeeffff00001111"
LENA = CustomerFacts(id="northwind", email="lena@example.com", name="Lena Weber")
RECEIVED = datetime(2026, 1, 9, tzinfo=UTC)


def told(body: bytes) -> PaymentEvent:
    return dialect_fixtures.told("recurly", body, Proof.SENDER)


def renamed(body: bytes, name: str, *changes: tuple[str, str]) -> bytes:
    """The notification under another name, with some of its text replaced."""
    text = body.decode()
    for old in ("failed_payment_notification", "new_dunning_event_notification"):
        text = text.replace(old, name)
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return text.encode()


def test_a_failed_payment_fills_every_field() -> None:
    (item,) = items_of("recurly", FAILED)
    assert told(FAILED) == PaymentEvent(
        kind=EventKind.PAYMENT_FAILED,
        provider="recurly",
        event_id=item.event_id,
        event_type="failed_payment_notification",
        occurred_at=datetime(2026, 1, 1, 9, tzinfo=UTC),
        trusted=False,
        customer=LENA,
        payment=PaymentFacts(
            charge_id=UUID,
            amount_minor=4900,
            currency="",
            invoice_id="DE204",
            method=MethodFacts(token="northwind", kind="card", is_default=True),
            decline=DeclineFacts(
                raw_code="insufficient_funds", message="Your card has insufficient funds.", gateway="stripe"
            ),
            occurred_at=datetime(2026, 1, 1, 9, tzinfo=UTC),
            gateway_reference="ch_northwind_1",
        ),
    )
    assert (item.order_key, len(item.event_id)) == ("204", 64)


def test_a_dunning_step_fills_every_field_of_the_invoice() -> None:
    event = told(DUNNING)
    assert (event.kind, event.occurred_at) == (EventKind.INVOICE_UPDATED, datetime(2026, 1, 3, 9, tzinfo=UTC))
    assert event.invoice == InvoiceFacts(
        id="DE204",
        amount_minor=4900,
        currency="EUR",
        paid_minor=500,
        number="DE204",
        subscription_id=SUBSCRIPTION,
        plan="team",
        status="open",
        attempt_count=2,
        due_at=datetime(2026, 1, 2, tzinfo=UTC),
        issued_at=datetime(2026, 1, 1, 8, 59, 50, tzinfo=UTC),
        told_at=datetime(2026, 1, 3, 9, tzinfo=UTC),
    )


@pytest.mark.parametrize(
    ("name", "status", "kind", "undone"),
    [
        ("successful_payment_notification", "success", EventKind.PAYMENT_SUCCEEDED, False),
        ("processing_payment_notification", "processing", EventKind.PAYMENT_PENDING, False),
        ("void_payment_notification", "void", EventKind.PAYMENT_FAILED, True),
        ("transaction_status_updated_notification", "success", EventKind.PAYMENT_SUCCEEDED, False),
        ("transaction_status_updated_notification", "Declined", EventKind.PAYMENT_FAILED, False),
        ("transaction_status_updated_notification", "void", EventKind.PAYMENT_FAILED, True),
    ],
)
def test_what_became_of_a_payment(name: str, status: str, kind: EventKind, undone: bool) -> None:
    event = told(renamed(FAILED, name, (">declined<", f">{status}<")))
    assert event.payment
    assert (event.kind, event.payment.undone) == (kind, undone)
    assert event.payment.captured_minor == (4900 if kind is EventKind.PAYMENT_SUCCEEDED else None)


def test_without_codes_the_kind_of_failure_is_the_reason() -> None:
    body = renamed(FAILED, "failed_payment_notification", (">insufficient_funds<", " nil='true'><"))
    body = body.replace(b"<gateway_error_codes nil='true'><", b"<gateway_error_codes nil='true'/><x><")
    body = body.replace(b"<x></gateway_error_codes>", b"")
    payment = told(body).payment
    assert payment
    assert payment.decline
    assert payment.decline.raw_code == "declined"


def test_a_refund_names_its_invoice() -> None:
    body = renamed(FAILED, "successful_refund_notification", (">purchase<", ">credit<"), (">declined<", ">success<"))
    event = told(body)
    assert event.refunds == (
        RefundFacts(id=UUID, amount_minor=4900, currency="", status=RefundStatus.SUCCEEDED, invoice_id="DE204"),
    )


@pytest.mark.parametrize(
    ("state", "kind"),
    [
        ("paid", EventKind.INVOICE_PAID),
        ("collected", EventKind.INVOICE_PAID),
        ("failed", EventKind.INVOICE_UNCOLLECTIBLE),
        ("voided", EventKind.INVOICE_VOIDED),
        ("processing", EventKind.INVOICE_UPDATED),
    ],
)
def test_what_became_of_an_invoice(state: str, kind: EventKind) -> None:
    name = "closed_invoice_notification"
    assert told(renamed(DUNNING, name, (">past_due<", f">{state}<"))).kind is kind


def test_billing_info_and_subscriptions() -> None:
    billing = told(renamed(DUNNING, "billing_info_updated_notification"))
    assert (billing.kind, billing.method) == (
        EventKind.METHOD_UPDATED,
        MethodFacts(token="northwind", kind="", is_default=True, updated=True),
    )
    ended = told(renamed(DUNNING, "expired_subscription_notification"))
    assert (ended.kind, ended.subscription_id) == (EventKind.SUBSCRIPTION_ENDED, SUBSCRIPTION)


def test_a_notification_without_a_time_happened_when_it_came() -> None:
    (item,) = items_of("recurly", renamed(DUNNING, "billing_info_updated_notification"))
    meaning = RecurlyDialect().parse(
        InboundItem(item.event_id, item.event_type, item.order_key, item.payload, Proof.SENDER, RECEIVED)
    )
    assert isinstance(meaning, PaymentEvent)
    assert meaning.occurred_at == RECEIVED


def thin(object_type: str, event_type: str, **values: object) -> dict[str, object]:
    return (
        {**dialect_fixtures.load("recurly", "payment.failed"), "object_type": object_type, "event_type": event_type}
        | ({"uuid": None} if values else {})
        | values
    )


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (thin("payment", "failed"), {"charge_id": UUID}),
        (thin("payment", "transaction_status_updated"), {"charge_id": UUID}),
        (thin("payment", "refunded"), {"refund_id": UUID}),
        (thin("charge_invoice", "past_due", invoice_number=204), {"invoice_id": "204"}),
        (thin("charge_invoice", "paid", invoice_number="204", account_code="northwind"), {"invoice_id": "204"}),
        (thin("dunning_event", "created", invoice_number="204"), {"invoice_id": "204"}),
    ],
)
def test_json_names_what_has_to_be_read(body: dict[str, object], named: dict[str, str]) -> None:
    (item,) = items_of("recurly", body, {"recurly-notification-id": "ntf_1"})
    meaning = RecurlyDialect().parse(item)
    customer = CustomerFacts(id="northwind") if "account_code" in body else None
    assert meaning == Thin(
        provider="recurly",
        event_id="ntf_1",
        event_type=f"{body['object_type']}.{body['event_type']}",
        occurred_at=datetime(2026, 1, 1, 9, 0, 1, tzinfo=UTC),
        customer=customer,
        **named,
    )
    assert item.order_key == next(iter(named.values()))


def test_json_that_needs_no_reading() -> None:
    billing = dialect_fixtures.told("recurly", thin("billing_info", "updated", account_code="northwind"))
    assert (billing.kind, billing.trusted, billing.method) == (
        EventKind.METHOD_UPDATED,
        True,
        MethodFacts(token="northwind", kind="", is_default=True, updated=True),
    )
    ended = dialect_fixtures.told("recurly", thin("subscription", "expired"))
    assert (ended.kind, ended.subscription_id) == (EventKind.SUBSCRIPTION_ENDED, UUID)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (thin("charge_invoice", "created"), "only owed"),
        (thin("charge_invoice", "paid"), "names nothing"),
        (thin("billing_info", "updated"), "names no account"),
        (thin("credit_payment", "created"), "credit changes its invoice"),
        (thin("gift_card", "redeemed"), "nothing that a payment recovery needs"),
        (renamed(FAILED, "failed_payment_notification", (">purchase<", ">verify<")), "verified"),
        (renamed(DUNNING, "failed_payment_notification"), "no transaction"),
        (renamed(FAILED, "closed_invoice_notification"), "no invoice"),
        (renamed(DUNNING, "billing_info_update_failed_notification"), "known before stays"),
        (renamed(DUNNING, "new_usage_notification"), "nothing that a payment recovery needs"),
    ],
)
def test_what_needs_nothing_is_ignored_with_its_reason(body: bytes | dict[str, object], reason: str) -> None:
    assert reason in dialect_fixtures.ignored("recurly", body)


@pytest.mark.parametrize("body", [b"<note><a>1</a></note>", b"<x_notification/>", b'{"object_type": "payment"}', b"{}"])
def test_what_is_no_notification_is_refused(body: bytes) -> None:
    with pytest.raises(BodyMalformed):
        items_of("recurly", body)


KEY, OLD_KEY = "354fab5bd35f", "0ld"
JSON = b'{"object_type": "payment"}'


def signed(body: bytes, key: str, stamp: str) -> str:
    return hmac.new(key.encode(), stamp.encode() + b"." + body, "sha256").hexdigest()


def verify(body: bytes, headers: dict[str, str], *secrets: str, now: float = 1_767_258_000.0) -> Proof:
    return RecurlyDialect().verify(InboundRequest(body, headers), secrets, now=now, tolerance_seconds=300)


@pytest.mark.parametrize("stamp", ["1767258000000", "1767258000", "1767257701000", "1767258299"])
def test_json_is_signed_over_milliseconds_or_seconds(stamp: str) -> None:
    header = {"recurly-signature": f"{stamp},{'0' * 64},{signed(JSON, OLD_KEY, stamp)}"}
    assert verify(JSON, header, KEY, OLD_KEY) is Proof.SIGNED
    assert verify(JSON, header, KEY, f'{{"key": "{OLD_KEY}", "username": "u", "password": "p"}}') is Proof.SIGNED


@pytest.mark.parametrize(
    "header",
    [
        "",
        "1767258000000",
        "1767258000000,",
        f"1767258000000,{signed(JSON, 'another', '1767258000000')}",
        f"1767258000001,{signed(JSON, KEY, '1767258000000')}",
        f"1767257699000,{signed(JSON, KEY, '1767257699000')}",
        f"1767258301,{signed(JSON, KEY, '1767258301')}",
        f"{'9' * 5000},{signed(JSON, KEY, '9' * 5000)}",
        f"now,{signed(JSON, KEY, 'now')}",
        "1767258000000,é",
        "é,é",
    ],
)
def test_json_without_a_good_signature_of_now_is_refused(header: str) -> None:
    with pytest.raises(SignatureInvalid):
        verify(JSON, {"recurly-signature": header} if header else {}, KEY)


def test_xml_needs_the_password_and_a_key_does_not_replace_it() -> None:
    stamp = "1767258000000"
    login = {"authorization": "Basic dXNlcjpwYXNz"}  # user:pass
    assert verify(FAILED, login, "user:pass") is Proof.SENDER
    assert verify(FAILED, login, f'{{"key": "{KEY}", "username": "user", "password": "pass"}}') is Proof.SENDER
    assert verify(JSON, login, "user:pass") is Proof.SENDER, "an endpoint without a key vouches by its password"
    for headers, secret in (
        ({"recurly-signature": f"{stamp},{signed(FAILED, KEY, stamp)}"}, KEY),
        (login, "user:other"),
        ({}, "user:pass"),
    ):
        with pytest.raises(SignatureInvalid):
            verify(FAILED, headers, secret)
    with pytest.raises(SignatureInvalid):
        verify(JSON, login, f'{{"key": "{KEY}", "username": "user", "password": "pass"}}')


@pytest.mark.parametrize("secret", [":x", '{"password": "x"}', '{"key": 1}', "{"])
def test_a_secret_that_is_none_is_refused(secret: str) -> None:
    with pytest.raises(InvalidInput):
        RecurlyDialect().secret_check(secret)
