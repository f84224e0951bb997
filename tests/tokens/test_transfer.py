"""Token history in and out: bad lines stay alone, good ones count once, and nothing gets looser."""

import csv
import io
import json
from datetime import UTC, datetime, timedelta

import pytest

from invoices.models import Customer
from recovery_site.common.errors import InvalidInput
from tests.tokens.history import NOW, Book, ask
from tokens.mirror import selection_read
from tokens.models import Card, ImportedMark, Token
from tokens.states import TokenStatus
from tokens.transfer import COLUMNS, ImportReport, history_export, history_import

DAY = timedelta(days=1)


@pytest.fixture
def book(db: None) -> Book:
    return Book()


def read(book: Book, *rows: dict[str, str] | str, now: datetime = NOW, **options) -> ImportReport:
    """Import rows given as cells by column, or a whole file as text."""
    if len(rows) == 1 and isinstance(rows[0], str):
        text = rows[0]
    else:
        names = list(dict.fromkeys(name for row in rows for name in row))
        stream = io.StringIO()
        writer = csv.DictWriter(stream, names)
        writer.writeheader()
        writer.writerows(rows)
        text = stream.getvalue()
    options = {"source": "csv", **options}
    return history_import(connection=book.connection, lines=text.splitlines(keepends=True), now=now, **options)


def row(**cells: str) -> dict[str, str]:
    return {"customer_id": "cus_ann", "token": "tok_ann", "network": "visa", **cells}


def history(**days: int) -> str:
    return json.dumps({name.replace("_", "-")[1:]: count for name, count in days.items()})


def marks(token: str = "tok_ann") -> list[tuple[datetime, int]]:
    found = ImportedMark.objects.filter(token__provider_token=token).order_by("at")
    return list(found.values_list("at", "count"))


def test_an_unknown_token_is_created_with_everything_the_line_says(book: Book):
    report = read(
        book,
        row(
            fingerprint="fp_1",
            last4="4242",
            exp_date="02/28",
            funding="credit",
            country="de",
            is_default="true",
            added_by_payment_id="pi_7",
            retry_history=json.dumps({"2026-11-01": 2, "2026-11-03T09:30:00.000001+02:00": 1}),
        ),
    )
    assert report.as_dict() == {
        "lines": 1,
        "imported": 1,
        "tokens_created": 1,
        "tries": 3,
        "known": 0,
        "failed": 0,
        "problems": [],
        "ignored_columns": [],
    }
    token = Token.objects.select_related("card", "customer").get(provider_token="tok_ann")
    assert token.customer.connector_customer_id == "cus_ann"
    assert (token.status, token.is_default, token.added_by_payment_id) == (TokenStatus.LIVE, True, "pi_7")
    card = token.card
    assert (card.fingerprint, card.network, card.last4) == ("fp_1", "visa", "4242")
    assert (card.exp_month, card.exp_year, card.funding, card.country) == (2, 2028, "credit", "DE")
    assert marks() == [
        (datetime(2026, 11, 1, 23, 59, 59, 999999, UTC), 2),
        (datetime(2026, 11, 3, 7, 30, 0, 1, UTC), 1),
    ]


def test_imported_tries_count_in_postgresql(book: Book):
    read(book, row(network="amex", retry_history=json.dumps({"2026-11-20T06:00:00Z": 1})))
    customer = Customer.objects.get(connector_customer_id="cus_ann")
    answer = ask(selection_read, book.invoice(customer))
    assert [one.allowed_at for one in answer.tokens] == [NOW + timedelta(hours=18)]


def test_reading_the_file_again_changes_nothing(book: Book):
    line = row(retry_history=json.dumps({"2026-11-01": 2, "2026-11-03T09:30:00Z": 1}))
    read(book, line)
    before = list(ImportedMark.objects.values())
    again = read(book, line, now=NOW + 3 * DAY)
    assert (again.imported, again.tokens_created, again.tries, again.known) == (1, 0, 0, 3)
    assert list(ImportedMark.objects.values()) == before
    assert (Token.objects.count(), Card.objects.count(), Customer.objects.count()) == (1, 1, 1)


def test_overlapping_files_keep_the_higher_count(book: Book):
    read(book, row(retry_history=history(_2026_11_01=2)))
    assert read(book, row(retry_history=history(_2026_11_01=5, _2026_11_02=1))).tries == 4
    assert read(book, row(retry_history=history(_2026_11_01=1))).tries == 0
    assert [count for _, count in marks()] == [5, 1]


