"""Querysets compiled once: for most of the engine's small reads Django needs longer to write the SQL than PostgreSQL to
answer it.

    _OPEN = Compiled(lambda: Case.objects.filter(invoice=Param("invoice"), status=CaseStatus.OPEN)[:1])
    case = _OPEN.first(invoice=invoice.pk)

The SQL is what the queryset would have said; only the values marked with `Param` differ between runs.
"""

import copy
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from django.db import DEFAULT_DB_ALIAS, connections
from django.db.models import BooleanField, Expression, Func, QuerySet
from django.db.models.sql.compiler import SQLCompiler
from django.db.transaction import TransactionManagementError
from psycopg.sql import Literal

from recovery_site.common.db import prepared_cursor

Row = TypeVar("Row")


class Param(Expression):
    """Stands in a compiled queryset for a value that is given at each run, as the driver takes it."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def as_sql(self, compiler: SQLCompiler, connection: Any) -> tuple[str, list["Param"]]:  # type: ignore[override]  # kept as it is
        return "%s", [self]


class AnyOf(Func):
    """`AnyOf("column", Param("values"))`: the column is one of a list, however long (IN has a place for each value)."""

    template = "%(expressions)s)"
    arg_joiner = " = ANY("
    output_field = BooleanField()


class Compiled(Generic[Row]):
    """A queryset that is built and compiled at its first use, and run with other values ever after."""

    def __init__(self, build: Callable[[], QuerySet[Any, Row]]) -> None:
        self._build = build
        self._compiled: tuple[QuerySet[Any, Row], SQLCompiler, str, Sequence[Any]] | None = None

    def all(self, **values: Any) -> list[Row]:
        """The rows for these values of the queryset's params. KeyError if one of them is missing."""
        if self._compiled is None:
            self._compiled = self._compile()
        queryset, compiler, sql, params = self._compiled
        bound: Any = copy.copy(compiler)
        bound.connection = connections[DEFAULT_DB_ALIAS]
        if queryset.query.select_for_update and bound.connection.get_autocommit():
            raise TransactionManagementError("select_for_update cannot be used outside of a transaction.")
        given = tuple(values[one.name] if isinstance(one, Param) else one for one in params)
        bound.execute_sql = lambda *args, **kwargs: _fetched(sql, given)
        rows = queryset.all()
        rows.query.get_compiler = lambda *args, **kwargs: bound  # type: ignore[method-assign]
        return list(rows)

    def first(self, **values: Any) -> Row | None:
        """The first row, None if there is none; let the queryset itself end after one."""
        return next(iter(self.all(**values)), None)

    def _compile(self) -> tuple[QuerySet[Any, Row], SQLCompiler, str, Sequence[Any]]:
        queryset = self._build()
        # Compiling asks the connection nothing but whether row locks are allowed now, which each run asks again.
        compiler = queryset.query.get_compiler(using=DEFAULT_DB_ALIAS)
        sql, params = _with_constants(*compiler.as_sql())
        # What each column has to pass through is the same at every run, too.
        converters = compiler.get_converters([column for column, *_ in compiler.select[: compiler.col_count]])
        compiler.get_converters = lambda expressions: converters
        return queryset, compiler, sql, params


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


def _fetched(sql: str, given: Sequence[Any]) -> list[list[tuple[Any, ...]]]:
    """The rows in one chunk, as a compiler gives them."""
    with prepared_cursor() as cursor:
        cursor.execute(sql, given)
        return [cursor.fetchall()]
