"""What an integrator sets up through the API: connections, endpoints, overrides, deliveries sent again."""

import re
from typing import Any

import pytest

from accounts.models import IdempotencyRecord
from invoices.models import Connection, Event
from recovery_site.common.crypto import decrypt_json
from retries.models import DeclineOverride
from tests.api.door import Door
from tests.console.world import World
from webhooks.models import Delivery, InboxEvent, OutboundEndpoint, WebhookEndpoint
from webhooks.outbound.deliveries import deliveries_write
from webhooks.services import endpoint_secrets

pytestmark = pytest.mark.django_db


@pytest.fixture
def world(redis_client: object) -> World:
    return World(name="Ann's")


@pytest.fixture
def own(world: World) -> Door:
    return Door(merchant=world.merchant)


def test_a_connection_is_made_switched_and_never_tells_its_secrets(own: Door) -> None:
    config = {"mode": "observe", "api_key": "sk_test_abc"}
    made = own.post("/connections", {"provider": "stripe", "name": "Main", "config": config}, status=201)
    assert (made["name"], made["mode"], made["enabled"], made["gateway"]) == ("Main", "observe", True, None)
    row = Connection.objects.get(public_id=made["id"])
    assert (row.merchant, decrypt_json(row.secrets_encrypted)["api_key"]) == (own.merchant, "sk_test_abc")
    assert own.patch(f"/connections/{made['id']}", {"enabled": False})["enabled"] is False
    assert "sk_test_abc" not in str(own.get(f"/connections/{made['id']}")) + str(made)
    refused = own.post("/connections", {"provider": "nobody", "config": {}}, status=400)
    assert (refused["code"], "Unknown provider" in refused["detail"]) == ("invalid_input", True)


def test_an_address_inside_our_network_is_refused(own: Door, settings: Any) -> None:
    settings.PRIVATE_TARGETS = []
    config = {"mode": "charge", "api_key": "k", "base_url": "https://169.254.169.254/"}
    refused = own.post("/connections", {"provider": "sandbox", "config": config}, status=400)
    assert refused["code"] == "target_refused"
    assert not Connection.objects.filter(provider="sandbox").exists()


def test_an_inbound_endpoint_takes_a_new_secret_and_keeps_the_one_before(own: Door, world: World) -> None:
    body = {"provider": "stripe", "secret": "whsec_one"}
    made = own.post("/webhook-endpoints/in", body, status=201)
    assert re.fullmatch(r"/webhooks/stripe/[0-9a-f-]{36}/", made["address"])
    told = own.post(f"/webhook-endpoints/in/{made['id']}/secret", {"secret": "whsec_two"})
    assert "whsec" not in str(made) + str(told)
    assert endpoint_secrets(WebhookEndpoint.objects.get(uuid=made["id"])) == ["whsec_two", "whsec_one"]


def test_an_outbound_endpoint_tells_its_secret_once_and_again_only_to_the_same_request(own: Door) -> None:
    body = {"url": "https://example.com/hook", "event_types": ["retry_scheduled"]}
    made = own.post("/webhook-endpoints/out", body, status=201, idempotency_key="k")
    assert made["secret"].startswith("whsec_")
    assert own.post("/webhook-endpoints/out", body, status=201, idempotency_key="k") == made
    assert made["secret"] not in IdempotencyRecord.objects.get().answer_encrypted
    address = f"/webhook-endpoints/out/{made['id']}"
    assert "secret" not in own.get(address)
    changed = own.patch(address, {"enabled": False, "description": "ERP"})
    assert (changed["enabled"], changed["description"], changed["event_types"]) == (False, "ERP", ["retry_scheduled"])
    rotated = own.post(f"{address}/secret")
    assert rotated["secret"] != made["secret"]
    assert rotated["previous_until"] is not None
    refused = own.patch(address, {"event_types": ["nonsense"]}, status=400)
    assert refused["errors"][0]["field"] == "event_types.0"
    assert OutboundEndpoint.objects.count() == 1


def test_overrides_come_in_versions(own: Door) -> None:
    body = {"provider": "stripe", "code": "odd_code", "category": "HARD_DECLINE", "note": "told by the bank"}
    assert own.post("/decline-overrides", body, status=201)["version"] == 1
    taken_back = own.post("/decline-overrides", {**body, "category": ""}, status=201)
    assert (taken_back["version"], taken_back["category"]) == (2, "")
    assert set(DeclineOverride.objects.values_list("created_by", flat=True)) == {f"key:{own.row.prefix}"}
    assert own.post("/decline-overrides", {**body, "provider": "nobody"}, status=400)["code"] == "invalid_input"


def test_a_delivery_is_sent_again_and_shows_its_tries(own: Door, world: World) -> None:
    made = own.post("/webhook-endpoints/out", {"url": "https://example.com/hook"}, status=201)
    world.fail()
    deliveries_write(Event.objects.get(kind="case.opened"))
    delivery = Delivery.objects.get()
    address = f"/deliveries/{delivery.public_id}"
    assert own.post(f"{address}/replay", status=409)["code"] == "conflict"
    Delivery.objects.filter(pk=delivery.pk).update(status="DELIVERED")
    told = own.post(f"{address}/replay")
    assert (told["status"], told["endpoint"], told["log"]) == ("PENDING", made["id"], [])


def test_an_item_of_the_inbox_is_processed_again(own: Door, world: World) -> None:
    endpoint = own.post("/webhook-endpoints/in", {"provider": "stripe", "secret": "whsec_one"}, status=201)["id"]
    item = InboxEvent.objects.create(
        merchant=world.merchant,
        endpoint=WebhookEndpoint.objects.get(uuid=endpoint),
        provider_event_id="evt_1",
        event_type="invoice.paid",
        body="{}",
        body_hash="0" * 64,
        received_at=world.at,
    )
    assert own.post(f"/inbox-events/{item.pk}/replay", status=409)["code"] == "conflict"
    InboxEvent.objects.filter(pk=item.pk).update(status="IGNORED")
    assert own.post(f"/inbox-events/{item.pk}/replay")["status"] == "RECEIVED"


def test_settings_need_their_scope(world: World) -> None:
    reader = Door(merchant=world.merchant, scopes=("read", "payments", "refunds"))
    for path in ("/connections", "/webhook-endpoints/in", "/webhook-endpoints/out", "/decline-overrides", "/policies"):
        assert reader.post(path, {}, status=403)["code"] == "scope_missing", path
    address = f"/connections/{world.connection.public_id}"
    assert reader.patch(address, {"enabled": False}, status=403)["code"] == "scope_missing"
    for action in ("check", "credentials"):
        assert reader.post(f"{address}/{action}", {}, status=403)["code"] == "scope_missing"
