"""Every address of the API, asked with another merchant's key for the ids of this one: 404, and nothing changes."""

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from drf_spectacular.generators import SchemaGenerator

from invoices.models import Attempt, Dispute, Invoice, Transaction
from providers.base import DisputeFacts, DisputeStatus, RefundFacts, RefundStatus
from retries.models import Case, RetryJob
from tests.api.door import Door
from tests.console.world import World
from tests.support.snapshot import changed, snapshot
from tokens.models import Card, Token
from webhooks.models import Delivery, InboxEvent
from webhooks.outbound.endpoints import outbound_endpoint_create
from webhooks.services import endpoint_create

pytestmark = pytest.mark.django_db


def routes() -> Iterator[tuple[str, str]]:
    """Method and path of every documented address."""
    schema: dict[str, Any] = SchemaGenerator().get_schema(request=None, public=True)
    for path, methods in schema["paths"].items():
        for method in methods:
            yield method.upper(), path


def ids(world: World) -> dict[str, str]:
    """One id of the world's merchant per address that takes one."""
    invoice = world.fail(invoice="in_1", charge="ch_1")
    world.pay(invoice, charge="ch_2")
    world.refund(
        RefundFacts(id="re_1", amount_minor=100, currency="USD", status=RefundStatus.SUCCEEDED, charge_id="ch_2")
    )
    world.dispute(
        "ch_2",
        DisputeFacts(id="dp_1", amount_minor=4_990, currency="USD", status=DisputeStatus.OPEN, charge_id="ch_2"),
    )
    failing = world.fail(invoice="in_2", charge="ch_3")
    inbound = endpoint_create(merchant=world.merchant, provider="stripe", secret="whsec_x", connection=world.connection)
    outbound = outbound_endpoint_create(merchant=world.merchant, url="https://example.com/hook").endpoint
    delivery = Delivery.objects.create(
        merchant=world.merchant,
        endpoint=outbound,
        event=invoice.events.first(),
        message_id="msg_1",
        event_type="retry_scheduled",
        body="{}",
    )
    item = InboxEvent.objects.create(
        merchant=world.merchant,
        endpoint=inbound,
        provider_event_id="evt_1",
        event_type="invoice.paid",
        body="{}",
        body_hash="0" * 64,
        received_at=world.at,
    )
    refund = Transaction.objects.get(kind="REFUND").public_id
    charge = Transaction.objects.filter(invoice=failing).latest("pk").public_id
    return {
        "customers": failing.customer.public_id,
        "connections": world.connection.public_id,
        "transactions": charge,
        "refunds": refund,
        "attempts": Attempt.objects.latest("pk").public_id,
        "disputes": Dispute.objects.get().public_id,
        "cards": Card.objects.latest("pk").public_id,
        "tokens": Token.objects.latest("pk").public_id,
        "invoices": failing.public_id,
        "cases": Case.objects.latest("pk").public_id,
        "retry-jobs": RetryJob.objects.latest("pk").public_id,
        "webhook-endpoints/in": str(inbound.uuid),
        "webhook-endpoints/out": outbound.public_id,
        "deliveries": delivery.public_id,
        "policies": "1",
        "events": str(failing.events.latest("pk").pk),
        "inbox-events": str(item.pk),
        "payments/retry/user": failing.customer.public_id,
        "payments/retry": charge,
        "payments": charge,
    }


BODIES: dict[tuple[str, str], Callable[[dict[str, str]], Any]] = {
    ("POST", "/payments/process"): lambda named: {"transaction_id": named["payments"]},
    ("POST", "/payments/attempts"): lambda named: {
        "transaction_id": named["payments"],
        "charge_id": "ch_9",
        "status": "succeeded",
    },
    ("POST", "/payments/retry/{transaction_id}"): lambda named: {"error": {"code": "insufficient_funds"}},
    ("POST", "/connections"): lambda named: {"provider": "stripe", "config": {"gateway": named["connections"]}},
    ("POST", "/webhook-endpoints/in"): lambda named: {
        "provider": "stripe",
        "secret": "whsec_y",
        "connection": named["connections"],
    },
    ("POST", "/webhook-endpoints/in/{id}/secret"): lambda named: {"secret": "whsec_y"},
    ("PATCH", "/webhook-endpoints/out/{id}"): lambda named: {"url": "https://example.com/theirs"},
    ("PATCH", "/connections/{id}"): lambda named: {"enabled": False},
    ("POST", "/connections/{id}/credentials"): lambda named: {"secrets": {"api_key": "theirs"}},
}
# A report about an id that the caller does not have is a report about something new: it lacks what that needs.
_NEW = {
    ("POST", "/payments/retry/{transaction_id}"): 400,
    ("POST", "/payments/attempts"): 400,
    ("POST", "/connections"): 400,
}
# What makes something of one's own and names nothing that is there.
_OWN = {"/policies", "/decline-overrides", "/webhook-endpoints/out"}


def test_foreign_ids_do_not_exist_on_any_address(redis_client: object, settings: Any) -> None:
    settings.API_RATE_LIMIT = 1_000
    world, stranger = World(name="Ann's"), Door()
    named = ids(world)
    own = Door(merchant=world.merchant)
    before, asked, wrong = snapshot(), 0, []
    for method, path in routes():
        plain = path.removeprefix("/api/v1")
        if "{" not in plain and method == "GET":
            continue
        base = re.sub(r"/\{.*", "", plain).strip("/")
        if "{" in plain:
            assert base in named, f"{plain} takes an id that this test does not know yet"
        address = re.sub(r"\{[^}]*\}", named.get(base, ""), plain)
        if method == "GET":
            own.get(address)
        if plain in _OWN:
            continue
        make = BODIES.get((method, plain), lambda _: {"reason": "x"})
        answer = stranger.send(method, address, make(named) if method in ("POST", "PATCH") else None)
        asked += 1
        if answer.status_code != _NEW.get((method, plain), 404):
            wrong.append((method, plain, answer.status_code, answer.content[:200]))
    assert wrong == []
    assert asked >= 43
    assert changed(before) == set()


def test_lists_hold_only_what_is_ones_own(redis_client: object, settings: Any) -> None:
    settings.API_RATE_LIMIT = 1_000
    world, stranger = World(name="Ann's"), Door()
    named = ids(world)
    own = Door(merchant=world.merchant)
    listed = 0
    for method, path in routes():
        plain = path.removeprefix("/api/v1")
        if method != "GET" or "{" in plain or plain.startswith(("/payments", "/analytics")):
            continue
        theirs = stranger.get(plain)["data"]
        assert not any(value in str(theirs) for value in named.values() if len(value) > 3), plain
        if plain in ("/segments", "/decline-overrides"):
            continue
        assert own.get(plain)["data"], plain
        listed += 1
    assert listed >= 15
    for page in ("overview", "failures", "retries", "policies"):
        figures = stranger.get(f"/analytics/{page}")["figures"]
        assert not re.search(r"(?<![0-9.])[1-9]", re.sub(r'"[^"]*"', "", json.dumps(figures))), page
        assert own.get(f"/analytics/{page}")["figures"] != figures
    assert stranger.get("/payments/retry/stats") == {"total": 0, "pending": 0, "amounts": {}, "by_error_code": {}}
    assert own.get("/payments/retry/stats")["total"] == Case.objects.filter(status="OPEN").count()
    assert Invoice.objects.filter(merchant=stranger.merchant).count() == 0
