"""`/payments/process` against a real provider on a local port, `/payments/...`, and the actions on invoices."""

from typing import Any

import pytest

from invoices.models import Attempt, Invoice
from retries.models import Case
from tests.api.door import Door
from tests.support.books import assert_promises
from tests.support.shop import Shop

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def now_is(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> Shop:
    monkeypatch.setattr("recovery_site.common.clock.now", lambda: shop.at)
    return shop


def test_a_known_payment_is_charged_once_however_often_it_is_asked_for(now_is: Shop, redis_client: Any) -> None:
    shop, door = now_is, Door(merchant=now_is.merchant)
    bill = shop.failed_bill("tok_ok")
    shop.wait(hours=2)
    told = door.post("/payments/process", {"transaction_id": bill.id}, idempotency_key="k1")
    assert (told["success"], told["should_retry"], told["next_retry_at"]) == (True, False, None)
    assert told["retry"]["status"] == "recovered"
    assert door.post("/payments/process", {"transaction_id": bill.id}, idempotency_key="k1") == told
    assert door.post("/payments/process", {"transactionId": bill.id})["success"] is True
    assert shop.charged(bill) == 2500
    assert door.get(f"/payments/{bill.id}")["status"] == "SETTLED"


def test_a_declined_one_goes_on_by_itself(now_is: Shop, redis_client: Any) -> None:
    shop, door = now_is, Door(merchant=now_is.merchant)
    bill = shop.failed_bill("tok_decline_insufficient_funds")
    shop.wait(hours=2)
    told = door.post("/payments/process", {"transaction_id": bill.id})
    assert (told["success"], told["should_retry"]) == (False, True)
    assert told["next_retry_at"] is not None
    assert told["reason"] == Case.objects.get().why
    assert Attempt.objects.filter(origin="OURS").count() == 1
    user = door.get(f"/payments/retry/user/{bill.customer}")["data"]
    assert [(one["transaction_id"], one["status"]) for one in user] == [(bill.id, "booked")]
    stats = door.get("/payments/retry/stats")
    assert stats == {
        "total": 1,
        "pending": 1,
        "amounts": {"USD": 2500},
        "by_error_code": {"insufficient_funds": 1},
    }


def test_pause_resume_cancel_refund_follow_scope_and_state(now_is: Shop, redis_client: Any) -> None:
    shop, door = now_is, Door(merchant=now_is.merchant)
    bill, paid = shop.failed_bill("tok_ok"), shop.failed_bill("tok_ok")
    invoice, settled = shop.invoice(bill).public_id, shop.invoice(paid).public_id
    reader = Door(merchant=shop.merchant, scopes=("read",))
    refused = reader.post(f"/invoices/{invoice}/pause", {"reason": "x"}, status=403)
    assert (refused["code"], "payments" in refused["detail"]) == ("scope_missing", True)
    door.post(f"/invoices/{invoice}/pause", {"reason": "customer asked"})
    assert door.get(f"/invoices/{invoice}")["case"]["next_step"] == "paused"
    shop.retry(paid)
    assert door.post(f"/invoices/{invoice}/pause", {"reason": "x"}, status=409)["code"] == "conflict"
    door.post(f"/invoices/{invoice}/resume", {"reason": "go on"})
    assert door.get(f"/invoices/{invoice}")["case"]["next_step"] == "booked"
    door.post(f"/invoices/{invoice}/cancel", {"reason": "given up"})
    assert Invoice.objects.get(public_id=invoice).status == "CANCELED"
    refund = door.post(f"/invoices/{settled}/refunds", {"reason": "wish", "amount": "10.00"}, status=201)
    assert (refund["kind"], refund["amount_minor"], refund["created_by"]) == ("REFUND", 1000, f"key:{door.row.prefix}")
    too_much = door.post(f"/invoices/{settled}/refunds", {"reason": "wish", "amount": 999_999}, status=400)
    assert too_much["code"] == "invalid_input"


def order(shop: Shop, name: str, token: str) -> dict[str, Any]:
    metadata = {"user_id": f"cus_{name}", "amount": "25.00", "currency": "USD", "payment_method_id": token}
    return {"transaction_id": name, "metadata": metadata}


def test_a_payment_that_is_new_is_created_and_charged_for_the_first_time(now_is: Shop, redis_client: Any) -> None:
    shop, door = now_is, Door(merchant=now_is.merchant)
    body = order(shop, f"order-{shop.name}", f"tok_ok__{shop.name}")
    told = door.post("/payments/process", body, idempotency_key="k1")
    assert (told["success"], told["retry"]["status"], told["retry"]["case"]) == (True, "succeeded", "")
    assert door.post("/payments/process", body) == told  # paid: nothing is charged again
    (charge,) = shop.sandbox.charges(body["metadata"]["user_id"])
    assert (charge["amount"], charge["token"]) == (2500, body["metadata"]["payment_method_id"])
    assert Case.objects.count() == 0  # nothing has failed, so nothing was recovered
    assert_promises(shop)


def test_its_decline_opens_a_case_whose_retries_begin_at_none(now_is: Shop, redis_client: Any) -> None:
    shop, door = now_is, Door(merchant=now_is.merchant)
    body = order(shop, f"order-{shop.name}", f"tok_decline_insufficient_funds__{shop.name}")
    told = door.post("/payments/process", body)
    assert (told["success"], told["should_retry"], told["retry"]["status"]) == (False, True, "booked")
    assert (told["retry"]["attempts"], told["retry"]["total_attempts"]) == (0, 1)
    assert_promises(shop)


def test_its_lost_answer_is_being_looked_up_not_failed(now_is: Shop, redis_client: Any) -> None:
    shop, door = now_is, Door(merchant=now_is.merchant)
    token = f"tok_ok__{shop.name}"
    shop.sandbox.script(token, "timeout_after_charge")
    body = order(shop, f"order-{shop.name}", token)
    told = door.post("/payments/process", body)
    assert (told["success"], told["should_retry"], told["retry"]["status"]) == (False, True, "resolving")
    assert door.post("/payments/process", body, status=409)["code"] == "conflict"
    assert len(shop.sandbox.charges(body["metadata"]["user_id"])) == 1


def test_a_new_payment_needs_all_that_a_charge_needs(now_is: Shop, redis_client: Any) -> None:
    shop, door = now_is, Door(merchant=now_is.merchant)
    body = order(shop, f"order-{shop.name}", "tok_ok")
    assert door.post("/payments/process", {"transaction_id": "nobody's"}, status=404)["code"] == "not_found"
    del body["metadata"]["payment_method_id"]
    assert "payment_method_id" in door.post("/payments/process", body, status=400)["detail"]
    assert not Invoice.objects.filter(merchant=shop.merchant).exists()
