"""The event chain: append-only, gapless, hashed, written only under the invoice's lock and queued for its consumers."""

import threading
from contextlib import suppress
from datetime import UTC, datetime

import pgtrigger
import pytest
from django.db import DatabaseError, connection, transaction

from invoices import outbox
from invoices.chain import Link, link_hash
from invoices.models import Event, Invoice, OutboxMessage
from invoices.outbox import Consumer
from invoices.services import ledger
from invoices.services.ledger import Stamp, alert, invoice_lock, move, record_event
from recovery_site.common.errors import Conflict, LockMissing, NotFound
from tests.support.books import assert_chain
from tests.support.locks import no_locks
from tests.support.shop import NOW, Shop

STAMP = Stamp(actor="test", cause="a test", now=NOW)


@pytest.fixture
def invoice(shop: Shop) -> Invoice:
    return shop.invoice(shop.failed_bill())


# --- the chain ----------------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_every_event_continues_the_chain(shop: Shop) -> None:
    bill = shop.failed_bill()
    shop.tell(*bill.attempt(shop.wait(hours=1)).succeeded())
    invoice = shop.invoice(bill)
    kinds = list(invoice.events.order_by("seq").values_list("kind", flat=True))
    assert kinds[:3] == ["invoice.created", "transaction.created", "invoice.start"]
    assert kinds[-2:] == ["invoice.settle", "case.closed"]
    assert_chain(invoice)


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("kind", "invoice.cancel"),
        ("actor", "user:mallory"),
        ("cause", "because"),
        ("data", {"amount_minor": 1}),
        ("from_state", "INIT"),
        ("to_state", "SETTLED"),
        ("subject_id", "inv_other"),
        ("subject_type", "case"),
        ("occurred_at", datetime(2020, 1, 1, tzinfo=UTC)),
        ("hash", "0" * 64),
    ],
)
def test_a_changed_event_is_found(invoice: Invoice, column: str, value: object) -> None:
    with pgtrigger.ignore("invoices.Event:event_append_only"):
        Event.objects.filter(invoice=invoice, seq=2).update(**{column: value})
    with pytest.raises(AssertionError):
        assert_chain(invoice)


@pytest.mark.django_db
@pytest.mark.parametrize("seq", [1, 2, -1])
def test_a_missing_event_is_found(invoice: Invoice, seq: int) -> None:
    wanted = seq if seq > 0 else invoice.last_seq
    OutboxMessage.objects.filter(event__invoice=invoice).delete()
    with pgtrigger.ignore("invoices.Event:event_append_only"):
        Event.objects.filter(invoice=invoice, seq=wanted).delete()
    with pytest.raises(AssertionError):
        assert_chain(invoice)


def test_the_hash_covers_every_field_and_the_hash_before() -> None:
    link = Link("inv", 1, "invoice", "inv", "k", "a", "b", "actor", "cause", {"x": 1}, NOW)
    plain = link_hash("", link)
    changed = [
        Link("inw", 1, "invoice", "inv", "k", "a", "b", "actor", "cause", {"x": 1}, NOW),
        Link("inv", 2, "invoice", "inv", "k", "a", "b", "actor", "cause", {"x": 1}, NOW),
        Link("inv", 1, "attempt", "inv", "k", "a", "b", "actor", "cause", {"x": 1}, NOW),
        Link("inv", 1, "invoice", "inw", "k", "a", "b", "actor", "cause", {"x": 1}, NOW),
        Link("inv", 1, "invoice", "inv", "l", "a", "b", "actor", "cause", {"x": 1}, NOW),
        Link("inv", 1, "invoice", "inv", "k", "", "b", "actor", "cause", {"x": 1}, NOW),
        Link("inv", 1, "invoice", "inv", "k", "a", "", "actor", "cause", {"x": 1}, NOW),
        Link("inv", 1, "invoice", "inv", "k", "a", "b", "other", "cause", {"x": 1}, NOW),
        Link("inv", 1, "invoice", "inv", "k", "a", "b", "actor", "", {"x": 1}, NOW),
        Link("inv", 1, "invoice", "inv", "k", "a", "b", "actor", "cause", {"x": 2}, NOW),
        Link("inv", 1, "invoice", "inv", "k", "a", "b", "actor", "cause", {"x": 1}, NOW.replace(microsecond=1)),
    ]
    assert len({plain, link_hash("0", link), *(link_hash("", other) for other in changed)}) == 13
    assert link_hash("", link) == plain


@pytest.mark.django_db
def test_an_event_that_is_rolled_back_leaves_no_gap(invoice: Invoice) -> None:
    with suppress(RuntimeError), transaction.atomic():
        record_event(invoice=invoice_lock(invoice.pk), kind="test.lost", stamp=STAMP)
        raise RuntimeError
    with transaction.atomic():
        record_event(invoice=invoice_lock(invoice.pk), kind="test.kept", stamp=STAMP)
    fresh = Invoice.objects.get(pk=invoice.pk)
    assert fresh.last_seq == invoice.last_seq + 1
    assert_chain(fresh)


# --- the lock -----------------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_an_event_needs_the_locked_invoice(invoice: Invoice) -> None:
    with pytest.raises(LockMissing), transaction.atomic():
        record_event(invoice=invoice, kind="test.x", stamp=STAMP)
    assert Event.objects.filter(invoice=invoice, kind="test.x").count() == 0


