"""Requests made up from the OpenAPI document, good ones and bad ones: no server error, no status that is not
documented, no body that its schema does not allow."""

import itertools
import re
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from django.core.signals import request_finished, request_started
from django.db import close_old_connections, transaction
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from recovery_site.wsgi import application
from tests.api.door import Door
from tests.api.test_tenants import ids
from tests.console.world import World

pytestmark = pytest.mark.django_db
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
PARTS = 6


@pytest.fixture(autouse=True)
def in_process() -> Iterator[None]:
    """As Django's own test client does: a request leaves the connection of the test alone."""
    for signal in (request_started, request_finished):
        signal.disconnect(close_old_connections)
    yield
    for signal in (request_started, request_finished):
        signal.connect(close_old_connections)


def operations() -> Iterator[Any]:
    schema = schemathesis.openapi.from_wsgi("/api/v1/openapi.json", application)
    for found in schema.get_all_operations():
        yield found.ok()


def fuzz(operation: Any, mode: GenerationMode, world: World, named: dict[str, str], examples: int) -> None:
    """So many calls of one operation, each taken back; half of them name rows that are there."""
    key = Door(merchant=world.merchant).key
    base = re.sub(r"/\{.*", "", operation.path.removeprefix("/api/v1")).strip("/")

    @seed(7)
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode), real=st.booleans())
    def ask(case: Any, real: bool) -> None:
        if real and base in named:
            case.path_parameters = dict.fromkeys(case.path_parameters or {}, named[base])
        before = transaction.savepoint()
        try:
            answer = case.call(headers={"Authorization": f"Bearer {key}"})
            case.validate_response(answer, checks=CHECKS)
        finally:
            transaction.savepoint_rollback(before)

    ask()


def run(part: int, examples: int, settings: Any, redis_client: Any) -> None:
    settings.API_RATE_LIMIT = 1_000_000
    world = World(name="Ann's")
    named, asked = ids(world), 0
    for operation in itertools.islice(operations(), part, None, PARTS):
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            fuzz(operation, mode, world, named, examples)
            asked += 1
    assert asked >= 20


@pytest.mark.parametrize("part", range(PARTS))
def test_every_operation_answers_as_documented(part: int, settings: Any, redis_client: Any) -> None:
    run(part, 3, settings, redis_client)


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("part", range(PARTS))
def test_every_operation_answers_as_documented_to_much_more(part: int, settings: Any, redis_client: Any) -> None:
    run(part, 150, settings, redis_client)
