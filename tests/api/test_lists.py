"""Pages by time: with `created_after` and `created_before` they come in the order of the index that finds them."""

from datetime import timedelta

import pytest

from invoices.models import Invoice
from tests.api.door import Door
from tests.console.world import World

pytestmark = pytest.mark.django_db


def test_a_period_is_paged_in_order_of_time_whatever_the_numbers_say(redis_client: object) -> None:
    world = World(name="Ann's")
    own = Door(merchant=world.merchant)
    for number in range(5):
        invoice = world.fail(invoice=f"in_{number}", customer=f"cus_{number}", token=f"tok_{number}")
        # The first row is the youngest: as if it had been written by a transaction that began last.
        Invoice.objects.filter(pk=invoice.pk).update(created_at=world.at - timedelta(hours=number))
    query = {"created_after": (world.at - timedelta(hours=3)).isoformat(), "limit": 2, "ordering": "created_at"}
    first = own.get("/invoices", **query)
    second = own.get("/invoices", **query, cursor=first["next_cursor"])
    told = [row["provider_invoice_id"] for row in first["data"] + second["data"]]
    assert (told, second["next"]) == (["in_3", "in_2", "in_1", "in_0"], None)
    del query["created_after"]
    refused = own.get("/invoices", status=400, **query, cursor=first["next_cursor"])
    assert refused["code"] == "cursor_invalid"
    before = own.get("/invoices", created_before=(world.at - timedelta(hours=3)).isoformat())
    assert [row["provider_invoice_id"] for row in before["data"]] == ["in_4"]
