"""The generic body checked against its published JSON Schema, each refusal one sentence that names the field.

Messages never repeat a value: a card number sent by mistake must not reach a log through an error.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from jsonschema.validators import extend

from providers.base import BodyMalformed

SCHEMA_PATH = Path(__file__).with_name("payment_event.schema.json")

# Field names that may be repeated in a message: short, and no run of digits that could be a card number.
_PLAIN_NAME = re.compile(r"(?!.*[0-9]{8})[A-Za-z0-9_.-]{1,60}")


def check_body(payload: Mapping[str, Any]) -> None:
    """Raise BodyMalformed with one sentence naming the first wrong field by JSON pointer."""
    errors = list(_validator(payload.get("type")).iter_errors(payload))
    if errors:
        raise BodyMalformed(_sentence(min(errors, key=_rank)))


def without_blanks(value: Any) -> Any:
    """The same JSON without null and empty text in objects: many serialisers write absent fields so."""
    if not isinstance(value, Mapping):
        return value
    return {key: without_blanks(item) for key, item in value.items() if item is not None and item != ""}


@cache
def _schema() -> Mapping[str, Any]:
    """The published schema with every $ref replaced by what it names, so that paths find descriptions."""
    published = json.loads(SCHEMA_PATH.read_text(encoding="utf-8"))
    definitions = published.pop("$defs")

    def inline(node: Any) -> Any:
        if isinstance(node, list):
            return [inline(item) for item in node]
        if not isinstance(node, dict):
            return node
        merged = dict(node)
        if "$ref" in merged:
            merged = definitions[merged.pop("$ref").removeprefix("#/$defs/")] | merged
        return {key: inline(value) for key, value in merged.items()}

    schema: Mapping[str, Any] = inline(published)
    return schema


def _validator(event_type: object) -> Draft202012Validator:
    known = event_type if isinstance(event_type, str) and event_type in _types() else ""
    return _validator_of(known)


def _types() -> Sequence[str]:
    types: Sequence[str] = _schema()["properties"]["type"]["enum"]
    return types


@cache
def _validator_of(event_type: str) -> Draft202012Validator:
    """For one event type, so that a body does not walk through the conditions of all the others."""
    # JSON Schema calls 19.0 an integer; for money it is a float and refused.
    integers = Draft202012Validator.TYPE_CHECKER.redefine(
        "integer", lambda _, value: isinstance(value, int) and not isinstance(value, bool)
    )
    strict: Any = extend(  # type: ignore[no-untyped-call]
        Draft202012Validator, {"pattern": _pattern}, type_checker=integers
    )
    schema = dict(_schema())
    conditions = schema.pop("allOf")
    schema["allOf"] = [clause["then"] for clause in conditions if event_type in _types_of(clause)]
    validator: Draft202012Validator = strict(schema)
    return validator


def _types_of(clause: Mapping[str, Any]) -> Sequence[str]:
    condition = clause["if"]["properties"]["type"]
    types: Sequence[str] = condition.get("enum") or [condition["const"]]
    return types


def _pattern(_: Any, pattern: str, value: Any, schema: Any) -> Iterator[ValidationError]:
    """As the standard keyword, except that Python's `$` would let one trailing line feed through."""
    if isinstance(value, str) and (value.endswith("\n") or not re.search(pattern, value)):
        yield ValidationError("does not match")


def _rank(error: ValidationError) -> tuple[int, tuple[str, ...]]:
    """Outer before inner, then by name: the same body always gets the same answer."""
    path = tuple(str(step) for step in error.absolute_path)
    return len(path), path


def _sentence(error: ValidationError) -> str:
    path = [str(step) for step in error.absolute_path]
    instance: Any = error.instance
    schema: Any = error.schema
    if error.validator == "required":
        missing = next(name for name in schema["required"] if name not in instance)
        return f"{pointer([*path, missing])} is missing: {_description([*path, missing])}."
    if error.validator == "additionalProperties":
        name = min(name for name in instance if name not in schema["properties"])
        if _PLAIN_NAME.fullmatch(name):
            return f"{pointer([*path, name])} is not a known field: correct its name or move it to /metadata."
        return f"{pointer(path)} has a field with an unusable name: remove it."
    if error.validator == "anyOf":
        return f"{pointer(path)} is incomplete: {schema['description']}."
    return f"{pointer(path)} is not valid: {_description(path)}."


def pointer(path: Sequence[str]) -> str:
    """RFC 6901 pointer of a path; the whole body reads `The body`."""
    steps = (step.replace("~", "~0").replace("/", "~1") for step in path)
    return "".join(f"/{step}" for step in steps) or "The body"


def _description(path: Sequence[str]) -> str:
    """What the schema tells people to send at `path`."""
    node = _schema()
    for step in path:
        node = node["properties"][step]
    return str(node["description"])
