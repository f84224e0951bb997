"""The sandbox's own webhooks, as the running server sends them."""

import copy
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from providers import registry
from providers.base import (
    BodyMalformed,
    CustomerFacts,
    DeclineFacts,
    EventKind,
    Ignored,
    InboundItem,
    InboundRequest,
    MethodFacts,
    PaymentEvent,
    PaymentFacts,
    RefundFacts,
    RefundStatus,
    SignatureInvalid,
)
from providers.sandbox.client import SandboxClient
from providers.sandbox.dialect import SandboxDialect
from tests.contract.sandbox_process import SECRET, Psp, Receiver, receivers, servers

OTHER_SECRET = "whsec_dGhpcyBpcyBhbm90aGVyIHNlY3JldA=="
DIALECT = SandboxDialect()


@pytest.fixture
def make_receiver() -> Iterator[Callable[..., Receiver]]:
    with receivers() as make:
        yield make


@pytest.fixture
def hooked(tmp_path: Path, make_receiver: Callable[..., Receiver]) -> Iterator[tuple[Psp, Receiver]]:
    """A server that sends its webhooks to a receiver."""
    receiver = make_receiver()
    with servers(tmp_path) as make:
        psp = make()
        psp.put("/webhook", url=receiver.url, secret=SECRET)
        yield psp, receiver


def received(receiver: Receiver) -> InboundRequest:
    body, headers = receiver.got.get(timeout=20)
    return InboundRequest(body, {name.lower(): value for name, value in headers.items()})


def item_of(receiver: Receiver) -> InboundItem:
    (item,) = DIALECT.split(received(receiver))
    return item


def event_of(receiver: Receiver) -> PaymentEvent:
    event = DIALECT.parse(item_of(receiver))
    assert isinstance(event, PaymentEvent)
    return event


def test_the_registry_speaks_this_dialect() -> None:
    assert isinstance(registry.dialect("sandbox"), SandboxDialect)


def test_the_servers_signature_is_verified_and_only_its_own(hooked: tuple[Psp, Receiver]) -> None:
    psp, receiver = hooked
    psp.charge()
    request = received(receiver)
    now = time.time()
    DIALECT.verify(request, [OTHER_SECRET, SECRET], now=now, tolerance_seconds=300)
    wrong: list[tuple[InboundRequest, str, float]] = [
        (request, OTHER_SECRET, now),
        (request, SECRET, now + 1000),
        (request, SECRET, now - 1000),
        (InboundRequest(request.body + b" ", request.headers), SECRET, now),
        (InboundRequest(request.body, {}), SECRET, now),
    ]
    for changed, secret, at in wrong:
        with pytest.raises(SignatureInvalid):
            DIALECT.verify(changed, [secret], now=at, tolerance_seconds=300)


def test_a_declined_charge_becomes_a_failed_payment(hooked: tuple[Psp, Receiver]) -> None:
    psp, receiver = hooked
    token = "tok_decline_insufficient_funds_mc"
    metadata = {"invoice_id": "in_7", "invoice": "inv_ours"}
    charge = psp.charge(token, customer="cus_1", reference="att_1", metadata=metadata).json()
    item = item_of(receiver)
    assert (item.event_type, item.order_key, item.event_id[:4]) == ("charge.declined", charge["id"], "evt_")
    read = SandboxClient({"base_url": psp.url}).charge_get(charge["id"])
    assert read
    event = DIALECT.parse(item)
    assert isinstance(event, PaymentEvent)
    assert event == PaymentEvent(
        kind=EventKind.PAYMENT_FAILED,
        provider="sandbox",
        event_id=item.event_id,
        event_type="charge.declined",
        occurred_at=event.occurred_at,
        customer=CustomerFacts(id="cus_1"),
        payment=PaymentFacts(
            charge_id=charge["id"],
            amount_minor=1000,
            currency="EUR",
            invoice_id="in_7",
            reference="att_1",
            method=MethodFacts(token=token, card=read.card),
            decline=DeclineFacts(raw_code="insufficient_funds", network_code="51"),
            occurred_at=datetime.fromisoformat(charge["created_at"]),
        ),
    )
    assert read.card
    assert read.card.network == "mastercard"


def test_a_succeeded_charge_of_somebody_else_names_nothing_it_does_not_know(
    hooked: tuple[Psp, Receiver],
) -> None:
    psp, receiver = hooked
    psp.charge()
    event = event_of(receiver)
    assert (event.kind, event.customer) == (EventKind.PAYMENT_SUCCEEDED, None)
    assert event.payment
    assert (event.payment.invoice_id, event.payment.reference, event.payment.decline) == ("", "", None)


