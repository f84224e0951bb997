"""The OpenAPI document: 3.1, without a warning, open to everybody, with examples that hold; and the pages beside it."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from django.core.management import call_command
from django.test import Client
from drf_spectacular.drainage import GENERATOR_STATS
from jsonschema import Draft202012Validator

from accounts.api.problems import KINDS
from recovery_site.common.errors import RecoveryError

# Raised where no caller of the API can meet them.
_ELSEWHERE = {
    "error",
    "busy",
    "body_too_slow",
    "document_invalid",
    "lock_missing",
    "signature_invalid",
    "body_malformed",
    "unknown_endpoint",
    "collection_stays",
    "note_waits",
    "undelivered",
    "secret_unreadable",
    "mirror_unavailable",
    "history_broken",
    "demo_broken",
    "cluster_broken",
}


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return dict(Client().get("/api/v1/openapi.json").json())


def media(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every body of a request or an answer, with where it stands."""
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            bodies = {"request": operation.get("requestBody", {}), **operation["responses"]}
            for name, body in bodies.items():
                for kind, found in body.get("content", {}).items():
                    yield f"{method} {path} {name} {kind}", found


def test_the_document_is_made_without_a_warning(tmp_path: Any) -> None:
    GENERATOR_STATS.reset()
    call_command("spectacular", "--fail-on-warn", "--validate", "--file", str(tmp_path / "openapi.yaml"))
    assert not GENERATOR_STATS


def test_it_describes_errors_keys_and_tokens(document: dict[str, Any]) -> None:
    assert document["openapi"] == "3.1.0"
    retry = document["paths"]["/api/v1/payments/retry/{transaction_id}"]
    assert set(retry) == {"get", "post", "delete"}
    assert [one["name"] for one in retry["post"]["parameters"] if one["in"] == "header"] == ["Idempotency-Key"]
    assert {"200", "201", "400", "401", "403", "404", "409", "422", "429"} <= set(retry["post"]["responses"])
    assert "application/problem+json" in retry["post"]["responses"]["422"]["content"]
    assert retry["post"]["security"] == [{"apiKey": []}, {"oauth2": ["payments"]}]


def test_every_body_has_an_example_that_its_schema_allows(document: dict[str, Any]) -> None:
    seen, wrong = 0, []
    for where, found in media(document):
        schema = {**found["schema"], "components": document["components"]}
        errors = [one.message[:200] for one in Draft202012Validator(schema).iter_errors(found["example"])]
        wrong += [(where, errors)] if errors else []
        seen += 1
    assert wrong == []
    assert seen >= 500


def test_the_type_of_a_problem_leads_to_what_its_code_means(client: Client) -> None:
    told = client.get("/api/v1/invoices").json()
    page, _, code = told["type"].partition("#")
    answer = client.get("/" + page.partition("://")[2].partition("/")[2])
    assert (answer.status_code, code) == (200, "authentication_required")
    text = answer.content.decode()
    assert set(re.findall(r'<dt id="(\w+)">', text)) == set(KINDS)
    assert KINDS[code].hint in text


def test_every_code_that_a_caller_can_meet_is_explained() -> None:
    def codes(kind: type[RecoveryError]) -> set[str]:
        return {kind.code}.union(*(codes(one) for one in kind.__subclasses__()))

    assert codes(RecoveryError) - _ELSEWHERE <= set(KINDS)


def test_the_reference_is_served_from_here(client: Client) -> None:
    page = client.get("/api/docs")
    files = re.findall(r'(?:src|href)="([^"]+)"', page.content.decode())
    assert all(path.startswith("/") for path in files)
    assert all(client.get(path).status_code == 200 for path in files)
    policy = page["Content-Security-Policy"]
    assert ("unsafe" in policy, "script-src 'self';" in policy + ";") == (False, True)


@pytest.mark.parametrize("name", ["payment-event", "policy"])
def test_what_merchants_write_themselves_has_a_schema_at_an_address(name: str) -> None:
    answer = Client().get(f"/api/docs/schemas/{name}.json")
    assert answer["Content-Type"] == "application/schema+json"
    Draft202012Validator.check_schema(answer.json())
    assert answer.json()["title"] in ("Payment event", "Retry policy")
    assert Client().get("/api/docs/schemas/other.json").status_code == 404
