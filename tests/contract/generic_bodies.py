"""Bodies of the generic format for tests, and the way in through `split`."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from providers.base import BodyMalformed, InboundItem, InboundRequest, PaymentEvent
from providers.generic.dialect import GenericDialect

ROOT = Path(__file__).resolve().parents[2]
FIXTURES = ROOT / "tests" / "fixtures" / "generic"
DIALECT = GenericDialect()


def fixture(name: str) -> dict[str, Any]:
    body: dict[str, Any] = json.loads((FIXTURES / f"{name}.json").read_text())
    return body


def split(body: object, event_id: str = "evt_1") -> InboundItem:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    (item,) = DIALECT.split(InboundRequest(raw, {"webhook-id": event_id}))
    return item


def event(body: object) -> PaymentEvent:
    parsed = DIALECT.parse(split(body))
    assert isinstance(parsed, PaymentEvent)
    return parsed


def refusal(body: object) -> str:
    with pytest.raises(BodyMalformed) as caught:
        split(body)
    assert caught.value.http_status == 400
    return caught.value.message


def changed(body: dict[str, Any], path: str, value: Any = None, *, drop: bool = False) -> dict[str, Any]:
    body = copy.deepcopy(body)
    *parents, last = path.split("/")
    node = body
    for name in parents:
        node = node[name]
    if drop:
        del node[last]
    else:
        node[last] = value
    return body
