"""`manage.py tokens ...` as an operator types it."""

import csv
import io
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
from django.core.management import CommandError, call_command

from invoices.models import Event
from retries.models import RetryJob
from tests.console.world import World
from tests.tokens.history import NOW, Book
from tokens.models import ImportedMark, RetryLimit, Token

DAY = timedelta(days=1)
AT = NOW.isoformat()


def run(*arguments: str, text: bool = False) -> Any:
    out = io.StringIO()
    call_command("tokens", *arguments, *([] if text else ["--json"]), stdout=out)
    return out.getvalue() if text else json.loads(out.getvalue())


@pytest.fixture
def book(db: None) -> Book:
    return Book()


# --- budget ---------------------------------------------------------------------------------------------------------


def test_budget_says_which_rule_applies_what_is_left_and_why(book: Book):
    customer = book.customer()
    token = book.token(customer, network="mastercard")
    invoice = book.invoice(customer)
    book.tries(token, invoice, [NOW - timedelta(hours=number) for number in range(1, 11)])
    found = run("budget", token.public_id, "--at", AT)
    released = (NOW - timedelta(hours=10) + DAY).isoformat()
    assert (found["card"], found["network"], found["label"]) == (
        token.card.public_id,
        "mastercard",
        "Mastercard •••• 4242",
    )
    assert (found["remaining"], found["allowed_at"]) == (0, released)
    assert found["why"] == "Used up: mastercard max_retries_per_day: 10 per 24 hours and card."
    daily, monthly = found["rules"]
    assert (daily["name"], daily["used"], daily["limit"], daily["remaining"]) == ("max_retries_per_day", 10, 10, 0)
    assert (daily["releases_at"], daily["allowed_at"]) == (released, released)
    assert "Mastercard Transaction Processing Excellence" in daily["source"]
    assert (monthly["name"], monthly["used"], monthly["remaining"]) == ("max_retry_count_for_thirty_day", 10, 25)
    assert monthly["allowed_at"] == AT
    assert found["tokens"] == [
        {
            "token": token.public_id,
            "customer": customer.public_id,
            "status": "live",
            "default": False,
            "obstacle": "",
        }
    ]


def test_budget_lists_the_amounts_of_a_card_whose_network_counts_by_amount(book: Book):
    customer = book.customer()
    token = book.token(customer)
    book.tries(token, book.invoice(customer), [NOW - DAY] * 14)
    book.tries(token, book.invoice(customer, amount=990, currency="EUR"), [NOW - 2 * DAY] * 3)
    uses = {rule["subject"]: rule["remaining"] for rule in run("budget", token.card.public_id, "--at", AT)["rules"]}
    assert uses == {"$49.90": 1, "€9.90": 12}
    (one,) = run("budget", token.card.public_id, "--at", AT, "--amount", "990", "--currency", "eur")["rules"]
    assert (one["subject"], one["used"]) == ("€9.90", 3)
    (unseen,) = run("budget", book.token(customer).public_id, "--at", AT)["rules"]
    assert (unseen["subject"], unseen["remaining"]) == ("any amount", 15)


def test_budget_of_a_mandate_lists_its_open_invoices(book: Book):
    customer = book.customer()
    token = book.token(customer, network="sepa", kind="sepa")
    invoice = book.invoice(customer)
    book.tries(token, invoice, [NOW - DAY] * 3)
    found = run("budget", token.provider_token, "--at", AT)
    (rule,) = found["rules"]
    assert (rule["subject"], rule["used"], rule["limit"]) == (invoice.public_id, 3, 3)
    assert found["allowed_at"] == (NOW + 179 * DAY).isoformat()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"stopped_at": NOW, "stop_code": "03"}, "The network stopped the card for good (03)."),
        ({"exp_month": 10, "exp_year": 2026}, "The card has expired."),
        ({"wait_until": NOW + DAY}, "The network asked to wait."),
        ({}, "It may be charged now."),
    ],
)
def test_budget_names_what_stands_in_the_way(book: Book, change: dict[str, Any], why: str):
    token = book.token(book.customer())
    book.card(token, **change)
    assert run("budget", token.card.fingerprint, "--at", AT)["why"] == why


def test_budget_obeys_the_merchants_own_limit_and_names_the_cards_counted_together(book: Book):
    first, second = (book.token(book.customer()) for _ in range(2))
    book.card(second, budget_group=first.card.budget_group)
    book.tries(second, book.invoice(second.customer), [NOW - DAY] * 5)
    run("limit", "--merchant", book.merchant.name, "visa", "max_retry_count_for_thirty_day", "5")
    found = run("budget", first.public_id, "--at", AT)
    assert (found["remaining"], found["shares_budget_with"]) == (0, [second.card.public_id])


