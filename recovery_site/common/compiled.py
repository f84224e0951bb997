"""Querysets compiled once: for most of the engine's small reads Django needs longer to write the SQL than PostgreSQL to
answer it.

    _OPEN = Compiled(lambda: Case.objects.filter(invoice=Param("invoice"), status=CaseStatus.OPEN)[:1])
    case = _OPEN.first(invoice=invoice.pk)

The SQL is what the queryset would have said; only the values marked with `Param` differ between runs.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from operator import itemgetter
from typing import Any, Generic, TypeAlias, TypeVar, cast
from uuid import UUID

from django.db import DEFAULT_DB_ALIAS, connections
from django.db.models import BooleanField, Expression, Func, Model, QuerySet
from django.db.models.base import ModelState
from django.db.models.query import FlatValuesListIterable, ModelIterable, ValuesListIterable
from django.db.models.sql.compiler import SQLCompiler
from django.db.transaction import TransactionManagementError
from psycopg.sql import Literal

from recovery_site.common.db import array, plain, prepared_cursor, unopened
from recovery_site.common.in_step import ask, own

Row = TypeVar("Row")
# A row as the driver gives it, and the values of one run.
_Raw: TypeAlias = tuple[Any, ...]
_Given: TypeAlias = tuple[Any, ...]


class Param(Expression):
    """Stands in a compiled queryset for a value that is given at each run, as the driver takes it."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def of(self, values: Mapping[str, Any]) -> Any:
        """The value for this place."""
        return values[self.name]

    def as_sql(self, compiler: SQLCompiler, connection: Any) -> tuple[str, list["Param"]]:  # type: ignore[override]  # kept as it is
        return "%s", [self]


@dataclass(frozen=True, slots=True)
class _Always:
    value: Any

    def of(self, values: Mapping[str, Any]) -> Any:
        return self.value


class AnyOf(Func):
    """`AnyOf("column", Param("values"))`: the column is one of a list, however long (IN has a place for each value)."""

    template = "%(expressions)s)"
    arg_joiner = " = ANY("
    output_field = BooleanField()


class Compiled(Generic[Row]):
    """A queryset that is built and compiled at its first use, and run with other values ever after."""

    def __init__(self, build: Callable[[], QuerySet[Any, Row]]) -> None:
        self._build = build
        self._compiled: tuple[Question, Callable[[_Raw], Row], bool] | None = None

    def all(self, **values: Any) -> list[Row]:
        """The rows for these values of the queryset's params. KeyError if one of them is missing."""
        if self._compiled is None:
            self._compiled = self._compile()
        asked, row, locks = self._compiled
        if locks and connections[DEFAULT_DB_ALIAS].get_autocommit():
            raise TransactionManagementError("select_for_update cannot be used outside of a transaction.")
        found = [row(raw) for raw in asked.rows(values)]
        if locks:
            locked: list[Any] = found
            own((type(one), one.pk) for one in locked)
        return found

    def first(self, **values: Any) -> Row | None:
        """The first row, None if there is none; let the queryset itself end after one."""
        return next(iter(self.all(**values)), None)

    def _compile(self) -> tuple["Question", Callable[[_Raw], Row], bool]:
        queryset = self._build()
        # Compiling asks the connection nothing but whether row locks are allowed now, which each run asks again.
        compiler = queryset.query.get_compiler(using=DEFAULT_DB_ALIAS)
        sql, params = _with_constants(*compiler.as_sql())
        return Question(sql, params), _row_of(queryset, compiler), queryset.query.select_for_update


def _row_of(queryset: QuerySet[Any, Row], compiler: SQLCompiler) -> Callable[[_Raw], Row]:
    """What makes of a row of the driver what the queryset would give. TypeError for `values()` and named tuples."""
    kind, made = queryset._iterable_class, cast(Callable[[Any], Any], tuple)
    if kind is ModelIterable:
        made = _Instance(compiler.klass_info, compiler)
    elif kind is FlatValuesListIterable:
        made = itemgetter(0)
    elif kind is not ValuesListIterable:
        raise TypeError("A compiled queryset gives instances, tuples or single values.")
    # What each column has to pass through is the same at every run, too.
    passes = list(compiler.get_converters([column for column, *_ in compiler.select[: compiler.col_count]]).items())
    if not passes:
        return made

    def row(raw: _Raw) -> Row:
        values = list(raw)
        for place, (converters, expression) in passes:
            for converter in converters:
                values[place] = converter(values[place], expression, unopened())
        found: Row = made(values)
        return found

    return row


