"""A Python client generated from the OpenAPI document, against a running server: list, retry, status, cancel."""

import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from django.test import Client

from tests.api.door import Door

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def generated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The package `recovery_client`, made by a generator that knows nothing of this project."""
    (tmp_path / "openapi.json").write_text(json.dumps(Client().get("/api/v1/openapi.json").json()))
    (tmp_path / "config.yml").write_text("post_hooks: []\n")
    package = tmp_path / "recovery_client"
    order = ["-m", "openapi_python_client", "generate", "--path", str(tmp_path / "openapi.json"), "--meta", "none"]
    order += ["--config", str(tmp_path / "config.yml"), "--output-path", str(package), "--fail-on-warning"]
    made = subprocess.run([sys.executable, *order], capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stdout + made.stderr
    monkeypatch.syspath_prepend(str(tmp_path))
    yield importlib.import_module("recovery_client")
    for name in [name for name in sys.modules if name.partition(".")[0] == "recovery_client"]:
        del sys.modules[name]


def call(name: str) -> Any:
    return importlib.import_module(f"recovery_client.api.{name}").sync


def test_a_generated_client_lists_retries_asks_and_cancels(
    generated: ModuleType, live_server: Any, redis_client: Any
) -> None:
    door = Door()
    client = generated.AuthenticatedClient(base_url=live_server.url, token=door.key, raise_on_unexpected_status=True)
    models = importlib.import_module("recovery_client.models")
    body = models.RetryRequest.from_dict(
        {
            "error": {"code": "insufficient_funds", "message": "Not enough money."},
            "metadata": {
                "user_id": "user_7",
                "amount": "49.90",
                "currency": "EUR",
                "payment_method_id": "pm_7",
            },
        }
    )
    made = call("payments.payment_retry_create")("order-7", client=client, body=body, idempotency_key="k1")
    assert (made.status, made.metadata.amount, made.transaction_id) == ("booked", 4990, "order-7")
    (invoice,) = call("invoices.invoices_list")(client=client, limit=10).data
    assert (invoice.id, invoice.provider_invoice_id, invoice.status) == (made.invoice, "order-7", "PROCESSING")
    asked = call("payments.payment_retry_status")("order-7", client=client)
    assert (asked.next_retry_at, asked.reason) == (made.next_retry_at, made.reason)
    assert call("payments.payment_retry_cancel")("order-7", client=client).status != "booked"
    problem = call("payments.payment_retry_status")("order-8", client=client)
    assert (problem.code, problem.status) == ("not_found", 404)
