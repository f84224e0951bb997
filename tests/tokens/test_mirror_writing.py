"""What stands in Redis, when it gets there, and who may replace it."""

import json
from datetime import timedelta

import pytest
import redis
from django.conf import settings as django_settings
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from invoices.models import Customer, Invoice, Transaction
from retries.models import RetryJob
from tests.console.world import World
from tests.tokens.history import NOW, Book, ask
from tokens.mirror import (
    Answer,
    MirrorUnavailable,
    client,
    mirror_after_commit,
    mirror_counters,
    mirror_customer,
    mirror_rebuild,
    mirrored_together,
    tokens_select,
)
from tokens.mirror.breaker import Breaker
from tokens.mirror.client import slot_extend, slot_release
from tokens.mirror.keys import CustomerKeys, customer_keys
from tokens.mirror.loading import CustomerImage, customer_images
from tokens.mirror.packing import pack_nothing
from tokens.models import Token
from tokens.states import TokenStatus

DAY = timedelta(days=1)


@pytest.fixture
def server(redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> redis.Redis:
    monkeypatch.setattr(client, "breaker", Breaker())
    return redis_client


@pytest.fixture
def book(db: None, server: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> Book:
    monkeypatch.setattr("recovery_site.common.clock.now", lambda: NOW)
    return Book()


@pytest.fixture
def world(transactional_db: None, server: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> World:
    """Commits, so that what happens after a commit happens."""
    made = World()
    monkeypatch.setattr("recovery_site.common.clock.now", lambda: made.at)
    return made


def keys_of(invoice: Invoice) -> CustomerKeys:
    return customer_keys(invoice.connection.public_id, invoice.customer.connector_customer_id)


def put(image: CustomerImage, owner: str = "") -> list:
    """Write an image as it was read, however long ago."""
    keys = image.keys
    pairs = [part for pair in image.statuses.items() for part in pair]
    return client.call(
        client.WRITE,
        [keys.status, keys.tokens, keys.budget],
        image.version,
        owner,
        60_000,
        60_000,
        image.budget,
        *pairs,
    )


# --- the three keys -------------------------------------------------------------------------------------------------


def test_a_failure_stands_in_redis_as_soon_as_it_is_committed(world: World, server: redis.Redis):
    invoice = world.fail(code="insufficient_funds", network="visa")
    keys, job = keys_of(invoice), RetryJob.objects.get(invoice=invoice)
    owner, fence = server.get(keys.status).decode().split(":")
    assert owner == Transaction.objects.get(invoice=invoice).public_id
    assert int(fence) >= 1
    kept = (job.due_at - world.at + django_settings.RETRY_LOCK_TIMEOUT).total_seconds()
    assert kept - 60 < server.ttl(keys.status) <= kept
    token = Token.objects.get(customer=invoice.customer)
    stored = server.hgetall(keys.tokens)
    assert stored.keys() == {token.public_id.encode()}
    status = json.loads(stored[token.public_id.encode()])
    assert status == {
        "token_id": token.public_id,
        "error_code": "insufficient_funds",
        "network": "visa",
        "added_by_payment_id": token.added_by_payment_id,
        "retry_history": {"2026-11-20": 1},
        "category": "INSUFFICIENT_FUNDS",
        "hard_decline": False,
        "version": status["version"],
    }
    assert token.added_by_payment_id.startswith("pi_")
    assert server.type(keys.budget) == b"string"
    assert 44 * 86_400 < server.ttl(keys.tokens) <= 45 * 86_400
    assert 44 * 86_400 < server.ttl(keys.budget) <= 45 * 86_400


def test_every_step_of_a_charge_is_mirrored(world: World, server: redis.Redis):
    invoice = world.fail()
    keys = keys_of(invoice)
    before = server.get(keys.status)
    world.at = RetryJob.objects.get(invoice=invoice).due_at
    (attempt,) = world.send()
    assert server.get(keys.status) == before, "the owner stays, and with it the fencing number"
    world.answer(attempt, "ok")
    assert server.get(keys.status) is None
    status = json.loads(server.hvals(keys.tokens)[0])
    assert (status["error_code"], status["category"], status["retry_history"]) == ("", "", {"2026-11-20": 1})
    assert ask(tokens_select, invoice, world.at).warm


def test_a_hard_decline_shows(world: World, server: redis.Redis):
    invoice = world.fail(code="stolen_card")
    status = json.loads(server.hvals(keys_of(invoice).tokens)[0])
    assert (status["hard_decline"], status["error_code"]) == (True, "stolen_card")
    assert ask(tokens_select, invoice, world.at).answer is Answer.DEAD


def test_a_new_owner_gets_a_higher_fencing_number(world: World, server: redis.Redis):
    first = world.fail(amount=1_000)
    keys = keys_of(first)
    fence = int(server.get(keys.status).split(b":")[1])
    world.pay(first)
    assert server.get(keys.status) is None
    second = world.fail(amount=2_000)
    owner, later = server.get(keys.status).decode().split(":")
    assert owner == Transaction.objects.get(invoice=second).public_id
    assert int(later) > fence


def test_a_flush_loses_no_fencing_order(world: World, server: redis.Redis):
    invoice = world.fail()
    fence = int(server.get(keys_of(invoice).status).split(b":")[1])
    server.flushdb()
    mirror_customer(invoice.customer_id)
    assert int(server.get(keys_of(invoice).status).split(b":")[1]) > fence


def test_what_is_rolled_back_is_never_mirrored(world: World, server: redis.Redis):
    invoice = world.fail()
    before = {key: server.dump(key) for key in server.scan_iter()}
    with transaction.atomic():
        Token.objects.filter(customer=invoice.customer).update(status=TokenStatus.REMOVED)
        mirror_after_commit(invoice.customer_id)
        transaction.set_rollback(True)
    assert {key: server.dump(key) for key in server.scan_iter()} == before


def test_nothing_of_a_running_transaction_is_mirrored(world: World, server: redis.Redis):
    invoice = world.fail()
    server.flushdb()
    with transaction.atomic():
        mirror_after_commit(invoice.customer_id)
        assert server.keys() == []
    assert len(server.keys()) == 3


def test_a_redis_that_is_down_fails_nobody(world: World, server: redis.Redis, settings):
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    invoice = world.fail()
    assert RetryJob.objects.get(invoice=invoice).status == "SCHEDULED"
    assert server.keys() == []


@pytest.mark.django_db(transaction=True)
def test_a_drain_mirrors_many_customers_at_once_and_at_the_latest_when_it_ends(
    book: Book, server: redis.Redis, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("tokens.mirror.writing._SECONDS", 3600.0)
    monkeypatch.setattr("tokens.mirror.writing._MANY", 50)
    customers = [book.customer(f"cus_{number}") for number in range(60)]
    for customer in customers:
        book.token(customer)
    server.flushdb()

    def change(some: list[Customer]) -> None:
        with transaction.atomic():
            for customer in some:
                mirror_after_commit(customer.pk)

    asked = []
    with mirrored_together() as step:
        for some, written in ((customers[:1], False), (customers[:49], False), (customers[:50], True)):
            change(some)
            with CaptureQueriesContext(connection) as queries:
                step()
            asked.append(len(queries))
            assert bool(server.keys()) is written
        assert asked[:2] == [0, 0]
        server.flushdb()
        change(customers[50:51])
    assert len(server.keys(f"{book.keys(customers[50]).tokens}")) == 1
    with CaptureQueriesContext(connection) as one:
        change(customers[51:52])
    assert asked[2] <= len(one) + 1, "fifty cost more questions than one"

    def interrupted() -> None:
        with mirrored_together():
            change(customers[52:53])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        interrupted()
    assert server.exists(book.keys(customers[52]).tokens), "an error in the drain loses nothing"


def test_others_who_share_the_card_are_mirrored_too(world: World, server: redis.Redis):
    mine = world.fail(customer="cus_ann", fingerprint="shared", token="tok_a", network="amex")
    theirs = world.fail(customer="cus_bob", fingerprint="shared", token="tok_b", network="amex")
    world.wait(hours=1)
    world.fail(customer="cus_bob", fingerprint="shared", token="tok_b", network="amex")
    owner = Transaction.objects.get(invoice=mine).public_id
    warm = ask(tokens_select, mine, world.at, owner=owner)
    assert (warm.warm, [one.allowed_at for one in warm.tokens]) == (True, [world.at + DAY])
    assert keys_of(theirs) != keys_of(mine)


def image_of(customer: Customer) -> CustomerImage:
    (image,) = customer_images([customer.pk], now=NOW)
    return image


# --- size -----------------------------------------------------------------------------------------------------------


def test_a_customer_with_two_tokens_of_fifteen_tries_takes_less_than_two_kilobytes(book: Book, server: redis.Redis):
    customer = book.customer("cus_NffrFeUfNV2Hib")
    invoice = book.invoice(customer)
    for _ in range(2):
        token = book.token(customer, added_by_payment_id="pi_3MtwBwLkdIwHu7ix28a3tqPa")
        book.tries(token, invoice, [NOW - number * 2 * DAY for number in range(15)], raw_code="insufficient_funds")
    put_owner = "txn_01kbxxxxxxxxxxxxxxxxxxxxxxxx"
    assert put(image_of(customer), put_owner) == [1]
    sizes = {key: server.memory_usage(key) for key in server.scan_iter()}
    assert len(sizes) == 3
    assert sum(sizes.values()) < 2_048, sizes


# --- order of writers -----------------------------------------------------------------------------------------------


def test_the_older_of_two_readers_cannot_overwrite_the_newer(book: Book, server: redis.Redis):
    customer = book.customer()
    first, second = book.token(customer), book.token(customer)
    invoice = book.invoice(customer)
    older = image_of(customer)
    Token.objects.filter(pk=second.pk).update(status=TokenStatus.DECLINED)
    newer = image_of(customer)

    # Without the versions: whoever writes last wins, and the update of the second token is lost.
    assert (put(newer), server.delete(older.keys.budget), put(older)) == ([1], 1, [1])
    assert [one.pk for one in ask(tokens_select, invoice).tokens] == [first.pk, second.pk]

    assert (put(newer), put(older)) == ([1], [0])
    assert [one.pk for one in ask(tokens_select, invoice).tokens] == [first.pk]
    assert json.loads(server.hget(newer.keys.tokens, second.public_id))["hard_decline"] is True


def test_an_outdated_writer_is_counted(book: Book, monkeypatch: pytest.MonkeyPatch):
    customer = book.customer()
    book.token(customer)
    image = image_of(customer)
    assert mirror_customer(customer.pk)
    before = mirror_counters()
    monkeypatch.setattr("tokens.mirror.writing.customer_images", lambda pks, now: [image])
    assert mirror_customer(customer.pk)
    after = mirror_counters()
    assert (after["outdated"] - before["outdated"], after["written"] - before["written"]) == (1, 0)


# --- foreign content ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["status", "tokens", "budget"])
@pytest.mark.parametrize("content", ["list", "text"])
def test_foreign_content_is_replaced_from_postgresql_and_logged(
    book: Book, server: redis.Redis, caplog: pytest.LogCaptureFixture, which: str, content: str
):
    customer = book.customer()
    token, invoice = book.token(customer), book.invoice(customer)
    mirror_customer(customer.pk)
    key = getattr(book.keys(customer), which)
    expected = server.hgetall(book.keys(customer).tokens).keys()
    server.delete(key)
    server.rpush(key, "x") if content == "list" else server.set(key, "somebody else's text")
    before = mirror_counters()
    caplog.clear()

    assert [one.pk for one in ask(tokens_select, invoice).tokens] == [token.pk]
    mirror_customer(customer.pk)
    assert ask(tokens_select, invoice).warm
    assert server.type(book.keys(customer).tokens) == b"hash"
    assert server.hgetall(book.keys(customer).tokens).keys() == expected
    assert server.get(book.keys(customer).status) is None
    after = mirror_counters()
    found = after["repaired"] - before["repaired"] + after["unreadable"] - before["unreadable"]
    assert found >= 1, "never skipped silently"
    assert any("mirror_repaired" in text or "mirror_unreadable" in text for text in caplog.messages)


def test_a_version_from_nowhere_does_not_lock_postgresql_out(book: Book, server: redis.Redis):
    customer = book.customer()
    token, invoice = book.token(customer), book.invoice(customer)
    image = image_of(customer)
    server.set(image.keys.budget, pack_nothing(10**15))
    before = mirror_counters()["repaired"]
    assert mirror_customer(customer.pk)
    assert mirror_counters()["repaired"] == before + 1
    assert [one.pk for one in ask(tokens_select, invoice).tokens] == [token.pk]


def test_losses_are_loaded_again_when_asked(book: Book, server: redis.Redis):
    customer = book.customer()
    token, invoice = book.token(customer), book.invoice(customer)
    book.tries(token, invoice, [NOW - DAY] * 15)
    for loss in (server.flushdb, server.script_flush, lambda: server.delete(book.keys(customer).budget)):
        loss()
        for _ in range(2):
            assert [one.allowed_at for one in ask(tokens_select, invoice).tokens] == [NOW + 29 * DAY]
        assert ask(tokens_select, invoice).warm


# --- the slot's entry -----------------------------------------------------------------------------------------------


def test_only_its_owner_keeps_or_gives_back_the_slot(book: Book, server: redis.Redis):
    keys = book.keys(book.customer())
    server.set(keys.status, "txn_ann:7", px=50_000)

    # The race with the guard off: plain EXPIRE and DEL do not ask whose it is.
    assert server.pexpire(keys.status, 900_000) is True
    assert server.delete(keys.status) == 1

    server.set(keys.status, "txn_ann:7", px=50_000)
    for stranger in ({"owner": "txn_bob"}, {"owner": "txn_ann", "fence": 6}, {"owner": "txn_ann", "fence": 8}):
        assert slot_extend(keys, milliseconds=900_000, **stranger) is False
        assert slot_release(keys, **stranger) is False
    assert server.get(keys.status) == b"txn_ann:7"
    assert 0 < server.pttl(keys.status) <= 50_000
    assert slot_extend(keys, owner="txn_ann", fence=7, milliseconds=900_000) is True
    assert 800_000 < server.pttl(keys.status) <= 900_000
    assert slot_release(keys, owner="txn_ann", fence=7) is True
    assert server.exists(keys.status) == 0
    assert slot_release(keys, owner="txn_ann") is False, "releasing what is gone is no error and takes nobody's slot"


def test_a_stale_writer_neither_takes_nor_frees_the_slot(book: Book, server: redis.Redis):
    customer = book.customer()
    book.token(customer)
    older, newer = (image_of(customer) for _ in range(2))
    assert put(newer, "txn_ann") == [1]
    for owner in ("txn_bob", ""):
        assert put(older, owner) == [0]
    assert server.get(older.keys.status) == f"txn_ann:{newer.version}".encode()


# --- all of them ----------------------------------------------------------------------------------------------------


def test_rebuild_writes_every_customer_again(book: Book, server: redis.Redis):
    customers = [book.customer() for _ in range(3)]
    for customer in customers:
        book.token(customer)
    book.customer("without a token")
    server.flushdb()
    told: list[int] = []
    done = mirror_rebuild(progress=told.append)
    assert (done.customers, done.written, sum(told)) == (3, 3, 3)
    assert {key.decode() for key in server.scan_iter()} == {
        key for customer in customers for key in (book.keys(customer).tokens, book.keys(customer).budget)
    }
    other = Book()
    assert mirror_rebuild(merchant_pk=other.merchant.pk).customers == 0


def test_rebuild_says_when_redis_does_not_answer(book: Book, settings):
    book.token(book.customer())
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    with pytest.raises(MirrorUnavailable, match="Redis does not answer; start it"):
        mirror_rebuild()


def test_a_customer_that_does_not_exist_is_not_written(book: Book, server: redis.Redis):
    assert mirror_customer(Customer.objects.count() + 10_000) is False
    assert server.keys() == []
