"""Small database pieces shared by the apps: tenant keys, row locks, the transaction id column."""

import json
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from functools import cache
from typing import Any, TypeVar
from uuid import UUID

from django.conf import settings
from django.db import DEFAULT_DB_ALIAS, connections, models
from django.db.backends.postgresql.base import ServerBindingCursor
from django.db.backends.postgresql.psycopg_any import get_adapters_template
from django.db.backends.utils import CursorWrapper
from django.db.migrations import RunSQL
from django.db.models import Func, Model, QuerySet
from psycopg import adapters
from psycopg.adapt import AdaptersMap
from psycopg.postgres import types
from psycopg.pq import Format
from psycopg.types.json import Jsonb

from recovery_site.common.text import storable

ModelT = TypeVar("ModelT", bound=Model)


_Binding: Any = ServerBindingCursor


@cache
def _adapters() -> AdaptersMap:
    """Django's, with the driver's own reader of times: Django's is written in Python and takes ten times as long.

    Both give UTC, the time zone of every connection (settings.TIME_ZONE).
    """
    own = AdaptersMap(get_adapters_template(settings.USE_TZ, UTC))
    times = adapters.get_loader(types["timestamptz"].oid, Format.TEXT)
    assert times is not None, "every driver reads times"
    own.register_loader("timestamptz", times)
    return own


class _PreparedCursor(_Binding):  # type: ignore[misc]  # the stubs do not know this class
    """Django logs what stands in `_query`, which the driver leaves empty for statements that are prepared."""

    @property
    def adapters(self) -> AdaptersMap:
        return _adapters()

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


@cache
def unopened() -> Any:
    """A connection for fields to ask how the database says things; finding this thread's own takes longer than that."""
    return connections.create_connection(DEFAULT_DB_ALIAS)


def array(values: Iterable[Any]) -> str:
    """A list of values as PostgreSQL writes it, for a place with a type (`%s::bigint[]`); a list within the list is one
    text. The driver would do it, and look at each value several times. TypeError for what no column of ours holds."""
    return "{" + ",".join([_element(value) for value in values]) + "}"


def _element(value: Any) -> str:
    for kind in type(value).__mro__:
        if (write := _WRITERS.get(kind)) is not None:
            return write(value)
    raise TypeError(f"No list of PostgreSQL is written of {type(value).__name__}.")


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


_WRITERS: dict[type, Callable[[Any], str]] = {
    type(None): lambda value: "NULL",
    **dict.fromkeys((bool, int, float, Decimal, UUID), str),
    **dict.fromkeys((datetime, date), lambda value: value.isoformat()),
    str: _quoted,
    Jsonb: lambda value: _quoted(json.dumps(value.obj)),
    list: lambda value: _quoted(array(value)),
}


def plain(value: Any) -> Any:
    """A member of an enumeration as what it stands for: the driver takes no list of members and texts."""
    return value.value if isinstance(value, Enum) else value


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
    """`(merchant_id, column)` must name a row of the same merchant in `parent`; null columns are not checked.

    It says all that a key to the parent alone would: the models that are written most have `db_constraint=False` there
    and for the merchant (docs/adr/0021).
    """
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
