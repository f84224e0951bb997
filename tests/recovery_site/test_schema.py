"""The database holds what the models say it does."""

import pytest
from django.apps import apps
from django.db import connection

pytestmark = pytest.mark.django_db


def test_every_index_and_constraint_of_the_models_stands_in_the_database() -> None:
    """A migration that drops the index of a column can take a unique one of the same column with it."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT relname FROM pg_class WHERE relkind = 'i' UNION SELECT conname FROM pg_constraint")
        there = {name for (name,) in cursor.fetchall()}
    named = {
        f"{model._meta.label}: {one.name}"
        for model in apps.get_models()
        for one in (*model._meta.indexes, *model._meta.constraints)
    }
    assert len(named) > 100
    assert not {name for name in named if name.partition(": ")[2] not in there}


# Written to with every event or charge.
_LEDGER = (
    *("invoices_customer", "invoices_invoice", "invoices_providerpayment", "invoices_transaction", "invoices_attempt"),
    *("invoices_event", "invoices_outboxmessage", "retries_case", "retries_retryjob", "tokens_card", "tokens_token"),
)
_REPEATED = """
WITH one AS (
    SELECT indexrelid::regclass::text AS name, indrelid, indkey::int2[] AS keys, indnkeyatts AS n, indisunique AS once
    FROM pg_index WHERE indpred IS NULL AND indrelid::regclass::text = ANY(%s)
)
SELECT short.name, long.name FROM one short JOIN one long ON long.indrelid = short.indrelid AND long.name <> short.name
WHERE NOT short.once AND short.n <= long.n AND short.keys[0:short.n - 1] = long.keys[0:short.n - 1]
"""


def test_no_index_of_the_ledger_repeats_the_beginning_of_another() -> None:
    """Every new row is written into each of them, and reading has nothing of it."""
    with connection.cursor() as cursor:
        cursor.execute(_REPEATED, [list(_LEDGER)])
        assert not cursor.fetchall()
