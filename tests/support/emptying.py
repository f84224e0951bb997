"""Empties the test database after a test that committed.

Django truncates every table, full or not, and then writes all content types and permissions again: a quarter of a
second of work for each of some 600 tests. Few tables hold anything, and deleting a few rows costs next to nothing.
"""

from collections.abc import Sequence
from functools import lru_cache
from graphlib import TopologicalSorter
from typing import Any

import pgtrigger
from django.db import connections, transaction
from django.test import TransactionTestCase
from psycopg import sql

# What migrating writes, the same for every test.
_KEPT = ("django_migrations", "django_content_type", "auth_permission")
_TABLES = "SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> ALL(%s) ORDER BY 1"
_REFERENCES = """
SELECT child.relname, parent.relname FROM pg_constraint
JOIN pg_class child ON child.oid = conrelid JOIN pg_class parent ON parent.oid = confrelid
WHERE contype = 'f' AND NOT condeferrable AND conrelid <> confrelid
"""


def tables_empty(alias: str) -> None:
    """Delete every row that a test has left behind, once all transactions that still write have ended."""
    connection = connections[alias]
    with transaction.atomic(using=alias), pgtrigger.ignore(databases=[alias]), connection.cursor() as cursor:
        every = sql.SQL(", ").join(map(sql.Identifier, _children_first(alias)))
        _run(cursor, sql.SQL("LOCK TABLE {} IN SHARE MODE").format(every))
        for table in tables_filled(alias):
            _run(cursor, sql.SQL("DELETE FROM {}").format(sql.Identifier(table)))


def tables_filled(alias: str) -> list[str]:
    """The tables that hold more than migrating writes; those whose rows point at others' come first."""
    tables = _children_first(alias)
    found = sql.SQL(", ").join(sql.SQL("EXISTS (SELECT FROM {})").format(sql.Identifier(table)) for table in tables)
    with connections[alias].cursor() as cursor:
        _run(cursor, sql.SQL("SELECT ") + found)
        return [table for table, holds in zip(tables, cursor.fetchone(), strict=True) if holds]


@lru_cache
def _children_first(alias: str) -> Sequence[str]:
    """All tables but the kept ones; those whose rows point at others' come before them."""
    order = TopologicalSorter[str]()
    with connections[alias].cursor() as cursor:
        cursor.execute(_TABLES, [list(_KEPT)])
        for (table,) in cursor.fetchall():
            order.add(table)
        cursor.execute(_REFERENCES)
        for child, parent in cursor.fetchall():
            order.add(parent, child)
    return [table for table in order.static_order() if table not in _KEPT]


def _run(cursor: Any, statement: sql.Composable) -> None:
    cursor.execute(statement.as_string(cursor.connection))


def teardown(case: TransactionTestCase) -> None:
    """Takes the place of `TransactionTestCase._fixture_teardown`."""
    for alias in case._databases_names(include_mirrors=False):
        tables_empty(alias)
