"""What the API writes into the log: no secrets, no tokens, no personal data, not even through an address."""

import logging

import pytest
import structlog
from django.test import Client, RequestFactory

from accounts.oauth.services import application_create
from recovery_site.log_config import logging_config
from recovery_site.request_log import plain_path
from tests.api.door import Door

pytestmark = pytest.mark.django_db

SECRETS = ("ann@example.com", "pm_secret_token", "4111111111111111", "whsec_abc", "Ann Example")


def formatter() -> logging.Formatter:
    """As the service's own lines are written."""
    order = dict(logging_config(as_json=True, level="INFO")["formatters"]["structured"])
    kind = order.pop("()")
    assert kind is structlog.stdlib.ProcessorFormatter
    return structlog.stdlib.ProcessorFormatter(**order)


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


def test_nor_does_what_people_and_applications_prove_themselves_with(
    door: Door, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    logging.getLogger("django.db.backends").setLevel(logging.INFO)
    config = {"mode": "observe", "api_key": "sk_live_secret"}
    door.post("/connections", {"provider": "stripe", "config": config}, status=201)
    hook = door.post("/webhook-endpoints/out", {"url": "https://example.com/hook"}, status=201, idempotency_key="k")
    door.post("/webhook-endpoints/in", {"provider": "stripe", "secret": "whsec_inbound"}, status=201)
    new = application_create(merchant=door.merchant, name="Books", scopes=["read"])
    form = {"grant_type": "client_credentials", "client_id": new.row.client_id, "client_secret": new.secret}
    token = Client().post("/oauth/token", form).json()["access_token"]
    door.key = token
    door.get("/customers", connector_customer_id="ann@example.com")
    wrong = {**form, "client_secret": "wrong-secret-of-ann"}
    assert Client().post("/oauth/token", wrong).status_code == 401
    lines = "\n".join(str(record.msg) + record.getMessage() for record in caplog.records)
    assert "/oauth/token" in lines
    for secret in ("sk_live_secret", hook["secret"], "whsec_inbound", new.secret, token, "wrong-secret-of-ann"):
        assert secret not in lines, secret
    assert "ann@example.com" not in lines


def test_a_page_that_breaks_names_no_query_string(caplog: pytest.LogCaptureFixture, door: Door) -> None:
    request = RequestFactory().get("/api/v1/customers", {"connector_customer_id": "ann@example.com"})
    record = logging.LogRecord(
        "django.request", logging.ERROR, "", 1, "Internal Server Error: %s", (request.path,), None
    )
    record.request = request
    caplog.handler.setFormatter(formatter())
    assert "ann@example.com" not in caplog.handler.format(record)
    assert "/api/v1/customers" in caplog.handler.format(record)


def test_our_own_ids_stay_readable() -> None:
    own = "/api/v1/invoices/inv_01m8hp49n0edhsy38r1wgn6pdg"
    assert plain_path(own) == own
