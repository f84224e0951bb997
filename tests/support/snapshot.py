"""A fingerprint of every table of ours, to show that nothing was changed."""

from collections.abc import Collection

from django.apps import apps
from django.db import connection

_OURS = ("accounts", "invoices", "tokens", "retries", "webhooks", "notifications", "analytics")
# Written by every call, also by one that is refused: who asked, and what was counted.
BOOKS = frozenset({"accounts_apiaccess", "accounts_apikey", "accounts_ratewindow"})


def snapshot(*, besides: Collection[str] = BOOKS) -> dict[str, str | None]:
    """Table name -> hash of its rows."""
    found = {}
    with connection.cursor() as cursor:
        for model in apps.get_models():
            table = model._meta.db_table
            if table.split("_")[0] in _OURS and table not in besides:
                # Table names come from the models, nothing from outside.
                cursor.execute(f"SELECT md5(string_agg(t::text, ',' ORDER BY t::text)) FROM {table} t")  # noqa: S608
                found[table] = cursor.fetchone()[0]
    return found


def changed(before: dict[str, str | None], *, besides: Collection[str] = BOOKS) -> set[str]:
    """The tables that differ from `before`."""
    after = snapshot(besides=besides)
    return {table for table in before if before[table] != after[table]}
