"""The script's answers against PostgreSQL's, one situation at a time."""

from datetime import UTC, datetime, timedelta

import pytest
import redis

from invoices.models import Invoice
from tests.tokens.history import NOW, Book, ask, both
from tokens.mirror import Answer, mirror_counters, mirror_customer, tokens_select
from tokens.mirror.selection import LOCKED_TEXT
from tokens.models import ImportedMark, Token
from tokens.services import retry_limit_set
from tokens.states import TokenStatus

DAY = timedelta(days=1)
TICK = timedelta(microseconds=1)


@pytest.fixture
def book(db: None, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> Book:
    monkeypatch.setattr("recovery_site.common.clock.now", lambda: NOW)
    monkeypatch.setattr("tokens.mirror.selection._limits", {})
    return Book()


def one_card(book: Book, *, network: str = "visa", kind: str = "card", **values) -> tuple[Token, Invoice]:
    customer = book.customer()
    return book.token(customer, network=network, kind=kind, **values), book.invoice(customer)


def test_a_token_with_room_may_be_charged_at_once(book: Book):
    token, invoice = one_card(book)
    book.tries(token, invoice, [NOW - DAY])
    answer = both(invoice)
    assert (answer.answer, [(one.pk, one.allowed_at) for one in answer.tokens]) == (Answer.RANKED, [(token.pk, NOW)])


@pytest.mark.parametrize("network", ["visa", "mastercard", "amex", "elo", "martian"])
@pytest.mark.parametrize("tries", [1, 10, 15, 35, 65])
def test_limits_release_at_the_same_microsecond(book: Book, network: str, tries: int):
    token, invoice = one_card(book, network=network)
    book.tries(token, invoice, [NOW - number * timedelta(minutes=7, microseconds=13) for number in range(tries)])
    for ahead in (timedelta(), DAY, 30 * DAY - TICK, 30 * DAY):
        released = both(invoice, NOW + ahead).tokens[0].allowed_at
        assert both(invoice, released).tokens[0].allowed_at == released
        if released > NOW + ahead:
            assert both(invoice, released - TICK).tokens[0].allowed_at == released
    both(invoice, amount=1)
    both(invoice, currency="EUR")
    assert both(invoice, NOW + 62 * DAY).tokens[0].allowed_at == NOW + 62 * DAY


@pytest.mark.parametrize(
    "last",
    [
        datetime(2026, 12, 31, 23, 59, 59, 999999, UTC),
        datetime(2027, 1, 1, tzinfo=UTC),
        datetime(2028, 2, 29, 12, tzinfo=UTC),
        datetime(2027, 2, 28, 23, tzinfo=UTC),
        datetime(2100, 2, 28, 1, tzinfo=UTC),
        datetime(2000, 11, 30, tzinfo=UTC),
    ],
)
def test_a_calendar_month_ends_where_the_calendar_says(book: Book, monkeypatch: pytest.MonkeyPatch, last: datetime):
    monkeypatch.setattr("recovery_site.common.clock.now", lambda: last)
    token, invoice = one_card(book, network="elo", expiry=None)
    book.tries(token, invoice, [last - number * TICK for number in range(15)])
    answer = both(invoice, last)
    first_of_next = datetime(last.year + last.month // 12, last.month % 12 + 1, 1, tzinfo=UTC)
    expected = first_of_next if (last - 14 * TICK).month == last.month else last
    assert [one.allowed_at for one in answer.tokens] == [expected]


@pytest.mark.parametrize("network", ["ach", "sepa", "bacs"])
@pytest.mark.parametrize("tries", [0, 2, 3, 4])
def test_bank_debits_are_counted_per_invoice(book: Book, network: str, tries: int):
    token, invoice = one_card(book, network=network, kind=network)
    other = book.invoice(invoice.customer)
    book.tries(token, invoice, [NOW - number * DAY for number in range(tries)])
    book.tries(token, other, [NOW - number * DAY for number in range(5)])
    for ahead in (timedelta(), 170 * DAY, 180 * DAY):
        both(invoice, NOW + ahead)
        both(other, NOW + ahead)


def test_a_try_by_card_counts_for_the_invoice_only_where_its_network_is_unknown(book: Book):
    token, invoice = one_card(book, network="ach", kind="ach")
    card = book.token(invoice.customer)
    nameless = book.token(invoice.customer, network="")
    book.tries(token, invoice, [NOW - DAY])
    book.tries(card, invoice, [NOW - DAY] * 5)
    assert token.pk in [one.pk for one in both(invoice).tokens if one.allowed_at == NOW]
    book.tries(nameless, invoice, [NOW - 2 * DAY] * 2)
    waits = {one.pk: one.allowed_at for one in both(invoice).tokens}
    assert waits[token.pk] == NOW - 2 * DAY + 180 * DAY


def test_an_invoice_beyond_the_newest_fifty_is_left_to_postgresql(book: Book):
    token, invoice = one_card(book, network="sepa", kind="sepa")
    book.tries(token, invoice, [NOW - DAY] * 3)
    for _ in range(50):
        newest = book.invoice(invoice.customer)
    assert mirror_customer(invoice.customer_id)
    before = mirror_counters()["short"]
    answer = ask(tokens_select, invoice)
    assert (answer.warm, mirror_counters()["short"]) == (False, before + 1)
    assert [one.allowed_at for one in answer.tokens] == [NOW + 179 * DAY]
    assert both(newest).tokens[0].allowed_at == NOW


@pytest.mark.parametrize("limit", [15, 20])
def test_the_chosen_visa_limit_binds(book: Book, settings, limit: int):
    settings.VISA_RETRY_LIMIT = limit
    token, invoice = one_card(book)
    book.tries(token, invoice, [NOW - number * DAY for number in range(1, limit)])
    assert both(invoice).tokens[0].allowed_at == NOW
    book.tries(token, invoice, [NOW - timedelta(hours=1)])
    assert both(invoice).tokens[0].allowed_at == NOW - (limit - 1) * DAY + 30 * DAY


def test_a_rule_that_changes_on_a_date_binds_from_that_date(book: Book, settings, monkeypatch: pytest.MonkeyPatch):
    change = datetime(2025, 5, 19, tzinfo=UTC)
    settings.VISA_RETRY_LIMIT = 20
    monkeypatch.setattr("recovery_site.common.clock.now", lambda: change - DAY)
    token, invoice = one_card(book)
    book.tries(token, invoice, [change - 2 * DAY] * 16)
    assert both(invoice, change - TICK).tokens[0].allowed_at == change
    assert both(invoice, change).tokens[0].allowed_at == change


def test_a_merchants_own_limit_binds_at_once(book: Book, monkeypatch: pytest.MonkeyPatch):
    token, invoice = one_card(book)
    book.tries(token, invoice, [NOW - timedelta(hours=3), NOW - timedelta(hours=2)])
    limit = {"merchant": book.merchant, "name": "max_retries_per_day", "actor": "test", "now": NOW}
    retry_limit_set(network="*", limit=2, **limit)
    assert both(invoice).tokens[0].allowed_at == NOW + timedelta(hours=21)
    retry_limit_set(network="*", limit=None, **limit)
    monkeypatch.setattr("tokens.mirror.selection._limits", {})
    assert both(invoice).tokens[0].allowed_at == NOW


def test_what_counts(book: Book):
    token, invoice = one_card(book, network="amex")
    book.tries(token, invoice, [NOW - timedelta(hours=1)], status="SUCCEEDED")
    book.tries(token, invoice, [NOW - timedelta(hours=1)], status="ERRORED", counts=False)
    assert both(invoice).tokens[0].allowed_at == NOW
    paid = book.tries(token, invoice, [NOW - timedelta(hours=2)], status="SUCCEEDED", returned_at=NOW)
    assert both(invoice).tokens[0].allowed_at == paid[0].attempted_at + DAY
    for status in ("SENDING", "UNKNOWN", "AWAITING"):
        token, invoice = one_card(book, network="amex")
        book.tries(token, invoice, [NOW - timedelta(hours=3)], status=status)
        assert both(invoice).tokens[0].allowed_at == NOW + timedelta(hours=21)


def test_imported_history_counts_against_every_amount(book: Book):
    token, invoice = one_card(book)
    ImportedMark.objects.create(
        merchant=book.merchant, card=token.card, token=token, at=NOW - 5 * DAY, count=14, source="csv"
    )
    assert both(invoice).tokens[0].allowed_at == NOW
    book.tries(token, invoice, [NOW - DAY])
    assert both(invoice).tokens[0].allowed_at == NOW + 25 * DAY
    assert both(invoice, amount=77).tokens[0].allowed_at == NOW


def test_a_try_of_many_amounts_is_sorted_into_its_own(book: Book):
    token, invoice = one_card(book, network="mastercard")
    for amount in (100, 200, 300):
        book.tries(token, invoice, [NOW - number * timedelta(hours=2) for number in range(4)], amount_minor=amount)
    assert both(invoice).tokens[0].allowed_at == NOW - timedelta(hours=6) + DAY
    visa, owed = one_card(book)
    for amount, times in ((100, 15), (200, 14), (owed.amount_minor, 15)):
        book.tries(visa, owed, [NOW - number * DAY for number in range(times)], amount_minor=amount)
    assert both(owed, amount=200).tokens[0].allowed_at == NOW
    assert both(owed, amount=100).tokens[0].allowed_at == NOW + 16 * DAY
    assert both(owed).tokens[0].allowed_at == NOW + 16 * DAY


def test_one_card_under_two_tokens_or_customers_has_one_budget(book: Book):
    token, invoice = one_card(book, network="amex", fingerprint="shared")
    second = book.token(invoice.customer, network="amex", fingerprint="shared")
    stranger = book.customer()
    third = book.token(stranger, network="amex", fingerprint="shared")
    theirs = book.invoice(stranger)
    book.tries(third, theirs, [NOW - timedelta(hours=5)])
    assert {(one.pk, one.allowed_at) for one in both(invoice).tokens} == {
        (token.pk, NOW + timedelta(hours=19)),
        (second.pk, NOW + timedelta(hours=19)),
    }


def test_a_replacement_card_shares_the_old_ones_budget_across_networks(book: Book):
    old, invoice = one_card(book, network="visa")
    new = book.token(invoice.customer, network="mastercard")
    book.card(new, budget_group=old.card.budget_group)
    book.tries(old, invoice, [NOW - timedelta(hours=number) for number in range(10)])
    assert {one.pk: one.allowed_at for one in both(invoice).tokens} == {
        old.pk: NOW,
        new.pk: NOW + timedelta(hours=15),
    }


def test_order_earliest_then_success_then_default_then_expiry_then_age(book: Book):
    customer = book.customer()
    invoice = book.invoice(customer)
    oldest = book.token(customer, expiry=(1, 2027))
    lasting = book.token(customer, expiry=(2, 2027))
    unknown = book.token(customer, expiry=None)
    default = book.token(customer, expiry=(1, 2027), is_default=True)
    proven = book.token(customer, expiry=(1, 2027), last_success_at=NOW - 9 * DAY)
    fresher = book.token(customer, expiry=None, last_success_at=NOW - 8 * DAY)
    blocked = book.token(customer, network="amex", last_success_at=NOW - TICK)
    book.tries(blocked, invoice, [NOW - timedelta(hours=1)])
    order = [fresher, proven, default, lasting, oldest, unknown, blocked]
    assert [one.pk for one in both(invoice).tokens] == [token.pk for token in order]


def test_dead_tokens_are_never_ranked(book: Book):
    customer = book.customer()
    invoice = book.invoice(customer)
    book.token(customer, status=TokenStatus.DECLINED)
    book.token(customer, status=TokenStatus.REMOVED)
    book.card(book.token(customer), stopped_at=NOW, stop_code="03")
    book.token(customer, expiry=(10, 2026))
    assert both(invoice).answer is Answer.DEAD
    live = book.token(customer)
    assert [one.pk for one in both(invoice).tokens] == [live.pk]


@pytest.mark.parametrize(
    ("expiry", "alive"),
    [((11, 2026), True), ((10, 2026), False), ((11, 26), True), ((10, 26), False), (None, True), ((99, 2020), True)],
)
def test_a_card_is_good_to_the_end_of_its_month(book: Book, expiry: tuple[int, int] | None, alive: bool):
    token, invoice = one_card(book, expiry=expiry)
    assert [one.pk for one in both(invoice).tokens] == ([token.pk] if alive else [])
    if alive and expiry in ((11, 2026), (11, 26)):
        assert both(invoice, datetime(2026, 12, 1, tzinfo=UTC) - TICK).answer is Answer.RANKED
        assert both(invoice, datetime(2026, 12, 1, tzinfo=UTC)).answer is Answer.DEAD


def test_a_card_that_expires_before_its_limit_is_over_is_no_choice(book: Book):
    token, invoice = one_card(book, network="amex", expiry=(11, 2026))
    book.tries(token, invoice, [datetime(2026, 11, 30, 1, tzinfo=UTC)])
    assert both(invoice, datetime(2026, 11, 30, 2, tzinfo=UTC)).answer is Answer.DEAD


def test_a_network_that_asks_to_wait_is_obeyed_and_its_rules_after_that(book: Book):
    token, invoice = one_card(book, network="mastercard")
    book.card(token, wait_until=NOW + timedelta(hours=72))
    assert both(invoice).tokens[0].allowed_at == NOW + timedelta(hours=72)
    book.tries(token, invoice, [NOW + timedelta(hours=60)] * 10)
    assert both(invoice).tokens[0].allowed_at == NOW + timedelta(hours=84)


def test_no_token_is_not_the_same_as_no_live_token(book: Book):
    invoice = book.invoice(book.customer())
    answer = both(invoice)
    assert (answer.answer, answer.tokens, answer.text) == (Answer.RANKED, (), "")


def test_a_held_slot_locks_everybody_but_its_owner(book: Book, redis_client: redis.Redis):
    token, invoice = one_card(book)
    assert mirror_customer(invoice.customer_id)
    redis_client.set(book.keys(token.customer).status, "txn_other:7")
    locked = ask(tokens_select, invoice)
    assert (locked.answer, locked.locked_by, locked.text) == (Answer.LOCKED, "txn_other", LOCKED_TEXT)
    assert locked.text == "Customer is already locked by another process."
    assert ask(tokens_select, invoice, owner="txn_other").answer is Answer.RANKED


def test_ten_thousand_tries_are_answered(book: Book, redis_client: redis.Redis):
    token, invoice = one_card(book)
    book.tries(token, invoice, [NOW - number * timedelta(minutes=4) for number in range(10_000)])
    assert both(invoice).tokens[0].allowed_at == NOW - 14 * timedelta(minutes=4) + 30 * DAY
    assert redis_client.memory_usage(book.keys(token.customer).budget) < 1_500


def test_a_history_that_does_not_fit_is_left_to_postgresql(book: Book):
    token, invoice = one_card(book)
    charge = book.tries(token, invoice, [NOW - DAY])[0]
    for amount in range(1, 400):
        book.tries(token, invoice, [NOW - DAY], amount_minor=amount)
    assert mirror_customer(invoice.customer_id)
    answer = ask(tokens_select, invoice)
    assert (answer.warm, [one.allowed_at for one in answer.tokens]) == (False, [NOW])
    assert charge.amount_minor == invoice.amount_minor


@pytest.mark.parametrize("at", [NOW + 400 * DAY, datetime(2200, 1, 1, tzinfo=UTC), datetime(9999, 12, 30, tzinfo=UTC)])
def test_a_try_from_the_future_blocks_in_redis_as_it_does_in_postgresql(book: Book, at: datetime):
    token, invoice = one_card(book, network="amex", expiry=None)
    book.tries(token, invoice, [at])
    assert mirror_customer(invoice.customer_id)
    warm = ask(tokens_select, invoice)
    assert warm.warm == (at.year < 2255)
    assert warm.tokens[0].allowed_at >= min(at + DAY, datetime(9999, 12, 31, tzinfo=UTC))


def test_questions_about_the_past_are_left_to_postgresql(book: Book):
    token, invoice = one_card(book, network="amex")
    book.tries(token, invoice, [NOW - 40 * DAY, NOW - timedelta(hours=1)])
    assert mirror_customer(invoice.customer_id)
    past = ask(tokens_select, invoice, NOW - 10 * DAY)
    assert (past.warm, past.tokens[0].allowed_at) == (False, NOW + timedelta(hours=23))
    assert both(invoice, NOW - timedelta(hours=2)).tokens[0].allowed_at == NOW + timedelta(hours=23)