def test_a_pending_charge_is_told_twice_in_the_same_order_key(hooked: tuple[Psp, Receiver]) -> None:
    psp, receiver = hooked
    psp.put("/script", token="tok_ok", steps=["pending"])
    charge = psp.charge(reference="att_1").json()
    pending = item_of(receiver)
    psp.call("POST", f"/charges/{charge['id']}/settle", {"status": "succeeded"})
    settled = item_of(receiver)
    assert (pending.event_type, settled.event_type) == ("charge.pending", "charge.succeeded")
    assert pending.order_key == settled.order_key == charge["id"]
    assert pending.event_id != settled.event_id
    events = [DIALECT.parse(item) for item in (pending, settled)]
    assert [event.kind for event in events if isinstance(event, PaymentEvent)] == [
        EventKind.PAYMENT_PENDING,
        EventKind.PAYMENT_SUCCEEDED,
    ]


@pytest.mark.parametrize(
    ("step", "status", "failure"),
    [
        ("ok", RefundStatus.SUCCEEDED, ""),
        ("pending", RefundStatus.PENDING, ""),
        ("decline:card_expired", RefundStatus.FAILED, "card_expired"),
    ],
)
def test_a_refund_is_told_with_its_charge(
    hooked: tuple[Psp, Receiver], step: str, status: RefundStatus, failure: str
) -> None:
    psp, receiver = hooked
    charge = psp.charge().json()
    item_of(receiver)
    psp.put("/script", token="refund", steps=[step])
    refund = psp.refund(charge["id"], 300, reference="att_2", reason="goodwill").json()
    item = item_of(receiver)
    event = DIALECT.parse(item)
    assert isinstance(event, PaymentEvent)
    assert (item.order_key, event.kind, event.payment) == (charge["id"], EventKind.REFUND_UPDATED, None)
    assert event.refunds == (
        RefundFacts(
            id=refund["id"],
            amount_minor=300,
            currency="EUR",
            status=status,
            charge_id=charge["id"],
            reference="att_2",
            reason="goodwill",
            failure_reason=failure,
        ),
    )


# Bodies that the server never sends

BODY: dict[str, Any] = {
    "id": "evt_1",
    "type": "charge.succeeded",
    "timestamp": "2026-01-01T00:00:00.000000Z",
    "data": {
        "id": "ch_1",
        "status": "succeeded",
        "amount": 1000,
        "currency": "EUR",
        "token": "tok_ok",
        "reference": None,
        "customer": None,
        "created_at": "2026-01-01T00:00:00.000000Z",
    },
}


def parsed(body: dict[str, Any]) -> PaymentEvent | Ignored:
    return DIALECT.parse(InboundItem("evt_1", body["type"], "", body))


def test_an_unknown_type_is_ignored() -> None:
    assert isinstance(parsed(BODY | {"type": "payout.created", "data": 5}), Ignored)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("status", "declined", "/type and /data/status differ"),
        ("id", 5, "/data/id is missing or impossible"),
        ("amount", -1, "/data/amount is missing or impossible"),
        ("amount", 10.0, "/data/amount is missing or impossible"),
        ("amount", None, "/data/amount is missing or impossible"),
        ("token", "", "/data/token is missing or impossible"),
        ("created_at", "2026-01-01T00:00:00", "/data/created_at is missing or impossible"),
        ("card", {"exp_month": "12"}, "/data/exp_month is missing or impossible"),
    ],
)
def test_a_wrong_field_is_refused_by_name(field: str, value: object, message: str) -> None:
    assert isinstance(parsed(BODY), PaymentEvent)
    body = copy.deepcopy(BODY)
    body["data"][field] = value
    with pytest.raises(BodyMalformed, match=message):
        parsed(body)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": None}, "/data is missing"),
        ({"timestamp": None}, "/timestamp is not a time"),
        ({"timestamp": "2026-01-01T00:00:00"}, "/timestamp has no offset"),
    ],
)
def test_a_broken_envelope_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BodyMalformed, match=message):
        parsed(BODY | changes)


@pytest.mark.parametrize("raw", [b"", b"[]", b"\xff", b"{}", b'{"type":5}', b'{"type":"charge.succeeded"}'])
def test_a_body_that_is_no_event_is_refused(raw: bytes) -> None:
    with pytest.raises(BodyMalformed):
        DIALECT.split(InboundRequest(raw, {"webhook-id": "evt_1"}))
