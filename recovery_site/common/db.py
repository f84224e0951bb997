"""Small database pieces shared by the apps: tenant keys, row locks, the transaction id column."""

from typing import TypeVar

from django.db import models
from django.db.migrations import RunSQL
from django.db.models import Func, Model, QuerySet

ModelT = TypeVar("ModelT", bound=Model)


def for_no_key_update(queryset: QuerySet[ModelT]) -> QuerySet[ModelT]:
    """Row lock that still lets other transactions insert rows that point here (DESIGN section 6)."""
    return queryset.select_for_update(no_key=True, of=("self",))


def fit(model: type[Model], field: str, value: str) -> str:
    """`value` cut to the length of the model's column: outside text must never stop a write."""
    limit: int | None = getattr(model._meta.get_field(field), "max_length", None)
    return value[:limit]


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
