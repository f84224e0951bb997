"""What people filter the big lists by is answered by an index, however rare it is: few are not looked for among all."""

import pgtrigger
import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from tests.console.world import World

pytestmark = pytest.mark.django_db
# Page, its query string and the index that answers it.
LOOKS = (
    ("admin:invoices_attempt_changelist", "category=FRAUD_FLAGGED", "attempt_by_category"),
    ("admin:invoices_attempt_changelist", "trigger__exact=staff", "attempt_asked_for"),
    ("admin:invoices_attempt_changelist", "origin__exact=OUTSIDE", "attempt_outside"),
    ("admin:invoices_attempt_changelist", "status__exact=ERRORED", "attempt_errored"),
    ("admin:invoices_attempt_changelist", "kind__exact=REFUND", "attempt_of_refund"),
    ("admin:invoices_outboxmessage_changelist", "state=dead", "outbox_dead"),
    ("dashboard", "", "outbox_dead"),
    ("dashboard-invoices", "failed=30&code=a_rare_code", "attempt_by_code"),
)
_COPIES = """
INSERT INTO invoices_attempt SELECT (jsonb_populate_record(NULL::invoices_attempt, to_jsonb(one) || jsonb_build_object(
    'id', 1000000 + n, 'public_id', 'c' || n, 'idempotency_key', NULL, 'provider_id', NULL, 'category', 'SOFT_DECLINE'
))).* FROM (SELECT * FROM invoices_attempt LIMIT 1) one, generate_series(1, 2000) n;
INSERT INTO invoices_outboxmessage SELECT (jsonb_populate_record(NULL::invoices_outboxmessage,
    to_jsonb(one) || jsonb_build_object('id', 1000000 + n, 'consumer', 'c' || n, 'done_at', now()))).*
FROM (SELECT * FROM invoices_outboxmessage LIMIT 1) one, generate_series(1, 2000) n;
ANALYZE invoices_attempt; ANALYZE invoices_outboxmessage
"""


@pytest.fixture
def staff(client: Client) -> Client:
    """Somebody at a merchant with 2,000 ordinary attempts and messages that were handled."""
    world = World()
    world.fail()
    with pgtrigger.ignore(), connection.cursor() as cursor:
        cursor.execute(_COPIES)
    client.force_login(world.person("owner", is_staff=True))
    return client


def plans(client: Client, page: str, query: str, table: str) -> list[str]:
    """How the page's reads of the table are carried out."""
    with CaptureQueriesContext(connection) as asked:
        assert client.get(f"{reverse(page)}?{query}").status_code == 200
    found = []
    with connection.cursor() as cursor:
        for sql in (one["sql"] for one in asked):
            if sql.startswith("SELECT") and table in sql:
                cursor.execute(f"EXPLAIN {sql}")
                found.append("\n".join(line for (line,) in cursor.fetchall()))
    return found


def test_rare_rows_are_found_by_an_index(staff: Client) -> None:
    for page, query, index in LOOKS:
        table = "invoices_outboxmessage" if index == "outbox_dead" else "invoices_attempt"
        found = plans(staff, page, query, table)
        assert any(f" {index} " in plan for plan in found), "\n".join(found)
        assert not any(f"Seq Scan on {table}" in plan for plan in found), "\n".join(found)
