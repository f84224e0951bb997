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


_KEYS = """
SELECT conrelid::regclass::text, confrelid::regclass::text,
    (SELECT array_agg(attname::text) FROM pg_attribute WHERE attrelid = conrelid AND attnum = ANY(conkey))
FROM pg_constraint WHERE contype = 'f'
"""


def test_every_relation_is_a_foreign_key_of_the_database_with_the_tenant_or_without() -> None:
    """Where the key with the tenant says all, the plain one is left out, and so is that to the merchant itself."""
    with connection.cursor() as cursor:
        cursor.execute(_KEYS)
        kept = {(table, parent, frozenset(columns)) for table, parent, columns in cursor.fetchall()}
    seen = 0
    for model in apps.get_models():
        relations = [field for field in model._meta.local_concrete_fields if field.remote_field]
        for field in relations:
            table, parent = model._meta.db_table, field.related_model._meta.db_table
            if getattr(field, "db_constraint", True):
                assert (table, parent, frozenset({field.column})) in kept, field
                continue
            seen += 1
            if field.name == "merchant":  # a parent that must be there is of this merchant
                musts = [one for one in relations if not one.null and one.name != "merchant"]
                others = [(one.related_model._meta.db_table, {one.column, "merchant_id"}) for one in musts]
                assert any((table, other, frozenset(columns)) in kept for other, columns in others), field
            else:
                assert (table, parent, frozenset({field.column, "merchant_id"})) in kept, field
    assert seen > 40


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
