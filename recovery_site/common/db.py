"""Small database pieces shared by the apps: tenant keys, row locks, the transaction id column."""

from collections.abc import Sequence
from functools import cache
from typing import Any, TypeVar

from django.conf import settings
from django.db import DEFAULT_DB_ALIAS, DatabaseError, connections, models
from django.db.backends.postgresql.base import ServerBindingCursor
from django.db.backends.utils import CursorWrapper
from django.db.migrations import RunSQL
from django.db.models import Func, Model, QuerySet
from django.db.models.expressions import DatabaseDefault

from recovery_site.common.text import storable

ModelT = TypeVar("ModelT", bound=Model)


_Binding: Any = ServerBindingCursor


class _PreparedCursor(_Binding):  # type: ignore[misc]  # the stubs do not know this class
    """Django logs what stands in `_query`, which the driver leaves empty for statements that are prepared."""

    def _get_prepared(self, pgq: Any, prepare: bool | None = None) -> Any:
        self._query = pgq
        return super()._get_prepared(pgq, prepare)


# Executions of a statement on a connection before PostgreSQL keeps its plan, and how many plans it keeps.
_PREPARE_FROM, _PREPARED_AT_MOST = 2, 300


def prepared_cursor() -> CursorWrapper:
    """A cursor for statements that run many times: PostgreSQL parses and plans each only once per connection.

    Values go beside the statement and not into it, so each needs a place whose type PostgreSQL can tell.
    """
    database: Any = connections[DEFAULT_DB_ALIAS]
    database.close_if_health_check_failed()
    database.ensure_connection()
    driver = database.connection
    if settings.PREPARED_STATEMENTS and driver.prepare_threshold is None:
        driver.prepare_threshold, driver.prepared_max = _PREPARE_FROM, _PREPARED_AT_MOST
    with database.wrap_database_errors:
        cursor: CursorWrapper = database._prepare_cursor(_PreparedCursor(driver))
    return cursor


def assignments(row: Model, names: Sequence[str]) -> tuple[str, list[Any]]:
    """`"column" = %s, ...` of these fields, and what stands in them now: an UPDATE without asking Django each time."""
    fields, text = _assigned(type(row), tuple(names))
    database = connections[DEFAULT_DB_ALIAS]
    return text, [field.get_db_prep_save(getattr(row, field.attname), database) for field in fields]


@cache
def _assigned(model: type[Model], names: tuple[str, ...]) -> tuple[list[Any], str]:
    fields: list[Any] = [model._meta.get_field(name) for name in names]
    return fields, ", ".join(f'"{field.column}" = %s' for field in fields)


def row_save(row: Model, *names: str) -> None:
    """As `save(update_fields=names)`, for what is written all the time; no expressions. Raises DatabaseError if the row
    is gone."""
    text, values = assignments(row, names)
    with prepared_cursor() as cursor:
        cursor.execute(f'UPDATE "{row._meta.db_table}" SET {text} WHERE id = %s', [*values, row.pk])  # noqa: S608 - names of columns
        if cursor.rowcount != 1:
            raise DatabaseError(f"{row._meta.label} {row.pk} is gone.")


def row_insert(row: Model, *, unless_there: bool = False) -> bool:
    """As `save(force_insert=True)`, for what is written all the time; no signals. What the database fills in is read
    back.

    `unless_there`: False if a row with the same unique values is there already, whoever wrote it; nothing is changed
    then, and `row` stays unsaved. It takes no lock on the other row, but waits for who has not committed it yet.
    """
    database = connections[DEFAULT_DB_ALIAS]
    values: list[Any] = []
    filled: list[Any] = []
    for field in row._meta.local_concrete_fields:
        value = field.pre_save(row, add=True)
        if field.primary_key or isinstance(value, DatabaseDefault):
            filled.append(field)
        else:
            values.append(field.get_db_prep_save(value, database))
    with prepared_cursor() as cursor:
        cursor.execute(_insertion(type(row), tuple(field.column for field in filled), unless_there), values)
        told = cursor.fetchone()
    if told is None:
        return False
    for field, value in zip(filled, told, strict=True):
        setattr(row, field.attname, value)
    row._state.adding, row._state.db = False, DEFAULT_DB_ALIAS
    return True


@cache
def _insertion(model: type[Model], filled: tuple[str, ...], unless_there: bool) -> str:
    fields: Sequence[Any] = model._meta.local_concrete_fields
    columns = [field.column for field in fields if field.column not in filled]
    return (
        f'INSERT INTO "{model._meta.db_table}" ({_names(columns)})'  # noqa: S608 - columns
        f" VALUES ({', '.join(['%s'] * len(columns))}){' ON CONFLICT DO NOTHING' if unless_there else ''}"
        f" RETURNING {_names(filled)}"
    )


def _names(columns: Sequence[str]) -> str:
    return ", ".join(f'"{name}"' for name in columns)


def for_no_key_update(queryset: QuerySet[ModelT]) -> QuerySet[ModelT]:
    """Row lock that still lets other transactions insert rows that point here (DESIGN section 6)."""
    return queryset.select_for_update(no_key=True, of=("self",))


def fit(model: type[Model], field: str, value: str) -> str:
    """`value` cut to the length of the model's column, without what no column holds: outside text must never stop a
    write."""
    limit: int | None = getattr(model._meta.get_field(field), "max_length", None)
    return storable(value)[:limit]


def tenant_key(table: str) -> RunSQL:
    """Unique (merchant, id), the target of composite tenant foreign keys."""
    name = f"{table}_tenant_key"
    return RunSQL(
        f"ALTER TABLE {table} ADD CONSTRAINT {name} UNIQUE (merchant_id, id)",
        f"ALTER TABLE {table} DROP CONSTRAINT {name}",
    )


def tenant_foreign_key(table: str, column: str, parent: str) -> RunSQL:
    """`(merchant_id, column)` must name a row of the same merchant in `parent`; null columns are not checked."""
    name = f"{table}_{column}_tenant_fk"
    return RunSQL(
        f"ALTER TABLE {table} ADD CONSTRAINT {name} FOREIGN KEY (merchant_id, {column})"
        f" REFERENCES {parent} (merchant_id, id)",
        f"ALTER TABLE {table} DROP CONSTRAINT {name}",
    )


class CurrentTransactionId(Func):
    """`pg_current_xact_id()`: lets followers stop below the oldest running transaction."""

    function = "pg_current_xact_id"
    arity = 0


class DatabaseClock(Func):
    """`clock_timestamp()`: the wall clock of every lease, not the start of the transaction."""

    function = "clock_timestamp"
    arity = 0
    output_field = models.DateTimeField()


class TransactionIdField(models.Field):  # type: ignore[type-arg]
    """PostgreSQL `xid8`, filled by the database; compared only inside SQL."""

    def db_type(self, connection: object) -> str:
        return "xid8"

    def get_internal_type(self) -> str:
        return "TransactionIdField"
