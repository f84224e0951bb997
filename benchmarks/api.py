"""The API's reads: a page of 1,000,000 invoices against one of 1,000, and what one invoice costs in queries.

list_1m_vs_1k         first and deep pages of a merchant with many invoices; floor: a merchant with 1,000
invoice_get_queries   queries of GET /invoices/{id}, the audit row included
"""

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _common import Result, at_most, in_turn, own_database, quick, report

_FILL = """
INSERT INTO invoices_invoice (merchant_id, connection_id, customer_id, public_id, number, description, status,
    amount_minor, currency, paid_minor, refunded_minor, credited_minor, subscription_id, plan, interval,
    provider_attempt_count, collection_stopped, cancel_reason, issued_at, last_seq, last_hash)
SELECT merchant_id, connection_id, id, 'inv_' || lpad(%(merchant)s::text || n::text, 26, '0'), '', '', 'INIT',
    4990, 'USD', 0, 0, 0, '', '', '', 0, '', '', now(), 0, ''
FROM invoices_customer, generate_series(1, %(rows)s) AS n WHERE invoices_customer.id = %(customer)s
"""


def shop(name: str, rows: int) -> Any:
    """A client of a merchant with so many invoices, and the path of one that lies deep."""
    from django.db import connection
    from django.test import Client
    from django.utils import timezone

    from accounts.services import merchant_create
    from invoices.services.parties import connection_create, customer_ensure
    from providers.base import CustomerFacts

    new = merchant_create(name=name)
    account = connection_create(merchant=new.merchant, provider="simulator", config={})
    customer = customer_ensure(connection=account, facts=CustomerFacts(id="cus_1"), now=timezone.now())
    with connection.cursor() as cursor:
        cursor.execute(_FILL, {"merchant": new.merchant.pk, "rows": rows, "customer": customer})
        cursor.execute("ANALYZE invoices_invoice")
    headers = {"Authorization": f"Bearer {new.api_key.text}"}
    client = Client(headers=headers)

    def get(path: str) -> Any:
        answer = client.get(path)
        assert answer.status_code == 200, answer.content
        return answer.json()

    return get


def main() -> None:
    small_run = quick("Reads of the HTTP API")
    with own_database("api"):
        from django.conf import settings
        from django.db import connection
        from django.test.utils import CaptureQueriesContext

        settings.API_RATE_LIMIT = 100_000_000
        settings.ALLOWED_HOSTS = ["testserver"]
        small, big = shop("small", 1_000), shop("big", 100_000 if small_run else 1_000_000)
        ratio, value, floor = in_turn(
            lambda: small("/api/v1/invoices"), lambda: big("/api/v1/invoices"), rounds=5, times=20
        )
        invoice = big("/api/v1/invoices?limit=1")["data"][0]["id"]
        big(f"/api/v1/invoices/{invoice}")
        with CaptureQueriesContext(
            connection,
        ) as queries:
            big(f"/api/v1/invoices/{invoice}")
        results: list[Result] = [
            at_most("list_1m_vs_1k", value, "us", floor=floor, target=2.0, ratio=ratio),
            at_most("invoice_get_queries", len(queries), "queries", floor=1, target=6, ratio=float(len(queries))),
        ]
    report("api", results)


if __name__ == "__main__":
    main()
