"""Copies of one bill's rows, as many as a plan needs to show itself: few are looked for among all or by an index."""

from typing import Any

import pgtrigger
from django.db import connection

# Each table's columns that differ between copies; `n` numbers them from 1.
_COPIES = {
    "invoices_customer": {"public_id": "'cus_' || n", "connector_customer_id": "'cus_copy_' || n"},
    "tokens_card": {"public_id": "'crd_' || n", "fingerprint": "'fp_copy_' || n", "budget_group": "gen_random_uuid()"},
    "tokens_token": {"public_id": "'tok_' || n", "provider_token": "'pm_copy_' || n"},
    "invoices_invoice": {"public_id": "'inv_' || n", "provider_invoice_id": "'in_copy_' || n"},
    "invoices_transaction": {"public_id": "'txn_' || n"},
    "invoices_attempt": {
        "public_id": "'att_' || n",
        "provider_id": "'ch_copy_' || n",
        "provider_payment_id": "'pi_copy_' || n",
        "idempotency_key": "NULL",
    },
    "invoices_providerpayment": {"provider_payment_id": "'pi_copy_' || n"},
    "retries_case": {"public_id": "'cas_' || n"},
    "retries_retryjob": {"public_id": "'job_' || n"},
}
_LINKS = {
    "customer_id": "invoices_customer",
    "card_id": "tokens_card",
    "token_id": "tokens_token",
    "invoice_id": "invoices_invoice",
    "transaction_id": "invoices_transaction",
    "case_id": "retries_case",
}


def copy_rows(models: dict[str, int], number: int, *, after: int = 1_000_000, later: str = "1 year") -> None:
    """That many copies of the rows `models` (primary key by table), which point at each other as these do.

    A copy's primary key is its model's plus `after` plus its number; its job is due `later` than the model's.
    """
    links = {column: table for column, table in _LINKS.items() if table in models}
    with pgtrigger.ignore(), connection.cursor() as cursor:
        for table, model in models.items():
            cursor.execute(
                "SELECT column_name FROM information_schema.columns WHERE table_schema = 'public' AND table_name = %s",
                [table],
            )
            columns = {name for (name,) in cursor.fetchall()}
            pairs = {"id": f"{model + after} + n", **_COPIES[table]}
            pairs |= {name: f"{models[target] + after} + n" for name, target in links.items() if name in columns}
            if table == "retries_case":
                token = f"to_jsonb({models['tokens_token'] + after} + n)"
                pairs["failure"] = f"jsonb_set(m.failure, '{{token}}', {token})"
            if table == "retries_retryjob":
                pairs["due_at"] = f"m.due_at + interval '{later}'"
            built = ", ".join(f"'{name}', {value}" for name, value in pairs.items())
            cursor.execute(
                f"INSERT INTO {table} SELECT (jsonb_populate_record(m, jsonb_build_object({built}))).*"  # noqa: S608
                f" FROM {table} m, generate_series(1, %s) n WHERE m.id = %s",
                [number, model],
            )
            cursor.execute(f"ANALYZE {table}")


def whole_reads() -> dict[str, int]:
    """Rows read by scans of whole tables in this transaction, by table."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT relname, seq_tup_read FROM pg_stat_xact_user_tables")
        found: dict[str, Any] = dict(cursor.fetchall())
    return found
