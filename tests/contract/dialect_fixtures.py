"""Reading hand-written fixtures of a provider through its dialect's front door, and changing them."""

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from providers import registry
from providers.base import Ignored, InboundItem, InboundRequest, Meaning, PaymentEvent, Proof, Thin

FIXTURES = Path(__file__).parents[1] / "fixtures"
Body = dict[str, Any]


def load(provider: str, name: str) -> Body:
    body: Body = json.loads((FIXTURES / provider / f"{name}.json").read_bytes())
    return body


def changed(body: Mapping[str, Any], **values: object) -> Body:
    """A copy with values replaced: `a__b` is the key b of the object a, `a__0` the first of a list, None drops it."""
    copied: Body = copy.deepcopy(dict(body))
    for path, value in values.items():
        *parents, last = path.split("__")
        node: Any = copied
        for parent in parents:
            node = node[int(parent)] if isinstance(node, list) else node.setdefault(parent, {})
        if isinstance(node, list):
            node[int(last)] = value
        elif value is None:
            node.pop(last, None)
        else:
            node[last] = value
    return copied


def items_of(
    provider: str, body: Mapping[str, Any] | bytes, headers: Mapping[str, str] | None = None
) -> list[InboundItem]:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return list(registry.dialect(provider).split(InboundRequest(raw, headers or {})))


def read(provider: str, body: Mapping[str, Any] | bytes, proof: Proof = Proof.SIGNED) -> Meaning:
    """The meaning of a body with one item; `proof` is what vouches for it."""
    (item,) = items_of(provider, body)
    proven = InboundItem(item.event_id, item.event_type, item.order_key, item.payload, proof)
    return registry.dialect(provider).parse(proven)


def told(provider: str, body: Mapping[str, Any] | bytes, proof: Proof = Proof.SIGNED) -> PaymentEvent:
    meaning = read(provider, body, proof)
    assert isinstance(meaning, PaymentEvent), meaning
    return meaning


def thin(provider: str, body: Mapping[str, Any] | bytes) -> Thin:
    meaning = read(provider, body)
    assert isinstance(meaning, Thin), meaning
    return meaning


def ignored(provider: str, body: Mapping[str, Any] | bytes) -> str:
    meaning = read(provider, body)
    assert isinstance(meaning, Ignored), meaning
    return meaning.reason
