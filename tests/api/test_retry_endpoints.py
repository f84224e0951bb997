"""`/payments/retry/...`: a failed payment handed over, asked for, taken back."""

from datetime import datetime, timedelta
from typing import Any

import pytest

from invoices.models import Attempt, Connection, Customer, Event, Invoice
from recovery_site.common import clock
from retries.models import Case, RetryJob
from tests.api.door import Door

pytestmark = pytest.mark.django_db


def failed(**changes: Any) -> dict[str, Any]:
    metadata = {
        "user_id": "user_7",
        "amount": 4990,
        "currency": "usd",
        "payment_intent_id": "pi_7",
        "payment_method_id": "pm_7",
        "description": "Team plan",
        **changes,
    }
    return {"error": {"code": "insufficient_funds", "message": "Not enough money."}, "metadata": metadata}


@pytest.fixture
def charging(door: Door) -> Connection:
    """A connection that we charge through."""
    body = {"provider": "simulator", "config": {"mode": "charge"}}
    from invoices.services.parties import connection_create

    return connection_create(merchant=door.merchant, **body)


def test_a_failed_payment_of_strangers_becomes_a_planned_retry(door: Door, charging: Connection) -> None:
    told = door.post("/payments/retry/order-7", failed(), status=201)

    invoice = Invoice.objects.get()
    assert (invoice.provider_invoice_id, invoice.amount_minor, invoice.currency) == ("order-7", 4990, "USD")
    assert Customer.objects.get().connector_customer_id == "user_7"
    attempt = Attempt.objects.get()
    assert (attempt.status, attempt.raw_code, attempt.provider_payment_id) == ("DECLINED", "insufficient_funds", "pi_7")
    job = RetryJob.objects.get()
    assert told == {
        "transaction_id": "order-7",
        "transaction": invoice.transactions.get().public_id,
        "invoice": invoice.public_id,
        "customer": invoice.customer.public_id,
        "connection": charging.public_id,
        "case": Case.objects.get().public_id,
        "job": job.public_id,
        "status": "booked",
        "attempts": 0,
        "max_attempts": 2,
        "total_attempts": 1,
        "priority": job.band,
        "next_retry_at": job.due_at.isoformat().replace("+00:00", "Z"),
        "token": attempt.token.public_id if attempt.token else "",
        "created_at": told["created_at"],
        "error": {
            "code": "insufficient_funds",
            "message": "Not enough money.",
            "category": "INSUFFICIENT_FUNDS",
        },
        "metadata": {
            "user_id": "user_7",
            "amount": 4990,
            "currency": "USD",
            "payment_intent_id": "pi_7",
            "payment_method_id": "pm_7",
            "description": "Team plan",
        },
        "reason": Case.objects.get().why,
    }
    assert datetime.fromisoformat(told["next_retry_at"]) - clock.now() > timedelta(hours=23)
    assert door.get("/payments/retry/order-7") == told
    by_ours = door.get(f"/payments/retry/{told['transaction']}")
    assert by_ours == {**told, "transaction_id": told["transaction"]}


def test_camel_case_names_are_aliases(door: Door, charging: Connection) -> None:
    body = {
        "error": {"code": "insufficient_funds", "networkCode": "51"},
        "metadata": {
            "userId": "user_7",
            "amount": "49.90",
            "currency": "USD",
            "paymentIntentId": "pi_7",
            "paymentMethodId": "pm_7",
        },
    }
    told = door.post("/payments/retry/order-7", body, status=201)
    assert (told["metadata"]["user_id"], told["metadata"]["amount"]) == ("user_7", 4990)
    assert Attempt.objects.get().network_code == "51"


def test_the_same_failure_told_again_changes_nothing(door: Door, charging: Connection) -> None:
    first = door.post("/payments/retry/order-7", failed(), status=201)
    events = Event.objects.count()
    assert door.post("/payments/retry/order-7", failed()) == first
    assert door.post("/payments/retry/order-7", {"error": {"code": "insufficient_funds"}}) == first
    assert (Attempt.objects.count(), Event.objects.count()) == (1, events)


def test_card_declined_is_never_tried_again(door: Door, charging: Connection) -> None:
    body = failed() | {"error": {"code": "card_declined"}}
    told = door.post("/payments/retry/order-7", body, status=201)
    assert (told["status"], told["next_retry_at"], told["max_attempts"], told["job"]) == ("customer", None, 0, "")
    assert told["error"]["category"] == "HARD_DECLINE"
    assert "payment method" in told["reason"] or "declined" in told["reason"]


def test_a_canceled_retry_leaves_the_debt(door: Door, charging: Connection) -> None:
    door.post("/payments/retry/order-7", failed(), status=201)
    told = door.delete("/payments/retry/order-7")
    assert (told["status"], told["next_retry_at"], told["job"]) == ("canceled", None, "")
    assert Invoice.objects.get().status == "PROCESS_FAILED"
    assert RetryJob.objects.get().status == "CANCELED"
    assert Invoice.objects.get().events.filter(kind="staff.cancel_retry").get().actor == f"key:{door.row.prefix}"

    again = door.delete("/payments/retry/order-7", status=409)
    assert again["code"] == "conflict"


@pytest.mark.parametrize(
    ("body", "field", "code"),
    [
        ({}, "error", "required"),
        ({"error": {}}, "error.code", "required"),
        (failed(amount=49.9), "metadata.amount", "float_amount"),
        (failed(amount=-1), "metadata.amount", "invalid"),
        (failed(amount=True), "metadata.amount", "invalid"),
        (failed(amount="49.999"), "metadata.amount", "invalid"),
        (failed(currency="USDX"), "metadata.currency", "currency_unknown"),
        (failed(currency="XXQ"), "metadata.currency", "currency_unknown"),
        (failed(usr_id="x"), "metadata.usr_id", "unknown_field"),
        (failed(userId="x"), "metadata.userId", "given_twice"),
        (failed(user_id="a\nb"), "metadata.user_id", "invalid"),
    ],
)
def test_a_refusal_names_the_field(
    door: Door, charging: Connection, body: dict[str, Any], field: str, code: str
) -> None:
    told = door.post("/payments/retry/order-7", body, status=400)
    assert told["code"] == "validation_failed"
    assert [(error["field"], error["code"]) for error in told["errors"]] == [(field, code)]
    assert not Invoice.objects.exists()


def test_a_float_is_told_what_to_send_instead(door: Door) -> None:
    told = door.post("/payments/retry/order-7", failed(amount=49.9), status=400)
    assert "send integer minor units or a decimal string" in told["detail"]


def test_an_unknown_transaction_is_not_found(door: Door) -> None:
    for method in ("GET", "DELETE"):
        answer = door.send(method, "/payments/retry/nobody")
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
