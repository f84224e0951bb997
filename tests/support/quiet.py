"""A moment at which no transaction is open anywhere."""

import time

from django.db import connection


def quiet() -> None:
    """Wait until every event is below PostgreSQL's horizon: that is one for all databases, and other tests run beside
    this one. Followers of the ledger read nothing above it."""
    with connection.cursor() as cursor:
        for _ in range(2_000):
            cursor.execute(
                "SELECT coalesce(max(xid) < pg_snapshot_xmin(pg_current_snapshot()), true) FROM invoices_event"
            )
            if cursor.fetchone()[0]:
                return
            time.sleep(0.05)
    raise AssertionError("A transaction beside this test never ended.")
