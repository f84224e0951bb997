"""The API's reads: a page of 1,000,000 invoices against one of 1,000, and what one invoice costs in queries.

list_1m_vs_1k         pages of a merchant with many invoices: the first, one from the middle, one by time; the worst
                      of the three is told. Floor: the same page of a merchant with 1,000
invoice_get_queries   queries of GET /invoices/{id}, the audit row included
"""

import sys
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _common import Result, at_most, in_turn, own_database, quick, report

_FILL = """
INSERT INTO invoices_invoice (merchant_id, connection_id, customer_id, public_id, number, description, status,
    amount_minor, currency, paid_minor, refunded_minor, credited_minor, subscription_id, plan, interval,
    provider_attempt_count, collection_stopped, cancel_reason, issued_at, created_at, last_seq, last_hash)
SELECT merchant_id, connection_id, id, 'inv_' || lpad(%(merchant)s::text || n::text, 26, '0'), '', '', 'INIT',
    4990, 'USD', 0, 0, 0, '', '', '', 0, '', '', now(), now() - (%(rows)s - n) * interval '1 second', 0, ''
FROM invoices_customer, generate_series(1, %(rows)s) AS n WHERE invoices_customer.id = %(customer)s
"""


def shop(name: str, rows: int) -> Any:
    """A client of a merchant with so many invoices, and the pages that are timed."""
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

    return get, pages(new.merchant, rows)


def pages(merchant: Any, rows: int) -> dict[str, str]:
    """The addresses that are timed. The cursor is the one that half a million pages forward would have given."""
    from urllib.parse import urlencode

    from accounts.api.pagination import Ordering, cursor_of
    from invoices.models import Invoice

    middle = Invoice.objects.filter(merchant=merchant).order_by("pk")[rows // 2]
    cursor = cursor_of("-created_at", Ordering("pk", descending=True), middle)
    time = {"created_before": middle.created_at.isoformat()}
    return {
        "first": "/api/v1/invoices",
        "deep": f"/api/v1/invoices?{urlencode({'cursor': cursor})}",
        "by time": f"/api/v1/invoices?{urlencode(time)}",
    }


def main() -> None:
    small_run = quick("Reads of the HTTP API")
    with own_database("api"):
        from django.conf import settings
        from django.db import connection
        from django.test.utils import CaptureQueriesContext

        settings.API_RATE_LIMIT = 100_000_000
        settings.ALLOWED_HOSTS = ["testserver"]
        small, few = shop("small", 1_000)
        big, many = shop("big", 100_000 if small_run else 1_000_000)
        timed = {}
        for name in few:
            assert len(big(many[name])["data"]) == len(small(few[name])["data"]) == 50
            timed[name] = in_turn(partial(small, few[name]), partial(big, many[name]), rounds=5, times=20)
            print(f"{name} page: {timed[name][0]:.2f}", file=sys.stderr)
        ratio, value, floor = max(timed.values())
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
