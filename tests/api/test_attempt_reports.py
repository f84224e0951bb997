"""Merchants who charge themselves: each try is reported, each answer says when to try next, or why not."""

from datetime import datetime
from typing import Any

import pytest

from invoices.models import Attempt, Connection
from tests.api.door import Door

pytestmark = pytest.mark.django_db


def tried(charge: str, status: str = "declined", **error: str) -> dict[str, Any]:
    body: dict[str, Any] = {
        "transaction_id": "order-7",
        "charge_id": charge,
        "status": status,
        "metadata": {"user_id": "user_7", "amount": "49.90", "currency": "EUR", "payment_method_id": "pm_7"},
    }
    return body | ({"error": {"code": "insufficient_funds", **error}} if status == "declined" else {})


def test_a_merchant_without_a_connection_reports_and_is_told_when(door: Door) -> None:
    first = door.post("/payments/attempts", tried("ch_1"), status=201)
    assert Connection.objects.get().mode == "schedule"
    assert (first["status"], first["attempts"], first["max_attempts"]) == ("booked", 0, 2)
    assert first["metadata"]["payment_method_id"] == "pm_7"
    assert datetime.fromisoformat(first["next_retry_at"])
    assert door.post("/payments/attempts", tried("ch_1")) == first

    second = door.post("/payments/attempts", tried("ch_2"))
    assert (second["status"], second["attempts"], second["total_attempts"]) == ("booked", 1, 2)
    third = door.post("/payments/attempts", tried("ch_3"))
    assert (third["status"], third["attempts"], third["next_retry_at"]) == ("customer", 2, None)
    assert "spent" in third["reason"]
    paid = door.post("/payments/attempts", tried("ch_4", "succeeded"))
    assert (paid["status"], paid["next_retry_at"]) == ("recovered", None)
    assert [attempt.origin for attempt in Attempt.objects.all()] == ["OUTSIDE"] * 4


def test_a_hard_decline_says_why_not(door: Door) -> None:
    told = door.post("/payments/attempts", tried("ch_1", code="card_declined"), status=201)
    assert (told["status"], told["next_retry_at"], told["error"]["category"]) == ("customer", None, "HARD_DECLINE")
    assert told["reason"]


def test_declined_needs_its_error_and_nothing_else_has_one(door: Door) -> None:
    body = tried("ch_1")
    del body["error"]
    for wrong in (body, tried("ch_1") | {"status": "succeeded"}):
        told = door.post("/payments/attempts", wrong, status=400)
        assert [error["field"] for error in told["errors"]] == ["error"]
