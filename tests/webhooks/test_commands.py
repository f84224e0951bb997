"""`inbox`, `webhook_endpoint` and `process_inbox`, as an operator types them."""

import json
from datetime import UTC, datetime
from io import StringIO
from typing import Any
from uuid import uuid4

import pytest
from django.core.management import CommandError, call_command

from accounts.services import merchant_create
from tests.webhooks.conftest import NewDoor
from tests.webhooks.door import SECRET, Body, Door, encoded, ledger, rows, signature
from tests.webhooks.renewal import OLD, Renewal, moment
from webhooks.models import InboxEvent, WebhookEndpoint
from webhooks.services import endpoint_secrets

pytestmark = pytest.mark.django_db


def run(*words: object) -> dict[str, Any]:
    """The command's one JSON object."""
    out = StringIO()
    call_command(*map(str, words), "--json", stdout=out)
    found: dict[str, Any] = json.loads(out.getvalue())
    return found


def said(*words: object) -> str:
    out = StringIO()
    call_command(*map(str, words), stdout=out)
    return out.getvalue()


def refusal(*words: object) -> str:
    with pytest.raises(CommandError) as raised:
        run(*words)
    return str(raised.value)


@pytest.fixture
def numbers(door: Door) -> list[int]:
    """The numbers of a processed, an ignored, a failed and a waiting item."""
    renewal = Renewal(OLD)
    wrong: Body = renewal.intent_failed()
    wrong["data"]["object"]["amount"] = -1
    door.tell(moment(10), renewal.charge_failed(), renewal.past_due(), wrong)
    door.deliver(renewal.invoice_failed())
    return list(InboxEvent.objects.order_by("pk").values_list("pk", flat=True))


def test_the_inbox_is_listed_newest_first(door: Door, numbers: list[int]) -> None:
    items = run("inbox", "list")["items"]
    assert [(item["id"], item["type"], item["status"]) for item in items] == [
        (numbers[3], "invoice.payment_failed", "RECEIVED"),
        (numbers[2], "payment_intent.payment_failed", "FAILED"),
        (numbers[1], "customer.subscription.updated", "IGNORED"),
        (numbers[0], "charge.failed", "PROCESSED"),
    ]
    failed = items[1]
    assert (failed["merchant"], failed["about"], failed["tries"]) == (door.merchant.name, "in_1", 0)
    assert "payment_intent.amount cannot be used" in failed["reason"]
    assert failed["processed_at"] == moment(10).isoformat()
    assert items[0]["processed_at"] is None


def test_the_list_can_be_narrowed(door: Door, numbers: list[int], new_door: NewDoor) -> None:
    other = new_door()
    other.deliver(Renewal(OLD).charge_failed())

    def listed(*words: str) -> list[int]:
        return [item["id"] for item in run("inbox", "list", *words)["items"]]

    assert listed("--failed") == listed("--status", "FAILED") == [numbers[2]]
    assert listed("--type", "charge.failed", "--merchant", door.merchant.name) == [numbers[0]]
    assert listed("--merchant", other.merchant.name, "--failed") == []
    assert len(listed("--limit", "2")) == 2
    assert said("inbox", "list", "--merchant", other.merchant.name, "--failed") == "No such items.\n"
    line = said("inbox", "list", "--type", "customer.subscription.updated")
    assert f"{numbers[1]}  " in line
    assert "IGNORED    customer.subscription.updated" in line


def test_items_are_replayed_by_number(door: Door, numbers: list[int]) -> None:
    before = ledger(door.merchant)
    assert run("inbox", "replay", "--id", numbers[0], "--id", numbers[1], "--id", numbers[3]) == {
        "replayed": numbers[:2],
        "already_waiting": [numbers[3]],
    }
    replayed = InboxEvent.objects.filter(pk__in=numbers[:2])
    assert set(replayed.values_list("status", "reason")) == {("RECEIVED", "Replayed by operator")}
    assert run("process_inbox", "--once", "--at", moment(20).isoformat()) == {"processed": 2, "failed": 0, "ignored": 1}
    after = ledger(door.merchant)
    assert [one["attempts"] for one in after] == [one["attempts"] for one in before], "and nothing is counted twice"


