"""Rows that are written all the time, without asking Django for the statement each time, and for many in step."""

from collections.abc import Sequence
from datetime import datetime
from functools import cache
from typing import Any

from django.db import DEFAULT_DB_ALIAS, DatabaseError, connections
from django.db.models import (
    BigIntegerField,
    BooleanField,
    CharField,
    DateTimeField,
    ForeignKey,
    Model,
    PositiveIntegerField,
    PositiveSmallIntegerField,
    TextField,
)
from django.db.models.expressions import DatabaseDefault
from django_fsm import FSMField

from recovery_site.common.db import array, plain, prepared_cursor, unopened
from recovery_site.common.in_step import ask, own

# A model, and the names of fields in an order: what statements of one kind have in common.
_Kind = tuple[type[Model], tuple[str, ...]]


def stored(row: Model, names: Sequence[str]) -> list[Any]:
    """What stands in these fields now, as the driver takes it."""
    return [_ready(field, getattr(row, field.attname)) for field in _fields(type(row), tuple(names))]


# What such a field holds is what the driver takes: Django would ask a dozen questions to find that out.
_AS_IT_IS: dict[type, frozenset[type]] = {
    **dict.fromkeys((CharField, TextField, FSMField), frozenset({str, type(None)})),
    **dict.fromkeys(
        (BigIntegerField, PositiveIntegerField, PositiveSmallIntegerField, ForeignKey), frozenset({int, type(None)})
    ),
    BooleanField: frozenset({bool, type(None)}),
    DateTimeField: frozenset({datetime, type(None)}),
}


def _ready(field: Any, value: Any) -> Any:
    """A field's value as the driver takes it."""
    if type(value) in _AS_IT_IS.get(type(field), ()):
        return value
    return plain(field.get_db_prep_save(value, unopened()))


def turned(rows: Sequence[Sequence[Any]]) -> list[str]:
    """One list per column instead of one per row, as `array`."""
    return [array(values) for values in zip(*rows, strict=True)]


@cache
def _fields(model: type[Model], names: tuple[str, ...]) -> list[Any]:
    return [model._meta.get_field(name) for name in names]


@cache
def columns(model: type[Model], names: tuple[str, ...]) -> list[str]:
    """The columns of these fields."""
    return [field.column for field in _fields(model, names)]


@cache
def arrays(model: type[Model], names: tuple[str, ...]) -> list[str]:
    """The type of a list of values for each of these fields; empty for one whose values are lists themselves.

    Texts have no length there: the column refuses one that is too long, where a list would cut it.
    """
    return [_array(field.db_type(connections[DEFAULT_DB_ALIAS])) for field in _fields(model, names)]


def _array(kind: str) -> str:
    if kind.endswith("[]"):
        return ""
    return "text[]" if kind.startswith("varchar") else f"{kind}[]"


def unnested(names: Sequence[str], kinds: Sequence[str], alias: str) -> str:
    """`unnest(...) WITH ORDINALITY` of one list per column: rows of values as a table, numbered from 1 in `n`."""
    lists = ", ".join(f"%s::{kind}" for kind in kinds)
    return f"unnest({lists}) WITH ORDINALITY AS {alias}({_listed(names)}, n)"


@cache
def updating(model: type[Model], names: tuple[str, ...]) -> str:
    """`UPDATE ... FROM unnest(...)` that writes these fields of many rows, found by their primary keys (last list)."""
    written = columns(model, names)
    changes = ", ".join(f'"{name}" = new."{name}"' for name in written)
    source = unnested([*written, "id"], [*arrays(model, names), "bigint[]"], "new")
    return f'UPDATE "{model._meta.db_table}" old SET {changes} FROM {source} WHERE old.id = new.id'  # noqa: S608 - names of columns


def row_save(row: Model, *names: str) -> None:
    """As `save(update_fields=names)`, for what is written all the time; no expressions. Raises DatabaseError if the row
    is gone."""
    kind: _Kind = type(row), names
    ask(("save", kind), _save, (kind, [*stored(row, names), row.pk]), writes=True)


