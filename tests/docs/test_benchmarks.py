"""The benchmarks fill tables by statements of their own, which a new column without a default would break unnoticed."""

import re
from collections.abc import Iterator

import pytest
from django.conf import settings
from django.db import connection

_INSERT = re.compile(r"INSERT INTO (\w+) \(([^)]+)\)\s+SELECT", re.DOTALL)


def _inserts() -> Iterator[tuple[str, str, set[str]]]:
    for file in sorted((settings.BASE_DIR / "benchmarks").glob("*.py")):
        for table, columns in _INSERT.findall(file.read_text(encoding="utf-8")):
            yield file.name, table, {column.strip() for column in columns.split(",")}


@pytest.mark.django_db
def test_every_filled_table_gets_all_that_it_needs() -> None:
    wanted: dict[str, set[str]] = {}
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public'"
            " AND is_nullable = 'NO' AND column_default IS NULL AND is_identity = 'NO'"
        )
        for table, column in cursor.fetchall():
            wanted.setdefault(table, set()).add(column)
    found = list(_inserts())
    assert {file for file, _, _ in found} >= {"analytics.py", "engine.py", "tokens.py"}
    lacking = {f"{file}: {table}": wanted[table] - given for file, table, given in found if wanted[table] - given}
    assert lacking == {}
