import csv
import io
from collections.abc import Callable
from datetime import timedelta

import pytest
from django.db import connection
from django.http import StreamingHttpResponse
from django.test import Client
from django.test.utils import CaptureQueriesContext

from accounts.models import User
from analytics.exports import INVOICE_COLUMNS, neutral
from analytics.search import invoice_pks_matching
from analytics.selectors.invoices import PAGE, InvoiceFilter, filter_from, invoice_page, invoices_matching
from invoices.models import Customer, Invoice
from retries.models import Case
from tests.console.world import World

LogIn = Callable[[User], Client]


def found(world: World, **wanted: str) -> set[str]:
    rows = invoices_matching(world.merchant, InvoiceFilter(**wanted), world.at)
    return {invoice.provider_invoice_id or "" for invoice in rows}


@pytest.fixture
def three(world: World) -> World:
    """a: soft, booked; b: hard decline, waits for the customer, in yen; c: recovered two days later."""
    world.fail(invoice="in_a", customer="cus_ann", token="tok_a", code="insufficient_funds", last4="1111", number="A-1")
    world.fail(invoice="in_b", customer="cus_ben", token="tok_b", code="expired_card", currency="JPY", last4="2222")
    paid = world.fail(invoice="in_c", customer="cus_cleo", token="tok_c", code="insufficient_funds", last4="3333")
    world.wait(days=2)
    world.pay(paid)
    return world


def test_invoices_are_found_by_the_beginning_of_a_customers_name_and_a_pasted_card(world: World) -> None:
    invoice = world.fail(last4="1862")
    Customer.objects.update(name="Webb Studio 50%")
    for text in ("webb", "Webb Studio", "WEBB STUDIO 50%", "•••• 1862"):
        assert invoice_pks_matching(world.merchant, text) == [invoice.pk], text
    for text in ("studio", "we", "Webb_", "Web%b"):
        assert invoice_pks_matching(world.merchant, text) == [], text


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({}, "in_a in_b in_c"),
        ({"status": "SETTLED"}, "in_c"),
        ({"status": "PROCESSING"}, "in_a"),
        ({"case": "OPEN"}, "in_a in_b"),
        ({"case": "RECOVERED"}, "in_c"),
        ({"next_step": "customer"}, "in_b"),
        ({"category": "HARD_DECLINE"}, "in_b"),
        ({"currency": "jpy"}, "in_b"),
        ({"case": "OPEN", "currency": "USD"}, "in_a"),
        ({"failed": "7", "code": "insufficient_funds"}, "in_a in_c"),
        ({"failed": "7", "category": "INSUFFICIENT_FUNDS"}, "in_a in_c"),
        ({"failed": "7", "code": "none"}, ""),
        ({"closed": "7"}, "in_c"),
        ({"opened": "7", "case": "RECOVERED"}, "in_c"),
        ({"next_step": "booked", "category": "HARD_DECLINE"}, ""),
        ({"check": "without_next_step", "failed": "30"}, ""),
    ],
    ids=str,
)
def test_filters_find_exactly_their_invoices(three: World, wanted: dict[str, str], expected: str) -> None:
    assert found(three, **wanted) == set(expected.split())


def test_periods_of_filters_are_the_merchants_days_up_to_now(three: World) -> None:
    three.wait(days=8)
    assert found(three, opened="7") == set()
    assert found(three, opened="30") == {"in_a", "in_b", "in_c"}


def test_conditions_on_cases_must_hold_for_one_and_the_same_case(world: World) -> None:
    invoice = world.fail(invoice="in_a")
    world.pay(invoice)
    Case.objects.filter(invoice=invoice).update(category="HARD_DECLINE")
    assert found(world, case="RECOVERED", category="HARD_DECLINE") == {"in_a"}
    assert found(world, case="OPEN", category="HARD_DECLINE") == set()


def test_search_finds_an_invoice_by_whatever_is_at_hand(three: World) -> None:
    invoice = three.get("in_a")
    attempt = invoice.attempts.get()
    assert attempt.token is not None
    assert attempt.card is not None
    texts = [
        "in_a",
        "A-1",
        "cus_ann",
        "cus_ann@example.com",
        "CUS_ANN@example.com",
        "1111",
        "pi_in_a",
        "tok_a",
        attempt.provider_id,
        attempt.public_id,
        attempt.token.public_id,
        attempt.card.public_id,
        invoice.public_id,
        invoice.public_id.upper(),
        invoice.customer.public_id,
        invoice.transactions.get().public_id,
        three.case(invoice).public_id,
        invoice.jobs.get().public_id,
        f"  {invoice.public_id}  ",
    ]
    assert [text for text in texts if found(three, q=str(text)) != {"in_a"}] == []


