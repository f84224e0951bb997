"""Reading our own Stripe fixtures through the dialect's front door."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from providers.base import Ignored, InboundRequest, PaymentEvent
from providers.stripe.dialect import StripeDialect

FIXTURES = Path(__file__).parents[1] / "fixtures" / "stripe"
DIALECT = StripeDialect()


def load(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((FIXTURES / name).read_bytes())
    return loaded


def read(event: Mapping[str, Any]) -> PaymentEvent | Ignored:
    (item,) = DIALECT.split(InboundRequest(json.dumps(event).encode(), {}))
    return DIALECT.parse(item)


def told(name: str) -> PaymentEvent:
    meaning = read(load(name))
    assert isinstance(meaning, PaymentEvent), meaning
    return meaning


def changed(name: str, path: str, value: object) -> dict[str, Any]:
    """The fixture with one value of its data.object replaced; `path` is dotted."""
    event = load(name)
    *parents, last = path.split(".")
    node = event["data"]["object"]
    for parent in parents:
        node = node[int(parent)] if isinstance(node, list) else node[parent]
    node[last] = value
    return event