def test_budget_in_words(book: Book):
    token = book.token(book.customer(), network="amex")
    book.tries(token, book.invoice(token.customer), [NOW - timedelta(hours=1)])
    told = run("budget", token.public_id, "--at", AT, text=True)
    assert "American Express •••• 4242" in told
    assert "Used up: amex max_retries_per_day: 1 per 24 hours and card." in told
    assert "max_retries_per_day: 1 of 1 per 24 hours, next released 2026-11-21T11:00:00+00:00" in told


def test_a_name_that_several_cards_have_is_asked_back(book: Book):
    cards = [one.token(one.customer(), fingerprint="same").card for one in (book, Book())]
    with pytest.raises(CommandError, match="names several cards") as error:
        run("budget", "same")
    assert all(card.public_id in str(error.value) for card in cards)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["budget", "nothing"], "No card or token is known as 'nothing'"),
        (["budget", "x\x00"], "No card or token is known"),
        (["budget", "x" * 500], "No card or token is known"),
        (["budget", "x", "--amount", "5"], "Give --amount and --currency together"),
        (["budget", "x", "--amount", "5", "--currency", "dollars"], "no|not an ISO 4217"),
        (["export", "--connection", "con_1"], "There is no connection 'con_1'"),
        (["import", "nowhere.csv", "--connection", "con_1"], "There is no connection 'con_1'"),
        (["unlock", "cus_1", "--reason", "x"], "There is no customer 'cus_1'"),
        (["rebuild", "--merchant", "Nobody"], "There is no merchant 'Nobody'"),
    ],
)
def test_mistakes_end_in_one_clear_line(book: Book, arguments: list[str], message: str):
    with pytest.raises(CommandError, match=message):
        call_command("tokens", *arguments)


# --- when -----------------------------------------------------------------------------------------------------------


def test_when_ranks_the_tokens_and_says_who_answered(book: Book, redis_client: redis.Redis):
    customer = book.customer()
    blocked, free = book.token(customer, network="amex"), book.token(customer)
    book.tries(blocked, book.invoice(customer), [NOW - timedelta(hours=1)])
    ask = ("when", customer.public_id, "--amount", "990", "--currency", "usd", "--at", AT)
    for warm in (False, True):
        assert run(*ask) == {
            "customer": customer.public_id,
            "answer": "ranked",
            "text": "",
            "locked_by": "",
            "tokens": [
                {"token": free.public_id, "allowed_at": AT},
                {"token": blocked.public_id, "allowed_at": (NOW + timedelta(hours=23)).isoformat()},
            ],
            "from_redis": warm,
        }
    redis_client.set(book.keys(customer).status, "txn_other:4")
    locked = run(*ask)
    assert (locked["answer"], locked["locked_by"]) == ("locked", "txn_other")
    assert locked["text"] == "Customer is already locked by another process."


# --- limits ---------------------------------------------------------------------------------------------------------


def test_limits_can_only_be_stricter(book: Book):
    name = book.merchant.name
    set_to = lambda number: run("limit", "--merchant", name, "mastercard", "max_retries_per_day", number)  # noqa: E731
    assert set_to("4") == {"limits": [{"network": "mastercard", "rule": "max_retries_per_day", "limit": 4}]}
    assert set_to("3")["limits"][0]["limit"] == 3
    assert RetryLimit.objects.get().changed_by == "command:tokens"
    with pytest.raises(CommandError, match="looser than the network's 10; give 10 or less"):
        set_to("11")
    with pytest.raises(CommandError, match="has no rule 'max_tries'"):
        run("limit", "--merchant", name, "visa", "max_tries", "1")
    with pytest.raises(CommandError, match="Write: tokens limit"):
        set_to("few")
    assert run("limit", "--merchant", name)["limits"][0]["limit"] == 3
    assert set_to("none") == {"limits": []}


def test_link_counts_two_cards_together(book: Book):
    first, second = (book.token(book.customer(), network="amex") for _ in range(2))
    book.tries(second, book.invoice(second.customer), [NOW - timedelta(hours=1)])
    told = run("link", first.public_id, second.card.fingerprint, "--reason", "one account", "--at", AT)
    assert (told["card"], told["remaining"]) == (first.card.public_id, 0)
    assert told["shares_budget_with"] == [second.card.public_id]


# --- history --------------------------------------------------------------------------------------------------------


