"""`outbound`, `send_webhooks` and `purge`, as an operator types them."""

from collections.abc import Iterator
from datetime import timedelta

import pytest
from django.db.models.functions import Now
from standardwebhooks import Webhook

from invoices.models import Event, OutboxMessage
from invoices.services.outbox import outbox_purge
from tests.support.listener import Listener, listening
from tests.support.quiet import quiet
from tests.webhooks.conftest import NewDoor
from tests.webhooks.door import Door
from tests.webhooks.renewal import OLD, Renewal, moment
from tests.webhooks.test_commands import refusal, run, said
from webhooks.models import Delivery, DeliveryTry, InboxEvent, OutboundEndpoint
from webhooks.outbound.deliveries import deliveries_write

NOW = moment(60)


@pytest.fixture
def receiver() -> Iterator[Listener]:
    with listening() as place:
        yield place


def opened(door: Door, name: str) -> None:
    """One more case, handed to the webhooks' consumer."""
    door.tell(NOW, Renewal(OLD, name=name, customer=f"cus_{name}", token=f"pm_{name}").charge_failed())
    deliveries_write(Event.objects.filter(kind="case.opened").latest("pk"))


@pytest.mark.django_db(transaction=True)
def test_an_endpoint_made_on_the_command_line_is_sent_to(door: Door, receiver: Listener) -> None:
    made = run("outbound", "create", "--merchant", door.merchant.name, "--url", receiver.url, "--type", "case_opened")
    assert set(made) == {"id", "url", "secret"}
    door.tell(NOW, Renewal(OLD).charge_failed())
    at = ("--at", NOW.isoformat())
    quiet()
    assert run("send_webhooks", "--once", *at) == {"delivered": 1, "retried": 0, "dead": 0}
    headers, body = receiver.requests[0]
    Webhook(made["secret"]).verify(body, dict(headers))
    rotated = run("outbound", "rotate", "--id", made["id"], "--overlap", "1h", *at)
    (delivery,) = run("outbound", "deliveries", "--endpoint", made["id"])["deliveries"]
    assert (delivery["status"], delivery["tries"], delivery["last_status"]) == ("DELIVERED", 1, 200)
    assert run("outbound", "replay", "--id", delivery["id"], *at) == {"replayed": 1}
    assert run("send_webhooks", "--once", *at)["delivered"] == 1
    headers, body = receiver.requests[1]
    for secret in (made["secret"], rotated["secret"]):
        Webhook(secret).verify(body, dict(headers))
    log = run("outbound", "log", "--id", delivery["id"])["log"]
    assert [(one["status_code"], one["error"]) for one in log] == [(200, ""), (200, "")]
    assert "case_opened" in said("outbound", "log", "--id", delivery["id"])


@pytest.mark.django_db
def test_given_up_deliveries_are_listed_and_sent_again(door: Door, new_door: NewDoor, receiver: Listener) -> None:
    made = run("outbound", "create", "--merchant", door.merchant.name, "--url", receiver.url)
    for number in range(3):
        opened(door, f"{number}")
    for delivery in Delivery.objects.order_by("pk")[:2]:
        delivery.give_up()
        delivery.save()
    assert len(run("outbound", "deliveries", "--dead")["deliveries"]) == 2
    assert len(run("outbound", "deliveries", "--merchant", door.merchant.name, "--limit", "2")["deliveries"]) == 2
    assert run("outbound", "deliveries", "--merchant", new_door().merchant.name)["deliveries"] == []
    assert said("outbound", "deliveries", "--type", "refund_failed") == "No such deliveries.\n"
    assert run("outbound", "disable", "--id", made["id"], "--reason", "moving")["disabled_reason"] == "moving"
    assert run("outbound", "replay", "--dead") == {"replayed": 0}, "its endpoint is off"
    assert run("outbound", "enable", "--id", made["id"])["enabled"] is True
    assert run("outbound", "replay", "--dead") == {"replayed": 2}
    assert run("outbound", "replay", "--dead") == {"replayed": 0}
    assert run("outbound", "list", "--merchant", door.merchant.name)["endpoints"][0]["id"] == made["id"]