class _Instance:
    """Makes instances of a model, and of what was selected with it, as Django does. It is short because nothing here
    has a parent model or listens to the making of instances."""

    def __init__(self, selected: Any, compiler: SQLCompiler) -> None:
        self._model: type[Model] = selected["model"]
        places = selected["select_fields"]
        self._first, self._behind = places[0], places[-1] + 1
        self._names = [compiler.select[place][0].target.attname for place in places]
        self._key = self._names.index(self._model._meta.pk.attname)
        self._annotations = list((compiler.annotation_col_map or {}).items())
        self._related = [
            (_Instance(one, compiler), one["local_setter"], one["remote_setter"])
            for one in selected.get("related_klass_infos", ())
        ]

    def __call__(self, raw: Sequence[Any]) -> Any:
        made = self._made(raw)
        for name, place in self._annotations:
            setattr(made, name, raw[place])
        return made

    def _made(self, raw: Sequence[Any]) -> Any:
        made = self._model.__new__(self._model)
        made.__dict__.update(zip(self._names, raw[self._first : self._behind], strict=True))
        made._state = state = ModelState()
        state.adding, state.db = False, DEFAULT_DB_ALIAS
        for related, here, there in self._related:
            other = None if raw[related._first + related._key] is None else related._made(raw)
            here(made, other)
            if other is not None:
                there(other, made)
        return made


class Question:
    """A SELECT that is asked many times with other values; in step it is put for many at once.

    `params`: what stands for each of its places (%s), a value's name or what is always the same; a text with named
    places, %(name)s, needs none.
    """

    def __init__(self, sql: str, params: Sequence[Any] = ()) -> None:
        if not params:
            params = [Param(name) for name in _NAMED.findall(sql)]
            sql = _NAMED.sub("%s", sql)
        self._sql, self._params = sql, [one if isinstance(one, Param) else _Always(one) for one in params]
        self._for_many: dict[tuple[str, ...], str] = {}

    def rows(self, values: Mapping[str, Any]) -> list[_Raw]:
        """The rows as the driver gives them. KeyError if a value is missing."""
        given = tuple([plain(one.of(values)) for one in self._params])
        found: list[_Raw] = ask(self, self._ask, given)
        return found

    def _ask(self, many: Sequence[_Given]) -> Sequence[list[_Raw]]:
        if all(given == many[0] for given in many):
            return [self._ask_one(many[0])] * len(many)  # what only their merchant or connection decides
        kinds = [_kind([given[place] for given in many]) for place in range(len(self._params))]
        if "" in kinds:
            return [self._ask_one(given) for given in many]
        # In one order everywhere, because some of these statements lock what they find.
        order = sorted(range(len(many)), key=lambda place: [(one is None, one) for one in many[place]])
        lists = [array([many[place][number] for place in order]) for number in range(len(kinds))]
        with prepared_cursor() as cursor:
            cursor.execute(self._text_for(tuple(kinds)), lists)
            answers: list[list[_Raw]] = [[] for _ in many]
            for number, *row in cursor.fetchall():
                answers[order[number - 1]].append(tuple(row))
        return answers

    def _ask_one(self, given: _Given) -> list[_Raw]:
        with prepared_cursor() as cursor:
            cursor.execute(self._sql, given)
            found: list[_Raw] = cursor.fetchall()
        return found

    def _text_for(self, kinds: tuple[str, ...]) -> str:
        """The statement beside a table of values, once for each of its rows."""
        if kinds not in self._for_many:
            names = [f"asked.p{number}::{kind}" for number, kind in enumerate(kinds)]
            inner = self._sql.replace("%%", "%%%%") % tuple(names)
            lists = ", ".join(f"%s::{'text' if kind.endswith('[]') else kind}[]" for kind in kinds)
            columns = ", ".join(f"p{number}" for number in range(len(kinds)))
            self._for_many[kinds] = (
                f"SELECT asked.n, answer.* FROM unnest({lists}) WITH ORDINALITY AS asked({columns}, n),"  # noqa: S608 - texts of ours
                f" LATERAL ({inner}) answer"
            )
        return self._for_many[kinds]


def _with_constants(sql: str, params: Sequence[Any]) -> tuple[str, list[Any]]:
    """The statement with the queryset's own constants written into it, and the values that still have a place.

    Only so can PostgreSQL keep one plan for all runs that uses an index on some of the rows (WHERE status = 'OPEN'):
    with a place for the status it would have to plan each run anew.
    """
    fixed = [not isinstance(one, Param) and isinstance(one, str | int) for one in params]
    texts = [_literal(one) if known else "%s" for one, known in zip(params, fixed, strict=True)]
    left = [one for one, known in zip(params, fixed, strict=True) if not known]
    return sql.replace("%%", "%%%%") % tuple(texts), left


def _literal(value: str | int) -> str:
    plain = str(value) if isinstance(value, str) else value  # a member of an enumeration is its value
    return Literal(plain).as_string().replace("%", "%%")


_NAMED = re.compile(r"%\((\w+)\)s")
_KINDS = {bool: "boolean", int: "bigint", str: "text", datetime: "timestamptz", UUID: "uuid"}


def _kind(values: Sequence[Any]) -> str:
    """PostgreSQL's type of these values, empty if it cannot be told."""
    known = next((one for one in values if one is not None and one != []), None)
    if isinstance(known, list):
        inner = _kind(known)
        return f"{inner}[]" if inner else ""
    return _KINDS.get(type(known), "")