def test_export_and_import_by_file(book: Book, tmp_path: Path):
    token = book.token(book.customer("cus_ann"))
    book.tries(token, book.invoice(token.customer), [NOW - DAY])
    file = tmp_path / "history.csv"
    done = run("export", "--connection", book.connection.public_id, "--output", str(file), "--at", AT)
    assert done == {"tokens": 1, "file": str(file)}
    other = Book()
    report = run("import", str(file), "--connection", other.connection.public_id, "--at", AT)
    assert (report["imported"], report["tokens_created"], report["tries"], report["problems"]) == (1, 1, 1, [])
    mark = ImportedMark.objects.get(token__connection=other.connection)
    assert (mark.at, mark.count, mark.source) == (NOW - DAY, 1, "csv")
    printed = run("export", "--connection", other.connection.public_id, "--at", AT, text=True)
    assert list(csv.reader(io.StringIO(printed))) == list(csv.reader(file.open(newline="")))
    with pytest.raises(CommandError, match="cannot share standard output"):
        run("export", "--connection", other.connection.public_id)


def test_import_reads_a_byte_order_mark_and_refuses_what_is_not_utf_8(book: Book, tmp_path: Path):
    file = tmp_path / "history.csv"
    file.write_bytes("\ufeffcustomer_id,token\r\ncus_é,tok_1\r\n".encode())
    report = run("import", str(file), "--connection", book.connection.public_id)
    assert report["imported"] == 1
    assert Token.objects.get().customer.connector_customer_id == "cus_é"
    file.write_bytes("customer_id,token\r\ncus_é,tok_2\r\n".encode("latin-1"))
    with pytest.raises(CommandError, match="is not UTF-8"):
        run("import", str(file), "--connection", book.connection.public_id)
    with pytest.raises(CommandError, match="cannot be read: No such file"):
        run("import", str(tmp_path / "none.csv"), "--connection", book.connection.public_id)


def test_rebuild_counts(book: Book, redis_client: redis.Redis):
    for _ in range(2):
        book.token(book.customer())
    assert run("rebuild", "--merchant", book.merchant.name) == {"customers": 2, "written": 2}
    assert redis_client.dbsize() == 4


# --- unlock ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def world(transactional_db: None, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> World:
    made = World()
    monkeypatch.setattr("recovery_site.common.clock.now", lambda: made.at)
    return made


def test_unlock_hands_the_slot_to_the_next_invoice(world: World):
    first, second = world.fail(amount=5_000), world.fail(amount=100)
    told = run("unlock", "cus_ann", "--reason", "stuck", "--at", world.at.isoformat())
    assert told["result"] == f"The slot went from invoice {first} to invoice {second}."
    assert {job.invoice_id: job.status for job in RetryJob.objects.all()} == {
        first.pk: "QUEUED",
        second.pk: "SCHEDULED",
    }
    event = Event.objects.get(kind="staff.unlock")
    assert (event.invoice_id, event.actor, event.data["reason"]) == (first.pk, "command:tokens", "stuck")
    assert event.data["job_status"] == "SCHEDULED"
    assert world.case(first).next_step == "queued"


def test_unlock_plans_anew_where_nobody_waits(world: World):
    invoice = world.fail()
    job = RetryJob.objects.get()
    RetryJob.objects.filter(pk=job.pk).update(status="RUNNING", lease_until=datetime(2026, 1, 1, tzinfo=UTC))
    told = run("unlock", invoice.customer.public_id, "--reason", "worker gone", "--at", world.at.isoformat())
    assert told["result"] == f"Nobody was waiting: invoice {invoice} was planned anew (retry booked)."
    job.refresh_from_db(fields=["claim_token", "lease_until"])
    assert (RetryJob.objects.get().status, job.claim_token, job.lease_until) == ("SCHEDULED", None, None)


def test_unlock_waits_for_a_charge_that_is_being_sent(world: World):
    invoice = world.fail()
    world.at = RetryJob.objects.get().due_at
    world.send()
    with pytest.raises(CommandError, match="A charge of this customer is being sent"):
        run("unlock", invoice.customer.public_id, "--reason", "x")
    assert not Event.objects.filter(kind="staff.unlock").exists()


def test_unlock_of_a_free_slot_repairs_redis(world: World, redis_client: redis.Redis):
    invoice = world.fail(code="stolen_card")
    book = Book.keys(world, invoice.customer)  # type: ignore[arg-type]
    redis_client.set(book.status, "txn_of_nobody:3")
    told = run("unlock", invoice.customer.public_id, "--reason", "x")
    assert told["result"].startswith("The slot is free")
    assert redis_client.get(book.status) is None


def test_unlock_asks_back_where_two_connections_know_the_customer(world: World):
    other = World(name="Other", at=world.at)
    for one in (world, other):
        one.fail()
    with pytest.raises(CommandError, match="is known at several connections"):
        run("unlock", "cus_ann", "--reason", "x")
    told = run("unlock", "cus_ann", "--reason", "x", "--connection", other.connection.public_id)
    assert told["result"].startswith("Nobody was waiting")
