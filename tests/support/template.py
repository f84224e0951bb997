"""One migrated database per set of migrations, of which every test database is a copy.

Migrating takes half a minute, copying a blink. The copy is still brought up to date as Django always does, which then
finds nothing to do.
"""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.db import connection
from django.db.migrations.loader import MigrationLoader
from psycopg import sql

# So that of several workers one makes it while the others wait; the number means nothing.
_LOCK = 7_151_302


def template_ensure() -> str:
    """The name of the database to copy; it is made, and those of other migrations are dropped, if need be."""
    prefix = f"template_{settings.DATABASES['default']['NAME']}_"
    name = prefix + _fingerprint()
    with connection._nodb_cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(%s)", [_LOCK])
        cursor.execute("SELECT datname FROM pg_database WHERE starts_with(datname, %s)", [prefix])
        found = {row[0] for row in cursor.fetchall()}
        if name not in found:
            for old in found:
                _run(cursor, "DROP DATABASE IF EXISTS {} WITH (FORCE)", old)
            unfinished = f"{prefix}part"
            _make(cursor, unfinished)
            _run(cursor, "ALTER DATABASE {} RENAME TO {}", unfinished, name)
    return name


def _make(cursor: Any, name: str) -> None:
    _run(cursor, "CREATE DATABASE {}", name)
    with _at(name):
        call_command("migrate", verbosity=0, interactive=False)


@contextmanager
def _at(name: str) -> Iterator[None]:
    """Django's connection leads to the database `name`, and is closed at the end."""
    kept = connection.settings_dict["NAME"]
    connection.close()
    connection.settings_dict["NAME"] = name
    try:
        yield
    finally:
        connection.close()
        connection.settings_dict["NAME"] = kept


def _fingerprint() -> str:
    """Of the text of every migration, ours and others'."""
    digest = blake2b(digest_size=8)
    loader = MigrationLoader(None)
    for key in sorted(loader.disk_migrations):
        source = inspect.getfile(type(loader.disk_migrations[key]))
        digest.update(repr(key).encode() + Path(source).read_bytes())
    return digest.hexdigest()


def _run(cursor: Any, statement: str, *names: str) -> None:
    cursor.execute(sql.SQL(statement).format(*map(sql.Identifier, names)).as_string(cursor.connection))