def test_failed_items_are_replayed_together(numbers: list[int]) -> None:
    assert run("inbox", "replay", "--failed") == {"replayed": [numbers[2]], "already_waiting": []}
    assert run("inbox", "replay", "--failed") == {"replayed": [], "already_waiting": []}


def test_one_type_is_replayed_whatever_its_end(numbers: list[int]) -> None:
    assert run("inbox", "replay", "--type", "customer.subscription.updated")["replayed"] == [numbers[1]]
    assert run("inbox", "replay", "--type", "invoice.payment_failed")["replayed"] == [], "that one waits anyway"
    assert run("inbox", "replay", "--type", "charge.failed", "--failed")["replayed"] == []
    text = said("inbox", "replay", "--type", "charge.failed")
    assert text == "1 put back; the worker runs them again (or manage.py process_inbox --once).\n"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["replay"], "Say what to replay"),
        (["replay", "--id", "1", "--failed"], "Say what to replay"),
        (["replay", "--status", "FAILED"], "--status is for list"),
        (["replay", "--id", "0"], "does not exist"),
        (["list", "--id", "1"], "--id is for replay"),
        (["list", "--limit", "0"], "at least 1"),
        (["list", "--merchant", "Nobody"], "Nobody"),
    ],
)
def test_a_wrong_use_is_a_sentence_and_changes_nothing(numbers: list[int], words: list[str], sentence: str) -> None:
    before = list(InboxEvent.objects.order_by("pk").values_list("status", "reason"))
    assert sentence in refusal("inbox", *words)
    assert list(InboxEvent.objects.order_by("pk").values_list("status", "reason")) == before


def test_an_endpoint_is_created_and_its_address_works(door: Door) -> None:
    made = run("webhook_endpoint", "create", "--merchant", door.merchant.name, "--provider", "stripe", "--secret", "s1")
    assert made["url"] == f"/webhooks/stripe/{made['id']}/"
    body = encoded(Renewal(OLD).charge_failed())
    assert door.post(body, path=made["url"], header=signature(body, secret="s1")).status_code == 200
    created = WebhookEndpoint.objects.get(uuid=made["id"])
    assert (created.connection, created.merchant) == (door.connection, door.merchant), "the only one there is"


def test_a_merchant_without_a_connection_is_only_observed() -> None:
    merchant_create(name="Newcomer")
    made = run("webhook_endpoint", "create", "--merchant", "Newcomer", "--provider", "stripe", "--secret", "s1")
    connection = WebhookEndpoint.objects.get(uuid=made["id"]).connection
    assert (connection.provider, connection.mode) == ("stripe", "observe")


def test_a_secret_is_rotated_from_the_command_line(door: Door) -> None:
    made = run("webhook_endpoint", "rotate", "--id", door.endpoint.uuid, "--secret", "whsec_next")
    assert made == {"id": str(door.endpoint.uuid), "url": door.path}
    door.endpoint.refresh_from_db()
    assert endpoint_secrets(door.endpoint) == ["whsec_next", SECRET]


def test_endpoint_commands_that_cannot_work_say_why(door: Door, new_door: NewDoor) -> None:
    before = rows()
    mine = ["--merchant", door.merchant.name]
    assert "needs --merchant and --provider" in refusal("webhook_endpoint", "create", "--secret", "x")
    assert "needs --id" in refusal("webhook_endpoint", "rotate", "--secret", "x")
    assert "no webhook endpoint" in refusal("webhook_endpoint", "rotate", "--id", uuid4(), "--secret", "x")
    assert "Unknown provider 'strip'" in refusal(
        "webhook_endpoint", "create", *mine, "--provider", "strip", "--secret", "x"
    )
    assert "needs the secret" in refusal("webhook_endpoint", "create", *mine, "--provider", "stripe", "--secret", "")
    assert rows() == before
    other = new_door()
    told = ["--provider", "stripe", "--secret", "x", "--connection", other.connection.public_id]
    assert "has no connection" in refusal("webhook_endpoint", "create", *mine, *told)


def test_the_time_of_a_drain_can_be_given(door: Door) -> None:
    door.deliver(Renewal(OLD).charge_failed())
    at = datetime(2026, 1, 1, 9, 5, tzinfo=UTC)
    assert run("process_inbox", "--once", "--at", "2026-01-01T09:05:00Z") == {"processed": 1, "failed": 0, "ignored": 0}
    assert InboxEvent.objects.get().processed_at == at
