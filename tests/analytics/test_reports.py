"""Reports: tables, their links and their CSV; the forecast; the use of budgets."""

import csv
import io
from collections.abc import Callable
from datetime import timedelta
from html import unescape

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from accounts.models import User
from analytics.forecast import Curve, Expected, OpenAmount, forecast
from analytics.period import period_of, zone_of
from analytics.reports import REPORTS, Row, by_budget, by_code, by_network, by_number, by_policy, by_sender, by_source
from analytics.rollups.reading import Figures
from analytics.selectors.forecast import expected_recoveries
from analytics.selectors.invoices import filter_from, invoice_page
from tests.analytics.history import month
from tests.console.world import World

LogIn = Callable[[User], Client]


def figures(world: World, days: int = 7) -> Figures:
    return Figures(world.merchant, period_of(days, world.at, zone_of("UTC")))


def cells(rows: tuple[Row, ...]) -> list[tuple[str, ...]]:
    return [(row.label, *row.cells) for row in rows]


@pytest.fixture
def told(world: World) -> World:
    """Two failures on Visa, one of them recovered by the first retry; one hard decline on Mastercard."""
    world.fail(customer="cus_a", token="tok_a")
    world.fail(customer="cus_b", token="tok_b", code="expired_card", network="mastercard")
    world.wait(hours=25)
    world.charge("ok")
    world.fail(customer="cus_c", token="tok_c", amount=1_000)
    return world


def test_failures_by_code_and_network_with_what_became_of_their_cases(told: World) -> None:
    assert cells(by_code(figures(told)).rows) == [
        ("insufficient_funds", "2", "67 %", "2", "50 %"),
        ("expired_card", "1", "33 %", "1", "0 %"),
    ]
    assert cells(by_network(figures(told)).rows) == [
        ("Visa", "2", "3", "67 %", "2", "50 %"),
        ("Mastercard", "1", "1", "100 %", "1", "0 %"),
    ]


def test_retries_by_number_sender_and_source(told: World) -> None:
    assert cells(by_number(figures(told)).rows) == [
        ("Attempt 1", "0", "0 %", "0 %", "3", "0 %"),
        ("Attempt 2", "1", "100 %", "100 %", "1", "100 %"),
    ]
    assert cells(by_sender(figures(told)).rows) == [
        ("The provider: first charges and its own retries", "3", "3", "0 %"),
        ("This service, automatic retries", "1", "1", "100 %"),
    ]
    assert cells(by_source(figures(told)).rows) == [("Automatic retry", "1", "100 %", "$49.90")]


def test_policies_by_version_and_segment(told: World) -> None:
    (row,) = by_policy(figures(told)).rows
    assert (row.label, row.cells) == ("Version 1, new customer", ("3", "2", "1", "33 %*", "45 % USD"))


def test_budget_use_counts_the_cards_of_open_cases(told: World) -> None:
    use = {row.label: row.cells for row in by_budget(figures(told)).rows}
    assert use["Visa: 15 in 30 days, per card and amount"] == ("1", "0", "1", "0", "0")
    assert use["Mastercard: 10 in 24 h, per card"] == ("1", "1", "0", "0", "0")
    assert use["Mastercard: 35 in 30 days, per card"] == ("1", "0", "1", "0", "0")


@pytest.mark.parametrize("name", sorted(REPORTS))
def test_every_row_leads_to_the_invoices_it_counts(told: World, name: str) -> None:
    for table in REPORTS[name].tables:
        for row in table(figures(told)).rows:
            if row.query:
                wanted = filter_from(dict(part.split("=") for part in row.query.split("&")))
                assert wanted.query() == row.query
                assert invoice_page(told.merchant, wanted, now=told.at, older_than=None).rows, (row.label, row.query)


@pytest.mark.parametrize("name", sorted(REPORTS))
def test_pages_show_every_table_with_its_definition_and_export_it(told: World, as_user: LogIn, name: str) -> None:
    client = as_user(told.person())
    page = unescape(client.get(f"/dashboard/reports/{name}/?days=7").content.decode())
    for table in REPORTS[name].tables:
        found = table(figures(told))
        assert found.definition.sentence[:40] in page
        answer = client.get(f"/dashboard/reports/{name}/{found.key}.csv?days=7")
        lines = b"".join(answer.streaming_content).decode().splitlines()  # type: ignore[attr-defined]
        assert len(lines) == len(found.rows) + 1
        assert lines[0].startswith(found.head[0])


