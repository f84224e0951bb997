"""Lists and addresses: pages by time come in the order of the index that finds them, what is no address says so."""

from datetime import timedelta

import pytest
from django.test import Client

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


def test_an_instant_that_postgresql_would_not_take_is_still_an_instant(redis_client: object) -> None:
    own = Door()
    assert own.get("/policies", created_after="1119-05-02T04:25:35-21:17")["data"] == []
    refused = own.get("/policies", status=400, created_after="0001-01-01T00:00:00+23:00")
    assert refused["errors"][0]["field"] == "created_after"


@pytest.mark.parametrize("path", ["/api/v1/nothing", "/api/v1/line%0Abreak", "/api/nothing"])
def test_an_address_that_is_none_answers_in_json_whatever_is_sent(path: str) -> None:
    strict = Client(enforce_csrf_checks=True)
    for answer in (strict.get(path), strict.post(path, {}, content_type="application/json")):
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    moved = strict.post("/api/v1/payments/process/", {}, content_type="application/json")
    assert (moved.status_code, moved["Location"]) == (308, "/api/v1/payments/process")
