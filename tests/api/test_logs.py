"""What the API writes into the log: no secrets, no tokens, no personal data, not even through an address."""

import logging

import pytest

from recovery_site.request_log import plain_path
from tests.api.door import Door

pytestmark = pytest.mark.django_db

SECRETS = ("ann@example.com", "pm_secret_token", "4111111111111111", "whsec_abc", "Ann Example")


def test_nothing_that_was_sent_stands_in_a_log_line(door: Door, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    logging.getLogger("django.db.backends").setLevel(logging.INFO)
    body = {
        "error": {"code": "insufficient_funds", "message": "Ann Example, 4111111111111111"},
        "metadata": {
            "user_id": "ann@example.com",
            "amount": 100,
            "currency": "USD",
            "payment_method_id": "pm_secret_token",
        },
    }
    door.post("/payments/retry/ann@example.com", body, status=201)
    door.get("/payments/retry/ann@example.com")
    door.get("/payments/retry/user/ann@example.com")
    door.get("/customers", connector_customer_id="ann@example.com")
    door.post("/payments/retry/ann@example.com", {"error": {}, "whsec_abc": "whsec_abc"}, status=400)
    Door().get("/payments/retry/ann@example.com", status=404)
    door.client.get("/api/v1/ann@example.com", headers={"Authorization": f"Bearer {door.key}"})
    lines = "\n".join(str(record.msg) + record.getMessage() for record in caplog.records)
    assert "request_finished" in lines
    assert "/api/v1/payments/retry/<transaction_id>" in lines
    for secret in (*SECRETS, door.key, door.key.rpartition("_")[2]):
        assert secret not in lines, secret


def test_our_own_ids_stay_readable() -> None:
    own = "/api/v1/invoices/inv_01m8hp49n0edhsy38r1wgn6pdg"
    assert plain_path(own) == own
