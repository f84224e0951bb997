"""Signed bodies with something wrong in them: understood, ignored or refused, never anything else.

Through signature, splitting, scrubbing and parsing of every dialect: fields dropped, types changed, values made absurd,
bytes spoiled.
"""

import copy
import json
import os
import random
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from providers import registry
from providers.base import Ignored, InboundItem, InboundRequest, PaymentEvent, Thin
from recovery_site.common.errors import RecoveryError
from recovery_site.common.scrubbing import scrub
from tests.contract.dialect_fixtures import FIXTURES
from tests.support.signing import SECRETS, delivery

CASES = 10_000 if os.environ.get("LONG") == "1" else 300
SAMPLES = Path(__file__).parents[2].parent / "shared" / "samples"
PROVIDERS = ["stripe", "generic", "hyperswitch", "adyen", "braintree", "paddle", "chargebee", "recurly"]
ABSURD: list[object] = [
    None, True, False, 0, -1, 2**31, 10**18, 10**400, 0.1, 1e308, "", " ", "null", "\x00", "\ud800", "é" * 600,
    "9" * 400, "2026-02-30T25:00:00Z", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "4111111111111111",
    "1e999999", [], [[]], [None], [1], ["x"], {}, {"id": 1}, {"id": {"id": {}}}, {"": ""},
]  # fmt: skip
XML_VALUES = (
    "", "x", "-1", "9" * 400, "1e999999", "null", "&lt;", "&x;", "é" * 300, "2026-02-30", "<a/>", "<a><b>1</b></a>",
    None,
)  # fmt: skip
NIL, ARRAY = ' nil="true"', ' type="array"'


def bases(provider: str) -> list[dict[str, Any] | bytes]:
    """Own fixtures, and the collected payloads where they lie beside the checkout."""
    found: list[dict[str, Any] | bytes] = []
    for path in sorted((FIXTURES / provider).rglob("*")):
        if path.suffix == ".xml":
            found.append(path.read_bytes())
        elif path.suffix == ".json":
            found.append(json.loads(path.read_bytes()))
    for path in sorted((SAMPLES / provider).glob("*.json")):
        if path.name.startswith("api.") or path.stat().st_size > 60_000:
            continue
        body = json.loads(path.read_bytes())
        found.append(body["_xml"].encode() if "_xml" in body else body)
    return found


def places(node: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key) of a JSON value."""
    entries = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in list(entries):
        yield node, key
        yield from places(value)


def deep(depth: int) -> Any:
    value: Any = "x"
    for _ in range(depth):
        value = {"a": [value]}
    return value


def json_mutant(chance: random.Random, base: Mapping[str, Any]) -> dict[str, Any]:
    mutant: dict[str, Any] = json.loads(json.dumps(base))
    for _ in range(chance.choice((1, 1, 1, 2, 5))):
        found = list(places(mutant))
        if not found:
            break
        container, key = chance.choice(found)
        if chance.random() < 0.25 and isinstance(container, dict):
            del container[key]
        else:
            container[key] = copy.deepcopy(chance.choice([*ABSURD, deep(30)]))
    return mutant


def xml_mutant(chance: random.Random, base: bytes) -> bytes:
    text = base.decode()
    elements = list(re.finditer(r"<([a-z0-9_-]+)([^<>]*)>([^<>]*)</\1>", text))
    for _ in range(chance.choice((1, 1, 2, 5))):
        one = chance.choice(elements)
        value = chance.choice(XML_VALUES)
        kind = chance.choice((one[2], NIL, ARRAY))
        new = "" if value is None else f"<{one[1]}{kind}>{value}</{one[1]}>"
        text = text.replace(one[0], new, 1)
    return text.encode()


def spoiled(chance: random.Random, body: bytes) -> bytes:
    position = chance.randrange(max(1, len(body)))
    change: Callable[[], bytes] = chance.choice(
        [
            lambda: body[:position],
            lambda: body[:position] + b"\xff\xfe" + body[position:],
            lambda: body[:position] + b"\x00" + body[position:],
            lambda: body.decode("utf-8", "replace").encode("utf-16"),
            lambda: body + body,
            lambda: b"[" * 50_000 + body,
            lambda: body.replace(b'"', b"'"),
        ]
    )
    return change()


def answer(provider: str, payload: Mapping[str, Any] | bytes) -> str:
    """What the front door and the inbox make of a body; anything but a typed refusal is let through."""
    sent = delivery(provider, payload, at=1_767_258_000)
    headers = {name.lower(): value for name, value in sent.headers.items()}
    dialect = registry.dialect(provider)
    try:
        request = InboundRequest(sent.body, headers)
        proof = dialect.verify(request, [SECRETS[provider]], now=1_767_258_001, tolerance_seconds=300)
        kinds = []
        for item in dialect.split(request):
            stored = json.loads(json.dumps(scrub(dict(item.payload))))
            meaning = dialect.parse(InboundItem(item.event_id, item.event_type, item.order_key, stored, proof))
            assert isinstance(meaning, PaymentEvent | Thin | Ignored)
            kinds.append(type(meaning).__name__)
        return kinds[0] if kinds else "nothing"
    except RecoveryError as error:
        return error.code


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_spoiled_body_is_understood_ignored_or_refused(provider: str) -> None:
    chance, found = random.Random(f"spoiled {provider}"), bases(provider)
    answers: dict[str, int] = {}
    for _ in range(CASES):
        base = chance.choice(found)
        mutant: Mapping[str, Any] | bytes
        if isinstance(base, bytes):
            mutant = spoiled(chance, base) if chance.random() < 0.25 else xml_mutant(chance, base)
        elif chance.random() < 0.2 and provider != "adyen":
            mutant = spoiled(chance, json.dumps(base).encode())
        else:
            mutant = json_mutant(chance, base)
        try:
            told = answer(provider, mutant)
        except UnicodeEncodeError:
            continue  # half a character cannot be sent at all
        answers[told] = answers.get(told, 0) + 1
    assert answers.get("PaymentEvent", 0) + answers.get("Thin", 0) > 0
    assert answers.keys() <= {"PaymentEvent", "Thin", "Ignored", "body_malformed", "invalid_input", "signature_invalid"}


@pytest.mark.parametrize("provider", PROVIDERS)
def test_the_bodies_themselves_are_understood_or_ignored(provider: str) -> None:
    for base in bases(provider):
        assert answer(provider, base) in ("PaymentEvent", "Thin", "Ignored"), base


def test_card_data_is_gone_before_anything_is_stored() -> None:
    body = (FIXTURES / "braintree" / "subscription_charged_unsuccessfully.xml").read_bytes()
    sent = delivery("braintree", body)
    (item,) = registry.dialect("braintree").split(InboundRequest(sent.body, {}))
    stored = json.dumps(scrub(dict(item.payload)))
    assert "5204240000004444" in json.dumps(item.payload)
    assert "5204240000004444" not in stored
    assert '"cvv": "[filtered]"' in stored
    assert '"last-4": "4444"' in stored
