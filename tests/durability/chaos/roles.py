"""What a worker process of the harness does: `perform` is called once, in a process that was forked for it."""

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import requests
from django.apps import apps
from django.conf import settings
from django.db import connection
from django.db.models.functions import Now
from standardwebhooks import Webhook

from accounts.models import Merchant
from accounts.services import merchant_create
from invoices.models import Attempt, Connection, Invoice, ReviewItem, Transaction
from invoices.services.ledger import Stamp
from invoices.services.parties import connection_create
from invoices.states import InvoiceStatus
from providers import registry
from providers.base import InboundRequest
from recovery_site.common import clock
from recovery_site.common.errors import Conflict, InvalidInput
from retries.engine import drain
from retries.models import RetryJob
from retries.reconciliation import reconcile
from retries.refunding import refund_request
from retries.services.answers import review_answer
from retries.services.manual import invoice_cancel
from tests.durability.chaos import places
from tests.durability.chaos.judge import Stand, problems_of
from tests.support.sandbox import Sandbox
from webhooks.models import InboxEvent, WebhookEndpoint
from webhooks.services import endpoint_create, inbox_drain, inbox_receive

Order = Mapping[str, Any]
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
# What the providers and the commands import only when they are asked for the first time: once, before the forks.
WARM = ("generic", "sandbox")
_OURS = ("accounts", "invoices", "tokens", "retries", "webhooks", "notifications", "analytics", "django_q")
# How far the clock goes in each turn of the calm that follows: past every waiting time that a machine ends by itself.
CALM = (
    timedelta(minutes=35),
    timedelta(minutes=35),
    timedelta(hours=13),
    timedelta(hours=13),
    timedelta(hours=26),
    timedelta(hours=26),
)


def warm_up() -> None:
    """Import before the first fork what would be imported in each."""
    for name in WARM:
        registry.dialect(name)
    registry.client("sandbox", {"base_url": "http://127.0.0.1:9"})


def perform(order: Order) -> Any:
    """Arm what the order wants armed, then do it."""
    settings.RETRY_LOCK_TIMEOUT = timedelta(seconds=order.get("lease", 60))
    places.answer_look_ups(order.get("lookup", "authoritative"))
    for name in order.get("guards_off", ()):
        places.GUARDS[name]()
    if blow := order.get("blow"):
        places.place_blow(*blow)
    at = datetime.fromisoformat(order["at"]) if "at" in order else datetime.now(UTC)
    clock.now = lambda: at  # type: ignore[assignment]
    return _ROLES[order["role"]](order, at)


# --- workers ------------------------------------------------------------------------------------------------------


def _retries(order: Order, at: datetime) -> Any:
    return drain.retries_drain(now=at, threads=order["threads"]).as_dict()


def _reconcile(order: Order, at: datetime) -> Any:
    return reconcile(now=at, drain=True).errors


def _inbox(order: Order, at: datetime) -> Any:
    return inbox_drain(now=at).as_dict()


# --- the stage ----------------------------------------------------------------------------------------------------


def _clear(order: Order, at: datetime) -> None:
    """An empty ledger: nothing of the story before may go on in this one."""
    tables = [model._meta.db_table for name in _OURS if apps.is_installed(name) for model in _models(name)]
    keep = ("accounts_user",)
    names = ", ".join(f'"{table}"' for table in tables if not table.startswith(keep))
    with connection.cursor() as cursor:
        cursor.execute(f"TRUNCATE {names} RESTART IDENTITY CASCADE")


def _models(name: str) -> list[Any]:
    return list(apps.get_app_config(name).get_models())


def _begin(order: Order, at: datetime) -> dict[str, int]:
    """A merchant at the sandbox, whose own billing system tells the first failures."""
    _clear(order, at)
    merchant = merchant_create(name=order["name"]).merchant
    config = {"api_key": "k", "base_url": order["url"], "mode": "charge", "timeout_seconds": order["timeout"]}
    account = connection_create(merchant=merchant, provider="sandbox", config=config)
    ends = [
        endpoint_create(merchant=merchant, provider=provider, secret=SECRET, connection=account)
        for provider in ("generic", "sandbox")
    ]
    for body in order["failures"]:
        _deliver(ends[0], body["id"], json.dumps(body["event"]), at)
    inbox_drain(now=at)
    return {"merchant": merchant.pk, "connection": account.pk}


def _deliver(endpoint: WebhookEndpoint, name: str, body: str, at: datetime) -> None:
    real = datetime.now(UTC)
    headers = {
        "webhook-id": name,
        "webhook-timestamp": str(int(real.timestamp())),
        "webhook-signature": Webhook(SECRET).sign(name, real, body),
    }
    inbox_receive(
        endpoint=endpoint,
        request=InboundRequest(body=body.encode(), headers=headers),
        now=at,
        clock=real.timestamp(),
        tolerance_seconds=300,
    )


