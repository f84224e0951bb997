"""What people filter the big lists by is answered by an index, however rare it is: few are not looked for among all."""

import pgtrigger
import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from accounts.models import ApiAccess
from invoices.models import Attempt
from retries.models import RetryJob
from tests.console.world import World
from tests.support.copies import copy_rows

pytestmark = pytest.mark.django_db
# Page, its query string, the table that it must not read whole and the index that answers instead.
LOOKS = (
    ("admin:invoices_attempt_changelist", "category=FRAUD_FLAGGED", "invoices_attempt", "attempt_by_category"),
    ("admin:invoices_attempt_changelist", "trigger__exact=staff", "invoices_attempt", "attempt_asked_for"),
    ("admin:invoices_attempt_changelist", "origin__exact=OUTSIDE", "invoices_attempt", "attempt_outside"),
    ("admin:invoices_attempt_changelist", "status__exact=ERRORED", "invoices_attempt", "attempt_errored"),
    ("admin:invoices_attempt_changelist", "kind__exact=REFUND", "invoices_attempt", "attempt_of_refund"),
    ("admin:invoices_transaction_changelist", "status__exact=FAILED", "invoices_transaction", "transaction_by_status"),
    ("admin:invoices_outboxmessage_changelist", "state=dead", "invoices_outboxmessage", "outbox_dead"),
    ("admin:accounts_apiaccess_changelist", "q=user:7", "accounts_apiaccess", "api_access_by_actor"),
    ("dashboard", "", "invoices_outboxmessage", "outbox_dead"),
    ("dashboard-invoices", "failed=30&code=a_rare_code", "invoices_attempt", "attempt_by_code"),
    ("dashboard-invoices", "q=Webb", "invoices_customer", "customer_by_name"),
    ("dashboard-invoices", "currency=JPY", "invoices_invoice", "invoice_by_currency"),
    ("dashboard-invoices", "segment=a_rare_segment", "retries_case", "case_by_segment"),
)
COPIES = 2_000
_MESSAGES = """
INSERT INTO invoices_outboxmessage SELECT (jsonb_populate_record(NULL::invoices_outboxmessage,
    to_jsonb(one) || jsonb_build_object('id', 1000000 + n, 'consumer', 'c' || n, 'done_at', now()))).*
FROM (SELECT * FROM invoices_outboxmessage LIMIT 1) one, generate_series(1, %s) n;
ANALYZE invoices_outboxmessage; ANALYZE accounts_apiaccess
"""


@pytest.fixture
def staff(client: Client) -> Client:
    """Somebody at a merchant with 2,000 ordinary bills, messages that were handled and accesses."""
    world = World()
    invoice = world.fail()
    job = RetryJob.objects.get(invoice=invoice)
    attempt = Attempt.objects.get(invoice=invoice)
    assert attempt.card_id is not None
    assert attempt.token_id is not None
    assert job.case_id is not None
    copy_rows(
        {
            "invoices_customer": invoice.customer_id,
            "tokens_card": attempt.card_id,
            "tokens_token": attempt.token_id,
            "invoices_invoice": invoice.pk,
            "invoices_transaction": attempt.transaction_id,
            "invoices_attempt": attempt.pk,
            "retries_case": job.case_id,
            "retries_retryjob": job.pk,
        },
        COPIES,
    )
    access = {"actor": "user:1", "credential": "session", "method": "GET", "route": "dashboard", "status_code": 200}
    ApiAccess.objects.bulk_create(ApiAccess(merchant=world.merchant, **access) for _ in range(COPIES))
    with pgtrigger.ignore(), connection.cursor() as cursor:
        cursor.execute(_MESSAGES, [COPIES])
    client.force_login(world.person("owner", is_staff=True))
    return client


def plans(client: Client, page: str, query: str, table: str) -> list[str]:
    """How the page's reads of the table are carried out."""
    with CaptureQueriesContext(connection) as asked:
        assert client.get(f"{reverse(page)}?{query}").status_code == 200
    found = []
    with connection.cursor() as cursor:
        for sql in (one["sql"] for one in asked):
            if sql.startswith(("SELECT", "(SELECT")) and table in sql:
                cursor.execute(f"EXPLAIN {sql}")
                found.append("\n".join(line for (line,) in cursor.fetchall()))
    return found


def test_rare_rows_are_found_by_an_index(staff: Client) -> None:
    for page, query, table, index in LOOKS:
        found = plans(staff, page, query, table)
        assert any(f" {index} " in plan for plan in found), "\n".join([query, *found])
        assert not any(f"Seq Scan on {table}" in plan for plan in found), "\n".join([query, *found])