@pytest.mark.parametrize(
    "text", ["nothing", "111", "inv_00000000000000000000000000", "'; DROP TABLE x", "%", "a@b", "\x00"]
)
def test_search_for_something_else_finds_nothing(three: World, text: str) -> None:
    assert found(three, q=text) == set()


def test_search_never_leaves_the_merchant(three: World) -> None:
    other = World(name="Other", at=three.at)
    theirs = other.fail(invoice="in_a", customer="cus_ann", token="tok_a", last4="1111")
    attempt = theirs.attempts.get()
    for text in (theirs.public_id, attempt.public_id, str(attempt.provider_id), theirs.customer.public_id):
        assert found(three, q=text) == set()
        assert invoice_pks_matching(three.merchant, text) == []
    for text in ("in_a", "cus_ann@example.com", "1111", "cus_ann"):
        rows = invoices_matching(three.merchant, InvoiceFilter(q=text), three.at)
        assert [row.pk for row in rows] == [three.get("in_a").pk]


def test_senseless_parameters_are_dropped() -> None:
    parameters = {
        "status": "HACKED",
        "case": "OPEN",
        "opened": "5",
        "next_step": "",
        "check": "x",
        "unknown": "1",
        "q": " a ",
    }
    assert filter_from(parameters) == InvoiceFilter(case="OPEN", q="a")


def test_filter_survives_its_own_address() -> None:
    wanted = InvoiceFilter(q="a&b=c", case="OPEN", code="x y")
    assert wanted.query() == "q=a%26b%3Dc&case=OPEN&code=x+y"
    assert wanted.query(q="") == "case=OPEN&code=x+y"


def test_pages_follow_the_key_and_show_every_invoice_once(world: World) -> None:
    for number in range(7):
        world.fail(customer=f"cus_{number}", token=f"tok_{number}")
    seen: list[int] = []
    cursor: int | None = None
    pages = 0
    while True:
        page = invoice_page(world.merchant, InvoiceFilter(), now=world.at, older_than=cursor, size=3)
        seen += [row.invoice.pk for row in page.rows]
        pages += 1
        cursor = page.older_than
        if cursor is None:
            break
    assert pages == 3
    assert seen == list(Invoice.objects.order_by("-pk").values_list("pk", flat=True))
    # An invoice that arrives meanwhile moves no page boundary.
    world.fail(customer="cus_new", token="tok_new")
    again = invoice_page(world.merchant, InvoiceFilter(), now=world.at, older_than=seen[2], size=3)
    assert [row.invoice.pk for row in again.rows] == seen[3:6]


def test_full_last_page_has_no_older_page(world: World) -> None:
    for number in range(3):
        world.fail(customer=f"cus_{number}", token=f"tok_{number}")
    assert invoice_page(world.merchant, InvoiceFilter(), now=world.at, older_than=None, size=3).older_than is None


def test_row_carries_the_newest_case_only(world: World) -> None:
    invoice = world.fail()
    (row,) = invoice_page(world.merchant, InvoiceFilter(), now=world.at, older_than=None).rows
    assert row.open_case == world.case(invoice)
    world.pay(invoice)
    (row,) = invoice_page(world.merchant, InvoiceFilter(), now=world.at, older_than=None).rows
    assert row.case is not None
    assert (row.case.status, row.open_case) == ("RECOVERED", None)


def test_page_costs_the_same_queries_for_one_row_and_for_many_and_counts_nothing(world: World, as_user: LogIn) -> None:
    client = as_user(world.person())
    world.fail(customer="cus_0", token="tok_0")
    address = "/dashboard/invoices/?q=&case=OPEN"
    client.get(address)  # the session learns the merchant
    with CaptureQueriesContext(connection) as one:
        client.get(address)
    for number in range(1, 12):
        world.fail(customer=f"cus_{number}", token=f"tok_{number}")
    with CaptureQueriesContext(connection) as many:
        page = client.get(address)
    assert page.content.count(b'data-label="Customer"') == 12
    assert len(many) == len(one)
    on_invoices = [query["sql"] for query in many if 'FROM "invoices_invoice"' in query["sql"]]
    assert len(on_invoices) == 1
    assert "COUNT(" not in on_invoices[0]
    assert f"LIMIT {PAGE + 1}" in on_invoices[0]