def _between(order: Order, at: datetime) -> None:
    """Between two rounds: who died has lost its lease, webhooks arrive, people act."""
    leases_pass()
    endpoint = WebhookEndpoint.objects.get(provider="sandbox")
    for name, body in order["webhooks"]:
        _deliver(endpoint, name, body, at)
    for act, number in order["acts"]:
        invoices = list(Invoice.objects.order_by("pk"))
        _act(act, invoices[number % len(invoices)], at)


def leases_pass() -> None:
    """As if the database's clock had moved past every lease: all who held one are dead, or sleep longer than that."""
    past = Now() - timedelta(hours=1)
    Attempt.objects.filter(lease_until__isnull=False).update(lease_until=past)
    RetryJob.objects.filter(lease_until__isnull=False).update(lease_until=past)
    InboxEvent.objects.filter(status="RECEIVED").update(due_at=Now())


def _act(act: str, invoice: Invoice, at: datetime) -> None:
    stamp = Stamp(actor="user:1", cause="staff: chaos", now=at)
    try:
        if act == "cancel":
            invoice_cancel(invoice_pk=invoice.pk, stamp=stamp, reason="given up")
        elif act in ("refund", "refund_part"):
            amount = 500 if act == "refund_part" else None
            refund_request(invoice_pk=invoice.pk, amount_minor=amount, reason="asked for", stamp=stamp)
    except (Conflict, InvalidInput):
        pass  # what is not possible now was not possible for a person either


# --- the end ------------------------------------------------------------------------------------------------------


def _calm(order: Order, at: datetime) -> str:
    """Nothing breaks any more: sweeps run, people answer what they are asked. Returns the time it is then."""
    Connection.objects.update(settings={"timeout_seconds": 60})
    sandbox = Sandbox(order["url"])
    for gap in CALM:
        at += gap
        leases_pass()
        reconcile(now=at, drain=True)
        inbox_drain(now=at)
        drain.retries_drain(now=at)
        _answer(sandbox, at)
        _settle(order["url"])
    leases_pass()
    reconcile(now=at, drain=True)
    inbox_drain(now=at)
    return at.isoformat()


def _answer(sandbox: Sandbox, at: datetime) -> None:
    """A person looks the reference up at the provider, and says what is there."""
    ledger = requests.get(f"{sandbox.url}/ledger", timeout=30).json()
    charges = {row["reference"]: row["status"] for row in ledger["charges"]}
    refunds = {row["reference"]: row["status"] for row in ledger["refunds"]}
    for item in ReviewItem.objects.filter(resolved_at=None).order_by("pk"):
        answer = ""
        if {"charged", "not_charged"} <= set(item.choices):
            answer = "charged" if charges.get(item.subject_id) == "succeeded" else "not_charged"
        elif "refunded" in item.choices:
            answer = "refunded" if refunds.get(item.subject_id) == "succeeded" else "not_refunded"
        if answer and item.kind != "mismatch":
            review_answer(item_pk=item.pk, answer=answer, stamp=Stamp("user:2", "staff queue", at), note="looked it up")


def _settle(url: str) -> None:
    """Banks end what was pending."""
    ledger = requests.get(f"{url}/ledger", timeout=30).json()
    for kind in ("charges", "refunds"):
        for row in ledger[kind]:
            if row["status"] == "pending":
                requests.post(f"{url}/{kind}/{row['id']}/settle", json={"status": "succeeded"}, timeout=30)


def _judge(order: Order, at: datetime) -> list[str]:
    stand = Stand(
        merchant=Merchant.objects.get(), connection=Connection.objects.get(), sandbox=Sandbox(order["url"]), at=at
    )
    return problems_of(stand)


def _state(order: Order, at: datetime) -> dict[str, Any]:
    """For a person who replays a seed."""
    return {
        "invoices": list(Invoice.objects.order_by("pk").values_list("provider_invoice_id", "status", "paid_minor")),
        "attempts": list(
            Attempt.objects.order_by("pk").values_list("public_id", "kind", "origin", "status", "invoice_id", "resends")
        ),
        "settled": Invoice.objects.filter(status=InvoiceStatus.SETTLED).count(),
        "refunds": list(Transaction.objects.filter(kind="REFUND").values_list("status", "amount_minor")),
        "questions": list(ReviewItem.objects.order_by("pk").values_list("kind", "subject_id", "resolution")),
        "jobs": list(RetryJob.objects.order_by("pk").values_list("invoice_id", "status", "last_error")),
    }


_ROLES: Mapping[str, Callable[[Order, datetime], Any]] = {
    "begin": _begin,
    "between": _between,
    "retries": _retries,
    "reconcile": _reconcile,
    "inbox": _inbox,
    "calm": _calm,
    "judge": _judge,
    "state": _state,
}
