"""Bodies of webhooks with something wrong in them: fields dropped, types changed, values made absurd, bytes spoiled."""

import copy
import json
import random
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.contract.dialect_fixtures import FIXTURES

SAMPLES = Path(__file__).parents[2].parent / "shared" / "samples"
PROVIDERS = ("stripe", "generic", "hyperswitch", "adyen", "braintree", "paddle", "chargebee", "recurly")
ABSURD: list[object] = [
    None, True, False, 0, 1, -1, 2**31, 10**15, 10**18, 10**400, 0.1, 1e308, "", " ", "0", "null", "\x00", "\ud800",
    "é" * 600, "9" * 400, "usd", "JPY", "KWD", "void", "paid", "succeeded", "2026-02-30T25:00:00Z",
    "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "4111111111111111", "1e999999", [], [[]], [None], [1],
    ["x"], {}, {"id": 1}, {"id": {"id": {}}}, {"": ""},
]  # fmt: skip
XML_VALUES = (
    "", "x", "0", "-1", "9" * 400, "1e999999", "0.01", "JPY", "void", "settled", "null", "&lt;", "&x;", "é" * 300,
    "2026-02-30", "<a/>", "<a><b>1</b></a>", None,
)  # fmt: skip
NIL, ARRAY = ' nil="true"', ' type="array"'
Body = dict[str, Any] | bytes


def bases(provider: str) -> list[Body]:
    """Own fixtures, and the collected payloads where they lie beside the checkout."""
    found: list[Body] = []
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


def mutant(chance: random.Random, provider: str, found: list[Body]) -> Body:
    """One of the bodies with something wrong in it; it may be one that cannot be sent (half a character)."""
    base = chance.choice(found)
    if isinstance(base, bytes):
        return _spoiled(chance, base) if chance.random() < 0.25 else _xml_mutant(chance, base)
    if chance.random() < 0.2 and provider != "adyen":
        return _spoiled(chance, json.dumps(base).encode())
    return _json_mutant(chance, base)


def _places(node: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key) of a JSON value."""
    entries = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in list(entries):
        yield node, key
        yield from _places(value)


def _deep(depth: int) -> Any:
    value: Any = "x"
    for _ in range(depth):
        value = {"a": [value]}
    return value


def _json_mutant(chance: random.Random, base: Mapping[str, Any]) -> dict[str, Any]:
    changed: dict[str, Any] = json.loads(json.dumps(base))
    for _ in range(chance.choice((1, 1, 1, 2, 5))):
        found = list(_places(changed))
        if not found:
            break
        container, key = chance.choice(found)
        if chance.random() < 0.25 and isinstance(container, dict):
            del container[key]
        else:
            container[key] = copy.deepcopy(chance.choice([*ABSURD, _deep(30)]))
    return changed


def _xml_mutant(chance: random.Random, base: bytes) -> bytes:
    text = base.decode()
    elements = list(re.finditer(r"<([a-z0-9_-]+)([^<>]*)>([^<>]*)</\1>", text))
    for _ in range(chance.choice((1, 1, 2, 5))):
        one = chance.choice(elements)
        value = chance.choice(XML_VALUES)
        kind = chance.choice((one[2], NIL, ARRAY))
        new = "" if value is None else f"<{one[1]}{kind}>{value}</{one[1]}>"
        text = text.replace(one[0], new, 1)
    return text.encode()


def _spoiled(chance: random.Random, body: bytes) -> bytes:
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