def _save(many: Sequence[tuple[_Kind, list[Any]]]) -> Sequence[None]:
    model, names = many[0][0]
    with prepared_cursor() as cursor:
        if len(many) == 1 or "" in arrays(model, names):
            changed = 0
            for _, values in many:
                cursor.execute(_update(model, names), values)
                changed += cursor.rowcount
        else:
            cursor.execute(updating(model, names), turned([values for _, values in many]))
            changed = cursor.rowcount
    if changed != len(many):
        raise DatabaseError(f"{len(many) - changed} of {len(many)} {model._meta.label} are gone.")
    return [None] * len(many)


@cache
def _update(model: type[Model], names: tuple[str, ...]) -> str:
    text = ", ".join(f'"{column}" = %s' for column in columns(model, names))
    return f'UPDATE "{model._meta.db_table}" SET {text} WHERE id = %s'  # noqa: S608 - names of columns


def row_insert(row: Model, *, unless_there: bool = False) -> bool:
    """As `save(force_insert=True)`, for what is written all the time; no signals. What the database fills in is read
    back.

    `unless_there`: False if a row with the same unique values is there already, whoever wrote it; nothing is changed
    then, and `row` stays unsaved. It takes no lock on the other row, but waits for who has not committed it yet.
    """
    names: list[str] = []
    values: list[Any] = []
    for field in row._meta.local_concrete_fields:
        value = field.pre_save(row, add=True)
        if not field.primary_key and not isinstance(value, DatabaseDefault):
            names.append(field.name)
            values.append(_ready(field, value))
    kind: tuple[Any, ...] = type(row), tuple(names), unless_there
    told = ask(("insert", kind), _insert, (kind, values), writes=not unless_there)
    if told is None:
        return False
    for field, value in zip(_filled(type(row), tuple(names)), told, strict=True):
        setattr(row, field.attname, value)
    row._state.adding, row._state.db = False, DEFAULT_DB_ALIAS
    own([(type(row), row.pk)], written=True)
    return True


@cache
def _filled(model: type[Model], names: tuple[str, ...]) -> list[Any]:
    """The fields that the database fills in, the primary key first."""
    left = [field for field in model._meta.local_concrete_fields if field.name not in names]
    return sorted(left, key=lambda field: not field.primary_key)


def _insert(many: Sequence[tuple[Any, list[Any]]]) -> list[tuple[Any, ...] | None]:
    model, names, unless_there = many[0][0]
    with prepared_cursor() as cursor:
        if len(many) == 1 or "" in arrays(model, names):
            answers = []
            for _, values in many:
                cursor.execute(_insertion(model, names, unless_there), values)
                answers.append(cursor.fetchone())
            return answers
        cursor.execute(_insertions(model, names, unless_there), turned([values for _, values in many]))
        told = {number: tuple(filled) for number, *filled in cursor.fetchall()}
    return [told.get(number) for number in range(1, len(many) + 1)]


@cache
def _insertion(model: type[Model], names: tuple[str, ...], unless_there: bool) -> str:
    written = columns(model, names)
    filled = [field.column for field in _filled(model, names)]
    return (
        f'INSERT INTO "{model._meta.db_table}" ({_listed(written)})'  # noqa: S608 - columns
        f" VALUES ({', '.join(['%s'] * len(written))}){' ON CONFLICT DO NOTHING' if unless_there else ''}"
        f" RETURNING {_listed(filled)}"
    )


@cache
def _insertions(model: type[Model], names: tuple[str, ...], unless_there: bool) -> str:
    """As `_insertion` for many. The keys are drawn first: so it can be told which of the rows were there already."""
    written, table = columns(model, names), model._meta.db_table
    filled = [field.column for field in _filled(model, names)]
    return (
        f"WITH given AS MATERIALIZED (SELECT nextval(pg_get_serial_sequence('{table}', 'id')) AS id, asked.*"  # noqa: S608 - columns
        f" FROM {unnested(written, arrays(model, names), 'asked')}), done AS ("
        f'INSERT INTO "{table}" (id, {_listed(written)}) SELECT id, {_listed(written)} FROM given ORDER BY n'
        f"{' ON CONFLICT DO NOTHING' if unless_there else ''} RETURNING {_listed(filled)})"
        f" SELECT given.n, done.* FROM given JOIN done USING (id)"
    )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)
