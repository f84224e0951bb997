"""A POST with an Idempotency-Key happens once, whatever becomes of its answer."""

import threading
from typing import Any

import pytest
from django.db import connection, transaction

from accounts.models import IdempotencyRecord
from invoices.models import Connection, Event, Invoice
from invoices.services.parties import connection_create
from tests.api.door import Door

BODY = {
    "error": {"code": "insufficient_funds"},
    "metadata": {"user_id": "user_7", "amount": 4990, "currency": "USD", "payment_method_id": "pm_7"},
}


@pytest.fixture
def charging(door: Door) -> Connection:
    return connection_create(merchant=door.merchant, provider="simulator", config={"mode": "charge"})


@pytest.mark.django_db
def test_the_same_request_again_gets_the_same_answer(door: Door, charging: Connection) -> None:
    first = door.send("POST", "/payments/retry/order-7", BODY, idempotency_key="k 1")
    events = Event.objects.count()
    turned = {"metadata": dict(reversed(BODY["metadata"].items())), "error": BODY["error"]}
    again = door.send("POST", "/payments/retry/order-7", turned, idempotency_key="k 1")
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.content == first.content
    assert ("Idempotency-Replayed" in first.headers, again.headers["Idempotency-Replayed"]) == (False, "true")
    assert Event.objects.count() == events


@pytest.mark.django_db
def test_another_request_under_the_key_is_refused(door: Door, charging: Connection) -> None:
    door.post("/payments/retry/order-7", BODY, status=201, idempotency_key="k1")
    other = door.post("/payments/retry/order-8", BODY, status=422, idempotency_key="k1")
    assert other["code"] == "idempotency_key_reused"
    assert not Invoice.objects.filter(provider_invoice_id="order-8").exists()


@pytest.mark.django_db
def test_a_key_belongs_to_the_merchant_not_to_the_credential(door: Door, charging: Connection) -> None:
    first = door.post("/payments/retry/order-7", BODY, status=201, idempotency_key="k1")
    assert Door(merchant=door.merchant).post("/payments/retry/order-7", BODY, 201, idempotency_key="k1") == first
    stranger = Door()
    connection_create(merchant=stranger.merchant, provider="simulator", config={"mode": "charge"})
    told = stranger.post("/payments/retry/order-7", BODY, status=201, idempotency_key="k1")
    assert told["invoice"] != first["invoice"]


@pytest.mark.django_db
def test_a_refusal_is_not_kept_for_nothing_happened(door: Door, charging: Connection) -> None:
    door.post("/payments/retry/order-7", {"error": {}}, status=400, idempotency_key="k1")
    assert not IdempotencyRecord.objects.exists()
    door.post("/payments/retry/order-7", BODY, status=201, idempotency_key="k1")


@pytest.mark.django_db
@pytest.mark.parametrize("key", ["", "x" * 256, "a\tb"])
def test_a_key_that_cannot_be_one_is_refused(door: Door, key: str) -> None:
    told = door.post("/payments/retry/order-7", BODY, status=400, idempotency_key=key)
    assert told["code"] == "idempotency_key_invalid"


@pytest.mark.django_db
def test_kept_answers_are_encrypted(door: Door, charging: Connection) -> None:
    door.post("/payments/retry/order-7", BODY, status=201, idempotency_key="k1")
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM accounts_idempotencyrecord r WHERE r::text LIKE '%user_7%'")
        assert cursor.fetchone() == (0,)
    assert IdempotencyRecord.objects.get().answer_encrypted


@pytest.mark.django_db(transaction=True)
def test_a_request_in_flight_is_not_run_beside_itself(door: Door, charging: Connection) -> None:
    """One of them waits inside its work until the other was answered."""
    inside, go_on = threading.Event(), threading.Event()
    answers: list[Any] = []

    def stop(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if sql.startswith('INSERT INTO "invoices_invoice"'):
            inside.set()
            assert go_on.wait(60)
        return execute(sql, params, many, context)

    def send() -> None:
        try:
            with connection.execute_wrapper(stop):
                answers.append(door.send("POST", "/payments/retry/order-7", BODY, idempotency_key="k1"))
        finally:
            connection.close()

    thread = threading.Thread(target=send)
    thread.start()
    assert inside.wait(60)
    beside = door.send("POST", "/payments/retry/order-7", BODY, idempotency_key="k1")
    go_on.set()
    thread.join(60)
    assert (beside.status_code, beside.json()["code"]) == (409, "idempotency_in_flight")
    assert int(beside.headers["Retry-After"]) >= 1
    assert answers[0].status_code == 201
    after = door.send("POST", "/payments/retry/order-7", BODY, idempotency_key="k1")
    assert (after.status_code, after.content) == (201, answers[0].content)
    assert Invoice.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_a_crash_between_the_row_and_the_answer_leaves_nothing_behind(door: Door, charging: Connection) -> None:
    """The process dies where the answer is about to be kept; its connection ends, and with it lock, row and effect."""

    class Died(BaseException):
        pass

    def die(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if sql.startswith('UPDATE "accounts_idempotencyrecord"'):
            raise Died
        return execute(sql, params, many, context)

    def crash() -> None:
        try:
            with connection.execute_wrapper(die):
                door.send("POST", "/payments/retry/order-7", BODY, idempotency_key="k1")
        except Died:
            seen.append("died")
        finally:
            connection.close()

    seen: list[str] = []
    thread = threading.Thread(target=crash)
    thread.start()
    thread.join(60)
    assert seen == ["died"]
    assert not Invoice.objects.exists()
    told = door.post("/payments/retry/order-7", BODY, status=201, idempotency_key="k1")
    assert door.post("/payments/retry/order-7", BODY, status=201, idempotency_key="k1") == told
    assert Invoice.objects.count() == 1
    assert transaction.get_autocommit()
