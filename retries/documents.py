"""Checking JSON documents (policies, segments) against their published schema, with messages a person can act
on."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from recovery_site.common.errors import InvalidInput

FOLDER = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: the JSON pointer of the field, and what to do about it."""

    pointer: str
    message: str

    def __str__(self) -> str:
        return f"{self.pointer or 'The document'}: {self.message}"


class DocumentError(InvalidInput):
    """A document is not acceptable; `problems` lists what, in the order of the document."""

    code: ClassVar[str] = "document_invalid"

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__(str(self.problems[0]), problems=[str(problem) for problem in self.problems])


@dataclass(frozen=True, slots=True)
class Change:
    """One value that differs between two documents: its pointer, and the values as JSON (empty where it is not)."""

    pointer: str
    before: str
    after: str


def documents_diff(before: object, after: object) -> list[Change]:
    """What changed, value by value, in the order of the pointers."""
    old, new = dict(_leaves(before, ())), dict(_leaves(after, ()))
    return [
        Change(path, old.get(path, ""), new.get(path, ""))
        for path in sorted(old.keys() | new.keys())
        if old.get(path) != new.get(path)
    ]


def _leaves(value: object, path: tuple[str | int, ...]) -> Iterator[tuple[str, str]]:
    """Pointer and JSON of every value that holds no further ones; short lists of plain values count as one value."""
    if isinstance(value, Mapping) and value:
        for name, part in value.items():
            yield from _leaves(part, (*path, str(name)))
    elif isinstance(value, list) and any(isinstance(part, Mapping | list) for part in value):
        for index, part in enumerate(value):
            yield from _leaves(part, (*path, _label(index, part)))
    else:
        yield pointer(path), json.dumps(value, ensure_ascii=False)


def _label(index: int, part: object) -> str | int:
    """Segments are told apart by their names, so that moving one does not make all below it look changed."""
    name = part.get("name") if isinstance(part, Mapping) else None
    return name if isinstance(name, str) else index


def pointer(path: Iterable[str | int]) -> str:
    """RFC 6901: `/segments/high_value/horizon`."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)


@cache
def schema_validator(name: str) -> Draft202012Validator:
    """The validator of a schema file in this folder, the schema itself checked."""
    schema = json.loads((FOLDER / name).read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def schema_problems(document: object, schema_name: str) -> list[Problem]:
    """What the schema finds wrong with `document`, nearest to the top first; empty if nothing."""
    errors = sorted(
        schema_validator(schema_name).iter_errors(document),
        key=lambda error: [str(part) for part in error.absolute_path],
    )
    return [_problem(error) for error in errors]


def _problem(error: ValidationError) -> Problem:
    path = list(error.absolute_path)
    instance: Any = error.instance
    wanted: Any = error.validator_value
    match error.validator:
        case "required":
            # There is one error for each missing name, and only its text says which it is.
            missing = next(name for name in wanted if error.message.startswith(repr(name)))
            return Problem(pointer([*path, missing]), "This field is missing; add it.")
        case "dependentRequired":
            missing = next(
                name for held, names in wanted.items() if held in instance for name in names if name not in instance
            )
            return Problem(pointer([*path, missing]), "This field is missing beside the others; add it.")
        case "additionalProperties":
            return _unknown_field(error, path)
        case _:
            return Problem(pointer(path), _sentence(error))


def _unknown_field(error: ValidationError, path: list[str | int]) -> Problem:
    known = error.schema.get("properties", {}) if isinstance(error.schema, Mapping) else {}
    instance: Any = error.instance
    extra = next((name for name in instance if name not in known), None)
    if extra is None:
        return Problem(pointer(path), "There are fields here that are not known; remove them.")
    choices = f"use {', '.join(sorted(known))}" if known else "remove it"
    return Problem(pointer([*path, extra]), f"There is no field of this name here; {choices}.")


def _sentence(error: ValidationError) -> str:
    value = _short(error.instance)
    limit: Any = error.validator_value
    match error.validator:
        case "type":
            wanted = " or ".join(limit) if isinstance(limit, list) else limit
            return f"{value} has the wrong type; give {_article(wanted)}."
        case "enum":
            return f"{value} is not known; use one of {', '.join(str(choice) for choice in limit)}."
        case "const":
            return f"{value} is not possible here; write {json.dumps(limit)}."
        case "pattern":
            hint = error.schema.get("description", "") if isinstance(error.schema, Mapping) else ""
            return f"{value} has the wrong form; write {hint}." if hint else f"{value} has the wrong form."
        case "minimum" | "exclusiveMinimum":
            return f"{value} is too low; the lowest is {limit}."
        case "maximum" | "exclusiveMaximum":
            return f"{value} is too high; the highest is {limit}."
        case "minItems" | "minLength" | "minProperties":
            return "This is empty; give at least one entry."
        case "maxItems" | "maxLength" | "maxProperties":
            return f"This is too long; the most is {limit}."
        case "uniqueItems":
            return "An entry is listed twice; list each once."
        case _:
            return f"{value} does not fit the schema ({error.validator})."


def _article(kind: object) -> str:
    words = {
        "object": "an object",
        "array": "a list",
        "string": "a text",
        "integer": "a whole number",
        "number": "a number",
        "boolean": "true or false",
    }
    return words.get(str(kind), f"a value of the kind {kind}")


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "..."