def test_what_the_ledger_counts_already_is_not_counted_twice(book: Book):
    customer = book.customer("cus_ann")
    token = book.token(customer, network="amex")
    at = NOW - timedelta(hours=5)
    book.tries(token, book.invoice(customer), [at, at - DAY])
    report = read(book, row(token=token.provider_token, retry_history=json.dumps({at.isoformat(): 2, "2026-11-19": 1})))
    assert (report.tries, report.known) == (2, 1)
    assert [count for _, count in marks(token.provider_token)] == [1, 1]


def test_an_export_reads_back_as_nothing_new(book: Book):
    customer = book.customer('cus_ünï,"quoted"')
    token = book.token(customer, is_default=True)
    invoice = book.invoice(customer)
    book.tries(token, invoice, [NOW - DAY, NOW - DAY, NOW - 3 * DAY])
    book.tries(token, invoice, [NOW - 2 * DAY], status="SUCCEEDED")
    book.tries(token, invoice, [NOW - 4 * DAY], counts=False)
    book.tries(token, invoice, [NOW - 200 * DAY])
    removed = book.token(customer, status=TokenStatus.REMOVED, expiry=None)
    declined = book.token(customer, status=TokenStatus.DECLINED, decline_code="stolen_card")
    header, *rows = history_export(connection=book.connection, since=NOW - 180 * DAY)
    assert tuple(header) == COLUMNS
    cells = [dict(zip(header, cells, strict=True)) for cells in rows]
    assert [one["token"] for one in cells] == [one.provider_token for one in (token, removed, declined)]
    assert json.loads(cells[0]["retry_history"]) == {
        (NOW - 3 * DAY).isoformat(): 1,
        (NOW - DAY).isoformat(): 2,
    }
    assert (cells[0]["exp_date"], cells[0]["is_default"], cells[0]["is_active"]) == ("12/2030", "true", "true")
    assert (cells[1]["exp_date"], cells[1]["is_active"]) == ("", "false")
    assert (cells[2]["hard_decline"], cells[2]["error_code"]) == ("true", "stolen_card")

    again = read(book, *cells)
    assert (again.imported, again.tokens_created, again.tries, again.known, again.failed) == (3, 0, 0, 3, 0)

    # Elsewhere the same file brings everything along.
    elsewhere = Book()
    moved = read(elsewhere, *cells)
    assert (moved.tokens_created, moved.tries) == (3, 3)
    states = Token.objects.filter(connection=elsewhere.connection).order_by("pk").values_list("status", "decline_code")
    assert list(states) == [("live", ""), ("removed", ""), ("declined", "stolen_card")]


def test_a_spreadsheet_runs_nothing_and_the_way_back_is_exact(book: Book):
    names = ["=1+1", "@x", "+1", "-1", "'=1", "plain", "'plain"]
    for name in names:
        book.token(book.customer(name))
    header, *rows = history_export(connection=book.connection, since=NOW)
    told = [cells[0] for cells in rows]
    assert told == ["'=1+1", "'@x", "'+1", "'-1", "''=1", "plain", "''plain"]
    elsewhere = Book()
    read(elsewhere, *(dict(zip(header, cells, strict=True)) for cells in rows))
    found = Customer.objects.filter(connection=elsewhere.connection).order_by("pk")
    assert list(found.values_list("connector_customer_id", flat=True)) == names