def test_list_shows_links_to_the_case_page_and_keeps_filters_in_its_links(world: World, as_user: LogIn) -> None:
    invoice = world.fail(number="INV-77")
    text = as_user(world.person()).get("/dashboard/invoices/?case=OPEN&currency=USD").content.decode()
    assert f'href="/console/invoices/{invoice.public_id}/">INV-77</a>' in text
    assert 'href="/dashboard/invoices/export.csv?case=OPEN&amp;currency=USD"' in text
    assert 'href="/dashboard/invoices/?currency=USD">Case open' in text  # the chip removes one filter
    assert '<input type="hidden" name="currency" value="USD">' in text


def test_values_from_outside_are_escaped(world: World, as_user: LogIn) -> None:
    world.fail(number="<script>alert(1)</script>", code='"><img src=x>')
    client = as_user(world.person())
    for address in ("/dashboard/", "/dashboard/invoices/", "/dashboard/invoices/?q=<script>"):
        text = client.get(address).content.decode()
        assert "<script>alert" not in text
        assert "<img src=x" not in text


def read_csv(response: object) -> list[dict[str, str]]:
    assert isinstance(response, StreamingHttpResponse)
    text = b"".join(response.streaming_content).decode()  # type: ignore[arg-type]
    return list(csv.DictReader(io.StringIO(text, newline="")))


def test_export_has_the_filtered_rows_with_exact_amounts(three: World, as_user: LogIn) -> None:
    client = as_user(three.person())
    response = client.get("/dashboard/invoices/export.csv?case=OPEN")
    assert response["Content-Type"] == "text/csv; charset=utf-8"
    assert response["Content-Disposition"] == 'attachment; filename="invoices-20261122-1200.csv"'
    rows = read_csv(response)
    assert tuple(rows[0]) == INVOICE_COLUMNS
    assert [row["provider_invoice_id"] for row in rows] == ["in_b", "in_a"]
    yen, dollars = rows
    assert (yen["amount"], yen["due"], yen["currency"]) == ("4990", "4990", "JPY")
    assert (dollars["amount"], dollars["paid"], dollars["due"], dollars["next_step"]) == (
        "49.90",
        "0.00",
        "49.90",
        "booked",
    )
    assert dollars["issued_at"] == "2026-11-20T12:00:00+00:00"
    assert "cus_ann@example.com" not in str(rows)


def test_export_reads_in_chunks_and_misses_nothing(
    world: World, as_user: LogIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("analytics.selectors.invoices._EXPORT_CHUNK", 2)
    for number in range(5):
        world.fail(invoice=f"in_{number}", customer=f"cus_{number}", token=f"tok_{number}")
    rows = read_csv(as_user(world.person()).get("/dashboard/invoices/export.csv"))
    assert [row["provider_invoice_id"] for row in rows] == ["in_4", "in_3", "in_2", "in_1", "in_0"]


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n", " ="])
def test_cell_that_a_spreadsheet_would_run_is_disarmed(start: str) -> None:
    assert neutral(f"{start}1+1") == f"'{start}1+1"


@pytest.mark.parametrize("cell", ["", "49.90", "in_1", "a=b", "'=1"])
def test_harmless_cell_stays_as_it_is(cell: str) -> None:
    assert neutral(cell) == cell


def test_formula_in_an_invoice_number_does_not_reach_the_spreadsheet(world: World, as_user: LogIn) -> None:
    world.fail(number='=HYPERLINK("http://x")')
    (row,) = read_csv(as_user(world.person()).get("/dashboard/invoices/export.csv"))
    assert row["number"] == '\'=HYPERLINK("http://x")'


def test_waiting_time_of_a_step_is_told_from_the_pages_clock(world: World, as_user: LogIn) -> None:
    world.fail()
    client = as_user(world.person())
    assert "in 24 h" in client.get("/dashboard/invoices/").content.decode()
    world.at += timedelta(hours=30)
    assert "6 h ago" in client.get("/dashboard/invoices/").content.decode()
