"""A moment at which no transaction is open that was open before."""

import time

from django.db import connection


def quiet() -> None:
    """Wait until everything written so far is below PostgreSQL's horizon. That is one for all databases, and other
    tests run beside this one; followers of the ledger read nothing above it."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_current_xact_id()::text")
        (now,) = cursor.fetchone()
        for _ in range(2_000):
            cursor.execute("SELECT %s::xid8 < pg_snapshot_xmin(pg_current_snapshot())", [now])
            if cursor.fetchone()[0]:
                return
            time.sleep(0.05)
    raise AssertionError("A transaction beside this test never ended.")