def test_a_csv_has_a_row_for_every_currency_and_a_page_all_in_one(told: World, as_user: LogIn) -> None:
    yen = told.fail(customer="cus_y", token="tok_y", amount=5_000, currency="JPY")
    told.fail(customer="cus_e", token="tok_e", amount=2_050, currency="EUR")
    told.pay(yen)
    client = as_user(told.person())

    def lines(path: str) -> list[list[str]]:
        answer = client.get(f"/dashboard/reports/{path}.csv?days=7")
        text = b"".join(answer.streaming_content).decode()  # type: ignore[attr-defined]
        return list(csv.reader(io.StringIO(text, newline="")))

    assert lines("retries/recovered_by_source") == [
        ["Source", "Currency", "Cases", "Share", "Net"],
        ["The provider's own retry", "JPY", "1", "50 %", "5000"],
        ["Automatic retry", "USD", "1", "50 %", "49.90"],
    ]
    label = "Version 1, new customer"
    assert lines("policies/recovery_by_policy") == [
        [
            "Policy and segment",
            "Currency",
            "Cases",
            "Open",
            "Recovered",
            "Rate",
            "Amount",
            "Recovered amount",
            "By amount",
        ],
        [label, "EUR", "1", "1", "0", "0 %", "20.50", "0.00", "0 %"],
        [label, "JPY", "1", "0", "1", "100 %", "5000", "5000", "100 %"],
        [label, "USD", "3", "2", "1", "33 %", "109.80", "49.90", "45 %"],
    ]
    (row,) = by_policy(figures(told)).rows
    assert row.cells == ("5", "3", "2", "40 %*", "0 % EUR, 100 % JPY, 45 % USD")


def test_a_connection_narrows_the_page_and_a_foreign_one_does_not(told: World, as_user: LogIn) -> None:
    other = World(name="Umbrella", at=told.at)
    other.fail(code="a_secret_code")
    client = as_user(told.person())
    for public_id in (other.connection.public_id, "", "nonsense"):
        page = client.get(f"/dashboard/reports/failures/?connection={public_id}").content.decode()
        assert "insufficient_funds" in page
        assert "a_secret_code" not in page
    assert client.get("/dashboard/reports/nothing/").status_code == 404
    assert client.get("/dashboard/reports/failures/nothing.csv").status_code == 404


@pytest.mark.parametrize("name", sorted(REPORTS))
def test_reports_cost_the_same_queries_for_an_empty_and_a_full_merchant(
    world: World, as_user: LogIn, name: str
) -> None:
    client, page = as_user(world.person()), f"/dashboard/reports/{name}/?days=90"
    client.get(page)
    with CaptureQueriesContext(connection) as empty:
        assert client.get(page).status_code == 200
    month(world, until=world.at + timedelta(days=6), days=6)
    with CaptureQueriesContext(connection) as full:
        assert client.get(page).status_code == 200
    assert len(full) <= len(empty) + 1, "one more for the page of the failures' legend at most"


def test_forecast_is_due_times_what_came_later_at_this_age() -> None:
    curve = Curve()
    curve.add(50, 10)
    curve.add(25, 100)
    curve.add(25, None)
    few = Curve()
    few.add(3, 1)
    amounts = [
        OpenAmount("A", "USD", 0, 1_000),  # 75 of 100 came later
        OpenAmount("A", "USD", 48, 1_000),  # 25 of the 50 left came later
        OpenAmount("A", "EUR", 200, 500),  # nothing came later than that
        OpenAmount("B", "USD", 48, 100),  # too few of its own: all 103 together
    ]
    assert forecast({"A": curve, "B": few}, amounts) == [
        Expected("USD", 2_100, round(750 + 500 + 100 * 25 / 50)),
        Expected("EUR", 500, 0),
    ]
    assert forecast({"B": few}, amounts[:1]) == [Expected("USD", 1_000, None)]


def test_period_of_the_forecast_is_forty_five_to_ninety_days_ago(world: World) -> None:
    for serial in range(20):
        world.fail(customer=f"cus_{serial}", token=f"tok_{serial}")
    world.wait(days=50)
    world.fail(customer="cus_new", token="tok_new", amount=10_000)
    assert [(one.currency, one.expected_minor) for one in expected_recoveries(figures(world))] == [("USD", 0)]