def test_bad_lines_stay_alone(book: Book):
    long = "x" * 201
    bad = [
        (row(exp_date="13/28"), "exp_date is '13/28'; write MM/YY or MM/YYYY."),
        (row(exp_date="2028-02"), "exp_date is '2028-02'; write MM/YY or MM/YYYY."),
        (row(retry_history="{"), "retry_history must be a JSON object"),
        (row(retry_history="[1]"), "retry_history must be a JSON object"),
        (row(retry_history='{"soon": 1}'), "retry_history names 'soon'; write 2026-11-21"),
        (row(retry_history='{"2026-02-30": 1}'), "retry_history names '2026-02-30'"),
        (row(retry_history='{"2026-11-01": "2"}'), "is '2'; give a whole number from 0 to 1000."),
        (row(retry_history='{"2026-11-01": -1}'), "is -1; give a whole number"),
        (row(retry_history='{"2026-11-01": 1.5}'), "is 1.5; give a whole number"),
        (row(retry_history='{"2026-11-01": true}'), "is True; give a whole number"),
        (row(retry_history='{"2026-11-01": 1001}'), "is 1001; give a whole number"),
        (row(retry_history='{"2026-11-25": 1}'), "lies in the future"),
        (row(retry_history='{"0001-01-01": 1}'), "no time of a charge"),
        (row(is_active="maybe"), "is_active is 'maybe'; write true or false."),
        (row(customer_id=""), "customer_id must have 1 to 200 characters."),
        (row(token=long), "token must have 1 to 200 characters."),
    ]
    good = {"customer_id": "cus_bob", "token": "tok_bob"}
    report = read(book, good, *(line for line, _ in bad), {**good, "token": "tok_bob_2"})
    assert (report.lines, report.imported, report.failed) == (len(bad) + 2, 2, len(bad))
    assert [problem.line for problem in report.problems] == list(range(3, len(bad) + 3))
    for problem, (_, message) in zip(report.problems, bad, strict=True):
        assert message in problem.message
    assert sorted(Token.objects.values_list("provider_token", flat=True)) == ["tok_bob", "tok_bob_2"]
    assert not Customer.objects.filter(connector_customer_id="cus_ann").exists()


def test_lines_that_are_no_csv_stay_alone(book: Book):
    text = 'customer_id,token\ncus_1,tok_1\ncus_2\ncus_3,tok_3,more\n"cus"x,tok_4\n\ncus_5,tok_5\n'
    report = read(book, text)
    assert (report.lines, report.imported, report.failed) == (5, 2, 3)
    assert [problem.line for problem in report.problems] == [3, 4, 5]
    assert report.problems[0].message == "The line has 1 cells, the header 2."
    assert "no CSV" in report.problems[2].message
    assert sorted(Token.objects.values_list("provider_token", flat=True)) == ["tok_1", "tok_5"]


@pytest.mark.parametrize("text", ["", "\n", "token\ntok_1\n", "customer_id,token,token\n", "a,b,c\n1,2,3\n"])
def test_a_file_that_is_no_token_history_is_refused(book: Book, text: str):
    with pytest.raises(InvalidInput, match="The first line must name the column"):
        read(book, text)


def test_another_customers_token_is_refused(book: Book):
    token = book.token(book.customer("cus_bob"))
    report = read(book, row(token=token.provider_token))
    assert [problem.message for problem in report.problems] == [
        "The token belongs to another customer of this connection."
    ]


def test_the_ledger_knows_better_about_tokens_it_knows(book: Book):
    token = book.token(book.customer("cus_ann"))
    read(book, row(token=token.provider_token, hard_decline="true", is_active="false", exp_date="01/26"))
    token.refresh_from_db()
    assert token.status == TokenStatus.LIVE
    assert token.card.exp_year == 2030


@pytest.mark.parametrize(
    ("cells", "status"),
    [
        ({"hard_decline": "yes", "error_code": "lost_card"}, ("declined", "lost_card")),
        ({"hard_decline": "1"}, ("declined", "imported")),
        ({"is_active": "No"}, ("removed", "")),
        ({}, ("live", "")),
    ],
)
def test_a_new_token_starts_as_the_line_says(book: Book, cells: dict[str, str], status: tuple[str, str]):
    read(book, row(**cells))
    token = Token.objects.get()
    assert (token.status, token.decline_code) == status


def test_a_file_made_for_hyperswitch_is_understood(book: Book):
    text = (
        "bin_number,customer_id_resp,connector_payment_id,token,exp_date,card_network,payment_method_sub_type,"
        "clean_bank_name,country_name,daily_retry_history,is_active,account_update_history\n"
        '411111,cus_1,pi_1,tok_1,03/2027,Visa,credit,Bank,US,"{""2026-11-02T10:00:00Z"": 4}",true,\n'
    )
    report = read(book, text, hourly=True)
    assert (report.imported, report.tries) == (1, 4)
    assert report.ignored_columns == ["bin_number", "clean_bank_name", "account_update_history"]
    token = Token.objects.select_related("card").get()
    assert (token.card.network, token.card.exp_month, token.card.exp_year) == ("visa", 3, 2027)
    assert token.added_by_payment_id == "pi_1"
    assert marks("tok_1") == [(datetime(2026, 11, 2, 10, 59, 59, 999999, UTC), 4)]


def test_mandates_are_counted_as_what_they_are(book: Book):
    read(book, row(network="sepa_debit"))
    card = Card.objects.get()
    assert (card.kind, card.network) == ("sepa", "sepa")
