"""Nobody waits behind somebody else's backlog, and no backlog pushes anything out."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection

from retries.engine.claim import jobs_claim, jobs_due
from retries.models import RetryJob
from tests.support.shop import Shop

# Everything happens in one transaction that is taken back, so that the rows need nothing to point at.
pytestmark = pytest.mark.django_db
BACKLOG = 100_000
BATCH = 48
LEASE = timedelta(minutes=5)

_FREE = """
DO $$ DECLARE found record; BEGIN
    FOR found IN SELECT conname FROM pg_constraint WHERE contype = 'f' AND conrelid = 'retries_retryjob'::regclass
    LOOP EXECUTE format('ALTER TABLE retries_retryjob DROP CONSTRAINT %I', found.conname); END LOOP;
    ALTER TABLE retries_retryjob DISABLE TRIGGER USER;
END $$
"""
_PILE = """
INSERT INTO retries_retryjob (merchant_id, connection_id, customer_id, invoice_id, transaction_id, public_id, kind,
    status, trigger, due_at, band, expected_value_minor, why, decision, requested_by, last_error)
SELECT %(merchant)s, %(connection)s, 1000000 + n, 1000000 + n, 1000000 + n, 'job_' || %(merchant)s || '_' || n,
    'CHARGE', 'SCHEDULED', 'automatic', %(due)s, n %% 10, 1, '', '{}', 'test', ''
FROM generate_series(%(first)s, %(last)s) n
"""


def pile(shop: Shop, first: int, last: int, due: Any) -> None:
    values = {"merchant": shop.merchant.pk, "connection": shop.connection.pk, "first": first, "last": last, "due": due}
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute(_FREE)
        cursor.execute(_PILE, values)
        cursor.execute("ANALYZE retries_retryjob")


def claim(shop: Shop) -> list[int]:
    """Merchants of one batch, in no order."""
    taken = [claim.job_pk for claim in jobs_claim(now=shop.at, lease=LEASE, limit=BATCH)]
    return list(RetryJob.objects.filter(pk__in=taken).values_list("merchant", flat=True))


def test_ten_due_jobs_beside_a_hundred_thousand_leave_with_the_next_batch(
    shop: Shop, new_shop: Callable[..., Shop]
) -> None:
    lonely = new_shop()
    pile(shop, 1, BACKLOG, shop.at - timedelta(days=1))
    assert claim(shop) == [shop.merchant.pk] * BATCH
    # They become due while the crowd is being worked, and are of the lowest band besides.
    pile(lonely, BACKLOG + 1, BACKLOG + 10, shop.at)
    RetryJob.objects.filter(merchant=lonely.merchant).update(band=9)
    assert claim(shop).count(lonely.merchant.pk) == 10
    # Within the crowd bands go in order.
    bands = RetryJob.objects.filter(status="RUNNING", merchant=shop.merchant).values_list("band", flat=True)
    assert set(bands) == {0}
    # Overload means later, not lost: everything that has not been taken is still there.
    assert RetryJob.objects.filter(merchant=shop.merchant, status="SCHEDULED").count() == BACKLOG - 2 * BATCH + 10


def test_a_connection_that_may_not_be_called_costs_one_look_however_many_jobs_wait_for_it(
    shop: Shop, new_shop: Callable[..., Shop]
) -> None:
    other = new_shop()
    pile(shop, 1, 5_000, shop.at)
    pile(other, 5_001, 5_003, shop.at)
    type(shop.connection).objects.filter(pk=shop.connection.pk).update(paused_reason="the key was refused")
    assert claim(shop) == [other.merchant.pk] * 3
    assert jobs_due(now=shop.at, limit=10) == []