@pytest.mark.django_db(transaction=True)
def test_a_lock_ends_with_its_transaction(invoice: Invoice) -> None:
    """A kept instance is stale: whoever wrote meanwhile would have its events written over."""
    with transaction.atomic():
        locked = invoice_lock(invoice.pk)
        record_event(invoice=locked, kind="test.first", stamp=STAMP)
    with pytest.raises(LockMissing):
        record_event(invoice=locked, kind="test.outside", stamp=STAMP)
    with pytest.raises(LockMissing), transaction.atomic():
        record_event(invoice=locked, kind="test.later", stamp=STAMP)
    assert not Event.objects.filter(invoice=invoice, kind__in=("test.outside", "test.later")).exists()


@pytest.mark.django_db
def test_locking_what_does_not_exist_is_not_found(db: None) -> None:
    with pytest.raises(NotFound), transaction.atomic():
        invoice_lock(2**60)


def writers(invoice: Invoice, number: int, rounds: int) -> list[str]:
    """Threads that append to one chain at the same time; the errors they met."""
    start, errors = threading.Barrier(number), list[str]()

    def write(name: int) -> None:
        try:
            start.wait()
            for turn in range(rounds):
                with transaction.atomic():
                    record_event(invoice=ledger.invoice_lock(invoice.pk), kind=f"test.{name}.{turn}", stamp=STAMP)
        except DatabaseError as error:
            errors.append(type(error).__name__)
        finally:
            connection.close()

    threads = [threading.Thread(target=write, args=(name,)) for name in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors


@pytest.mark.django_db(transaction=True)
def test_writers_without_the_lock_collide(invoice: Invoice, monkeypatch: pytest.MonkeyPatch) -> None:
    """The race is real: without the row lock two writers take the same place in the chain."""
    no_locks(monkeypatch)
    assert "IntegrityError" in writers(invoice, 4, 20)


@pytest.mark.django_db(transaction=True)
def test_writers_with_the_lock_append_one_after_the_other(invoice: Invoice) -> None:
    assert writers(invoice, 4, 20) == []
    fresh = Invoice.objects.get(pk=invoice.pk)
    assert fresh.last_seq == invoice.last_seq + 80
    assert_chain(fresh)


# --- moves --------------------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_an_illegal_move_is_a_conflict_and_writes_nothing(invoice: Invoice) -> None:
    locked = invoice_lock(invoice.pk)
    with pytest.raises(Conflict, match="is PROCESSING: it cannot finish refund"):
        move(locked, "finish_refund", invoice=locked, stamp=STAMP)
    assert Invoice.objects.get(pk=invoice.pk).last_seq == invoice.last_seq


@pytest.mark.django_db
def test_a_move_saves_its_fields_with_the_state_and_the_event(invoice: Invoice) -> None:
    with transaction.atomic():
        locked = invoice_lock(invoice.pk)
        move(locked, "cancel", invoice=locked, stamp=STAMP, cancel_reason="test", data={"reason": "test"})
    fresh, event = Invoice.objects.get(pk=invoice.pk), Event.objects.filter(invoice=invoice).latest("seq")
    assert (fresh.status, fresh.cancel_reason) == ("CANCELED", "test")
    assert (event.kind, event.from_state, event.to_state) == ("invoice.cancel", "PROCESSING", "CANCELED")
    assert (event.actor, event.cause, event.occurred_at, event.data) == ("test", "a test", NOW, {"reason": "test"})


# --- the outbox ---------------------------------------------------------------------------------------------------


@pytest.fixture
def consumers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two consumers of the test's own instead of the application's."""
    monkeypatch.setattr(outbox, "_consumers", {})
    outbox.register(Consumer(name="alerts", wants=lambda kind: kind.startswith("alert."), handle=lambda event: None))
    outbox.register(Consumer(name="all", wants=lambda kind: True, handle=lambda event: None))


@pytest.mark.django_db
def test_an_event_is_queued_once_for_every_consumer_that_wants_it(consumers: None, shop: Shop) -> None:
    invoice = shop.invoice(shop.failed_bill())
    with transaction.atomic():
        locked = invoice_lock(invoice.pk)
        record_event(invoice=locked, kind="test.plain", stamp=STAMP)
        alert(locked, "test", "Something happened.", STAMP)
    rows = OutboxMessage.objects.filter(event__invoice=invoice).order_by("event__seq", "consumer")
    found = list(rows.values_list("event__kind", "consumer", "attempts", "done_at"))
    assert found[-3:] == [
        ("test.plain", "all", 0, None),
        ("alert.test", "alerts", 0, None),
        ("alert.test", "all", 0, None),
    ]
    assert rows.filter(consumer="all").count() == invoice.events.count()
    assert set(rows.values_list("merchant", flat=True)) == {shop.merchant.pk}


@pytest.mark.django_db
def test_an_event_that_is_rolled_back_is_not_queued(consumers: None, shop: Shop) -> None:
    invoice = shop.invoice(shop.failed_bill())
    before = OutboxMessage.objects.count()
    with suppress(RuntimeError), transaction.atomic():
        record_event(invoice=invoice_lock(invoice.pk), kind="test.lost", stamp=STAMP)
        raise RuntimeError
    assert OutboxMessage.objects.count() == before