@pytest.mark.django_db
def test_what_an_endpoint_has_never_had_is_made_good(door: Door, receiver: Listener) -> None:
    opened(door, "early")
    made = run("outbound", "create", "--merchant", door.merchant.name, "--url", receiver.url, "--type", "case_opened")
    recover = ("outbound", "recover", "--endpoint", made["id"], "--since", "2020-01-01T00:00:00Z")
    assert (run(*recover), run(*recover)) == ({"made": 1}, {"made": 0})


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["create", "--url", "https://hooks.example.com/"], "needs --merchant and --url"),
        (["rotate"], "needs --id"),
        (["rotate", "--id", "hook_none"], "no outbound endpoint hook_none"),
        (["log"], "no delivery"),
        (["replay"], "Say what to replay"),
        (["replay", "--id", "dlv_1", "--dead"], "Say what to replay"),
        (["replay", "--id", "dlv_none"], "no delivery dlv_none"),
        (["recover", "--since", "2026-01-01"], "needs --endpoint"),
        (["deliveries", "--type", "a", "--type", "b"], "one --type at a time"),
    ],
)
def test_a_wrong_use_is_a_sentence(words: list[str], sentence: str) -> None:
    assert sentence in refusal("outbound", *words)


# --- purge ------------------------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_what_ended_long_ago_is_deleted_in_batches_and_what_failed_stays(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recovery_site.common.purging.BATCH", 2)
    wrong = Renewal(OLD, name="w", customer="cus_w").charge_failed()
    wrong["data"]["object"]["amount"] = -1
    door.tell(NOW, wrong)
    for number in range(5):
        door.tell(NOW, Renewal(OLD, name=f"{number}", customer=f"cus_{number}").charge_failed())
    door.deliver(Renewal(OLD, name="waits", customer="cus_waits").charge_failed())
    InboxEvent.objects.update(received_at=NOW)
    assert run("purge", "--once", "--at", (NOW + timedelta(days=90)).isoformat())["inbox"] == 0
    at = (NOW + timedelta(days=90, seconds=1)).isoformat()
    assert run("purge", "--once", "--at", at)["inbox"] == 5
    assert [status for _, status, _ in door.inbox()] == ["FAILED", "RECEIVED"]
    assert run("purge", "--once", "--at", at)["inbox"] == 0


@pytest.mark.django_db
def test_deliveries_go_with_their_log_and_the_outbox_with_what_was_handled(door: Door, receiver: Listener) -> None:
    run("outbound", "create", "--merchant", door.merchant.name, "--url", receiver.url, "--type", "case_opened")
    for number in range(3):
        opened(door, f"{number}")
    ended, given_up, waits = Delivery.objects.order_by("pk")
    run("send_webhooks", "--once", "--at", NOW.isoformat())
    Delivery.objects.filter(pk=waits.pk).update(status="PENDING", finished_at=None, due_at=Now() + timedelta(days=1))
    at = (NOW + timedelta(days=30, seconds=1)).isoformat()
    assert run("purge", "--once", "--at", at)["deliveries"] == 0, "made just now, by the database's clock"
    Delivery.objects.update(created_at=Now() - timedelta(days=31))
    assert run("purge", "--once", "--at", at)["deliveries"] == 2
    assert list(Delivery.objects.values_list("pk", flat=True)) == [waits.pk]
    assert not DeliveryTry.objects.filter(delivery__in=[ended.pk, given_up.pk]).exists()
    OutboundEndpoint.objects.update(enabled=False)
    assert run("purge", "--once", "--at", at)["deliveries"] == 1, "its endpoint has been off as long"

    assert OutboxMessage.objects.count() > 2
    kept = OutboxMessage.objects.order_by("pk").first()
    assert kept is not None
    OutboxMessage.objects.exclude(pk=kept.pk).update(done_at=NOW)
    assert outbox_purge(now=NOW + timedelta(days=2), keep=timedelta(days=1)) == 0, "recorded just now"
    assert outbox_purge(now=NOW + timedelta(days=2), keep=timedelta(microseconds=1)) > 0
    assert list(OutboxMessage.objects.all()) == [kept]
