"""The OpenAPI document: 3.1, without a warning, open to everybody."""

from typing import Any

from django.core.management import call_command
from django.test import Client
from drf_spectacular.drainage import GENERATOR_STATS


def test_the_document_is_made_without_a_warning(tmp_path: Any) -> None:
    GENERATOR_STATS.reset()
    call_command("spectacular", "--fail-on-warn", "--validate", "--file", str(tmp_path / "openapi.yaml"))
    assert not GENERATOR_STATS


def test_it_is_served_as_openapi_3_1_and_describes_errors_and_keys() -> None:
    answer = Client().get("/api/v1/openapi.json")
    document = answer.json()
    assert document["openapi"] == "3.1.0"
    retry = document["paths"]["/api/v1/payments/retry/{transaction_id}"]
    assert set(retry) == {"get", "post", "delete"}
    assert [one["name"] for one in retry["post"]["parameters"] if one["in"] == "header"] == ["Idempotency-Key"]
    assert {"200", "201", "400", "401", "403", "404", "409", "422", "429"} <= set(retry["post"]["responses"])
    assert "application/problem+json" in retry["post"]["responses"]["422"]["content"]
