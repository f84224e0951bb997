"""The outbox gives every event to every consumer that wants it, also across crashes, late commits and two workers."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection, transaction
from structlog.testing import capture_logs

from accounts.services import merchant_create
from invoices import outbox
from invoices.models import Connection, Event, Invoice, OutboxMessage
from invoices.services.billing import invoice_create
from invoices.services.ledger import Stamp, invoice_lock, record_event
from invoices.services.outbox import BACK_OFF, LEASE, MAX_TRIES, OutboxCounts, outbox_drain
from invoices.services.parties import connection_create, customer_ensure, customer_lock
from notifications.models import Alert
from notifications.services.alerts import alert_acknowledge, alert_write
from providers.base import CustomerFacts, InvoiceFacts
from recovery_site.common.clock import database_now
from tests.support.quiet import quiet

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
STAMP = Stamp(actor="system:test", cause="test", now=NOW)
pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def consumers(monkeypatch: pytest.MonkeyPatch) -> dict[str, outbox.Consumer]:
    """A registry of the test's own."""
    registry: dict[str, outbox.Consumer] = {}
    monkeypatch.setattr(outbox, "_consumers", registry)
    return registry


@pytest.fixture
def heard(consumers: dict[str, outbox.Consumer]) -> list[str]:
    """What the consumer `ear`, which wants `test.*`, was given."""
    given: list[str] = []
    outbox.register(
        outbox.Consumer("ear", lambda kind: kind.startswith("test."), lambda event: given.append(event.kind))
    )
    return given


def new_invoice(name: str = "Acme") -> Invoice:
    merchant = merchant_create(name=name).merchant
    account: Connection = connection_create(merchant=merchant, provider="simulator", config={})
    with transaction.atomic():
        customer = customer_lock(customer_ensure(connection=account, facts=CustomerFacts(id="cus_1"), now=NOW))
        facts = InvoiceFacts(id="in_1", amount_minor=4_900, currency="EUR")
        return invoice_create(customer=customer, facts=facts, provider_invoice_id="in_1", stamp=STAMP)


def tell(invoice: Invoice, kind: str, **data: Any) -> Event:
    with transaction.atomic():
        record_event(invoice=invoice_lock(invoice.pk), kind=kind, stamp=STAMP, data=data)
    return Event.objects.filter(invoice=invoice).latest("seq")


def drain(**options: Any) -> OutboxCounts:
    quiet()
    return outbox_drain(**{"now": NOW, **options})


def rows() -> list[tuple[str, int, bool, bool]]:
    """(kind, attempts, done, dead) of every message."""
    return [
        (message.event.kind, message.attempts, message.done_at is not None, message.dead_at is not None)
        for message in OutboxMessage.objects.select_related("event").order_by("id")
    ]


def make_due() -> None:
    OutboxMessage.objects.update(due_at=database_now() - timedelta(seconds=1))


def test_each_wanted_event_is_handled_once_in_order_and_others_never(heard: list[str]) -> None:
    invoice = new_invoice()
    for number in range(45):
        tell(invoice, f"test.{number}")
    tell(invoice, "other.kind")
    assert drain() == OutboxCounts(done=45)
    assert heard == [f"test.{number}" for number in range(45)]
    assert rows() == [(f"test.{number}", 1, True, False) for number in range(45)]
    assert set(OutboxMessage.objects.values_list("done_at", flat=True)) == {NOW}
    assert drain() == OutboxCounts()


def test_drain_stops_at_its_limit_and_when_told_to(heard: list[str]) -> None:
    invoice = new_invoice()
    for number in range(50):
        tell(invoice, f"test.{number}")
    assert drain(limit=7) == OutboxCounts(done=7)
    assert drain(keep_going=lambda: len(heard) < 8) == OutboxCounts(done=20)
    assert drain(keep_going=lambda: False) == OutboxCounts()
    assert heard == [f"test.{number}" for number in range(27)]


def test_consumer_is_called_with_no_transaction_open(consumers: dict[str, outbox.Consumer]) -> None:
    seen: list[bool] = []
    outbox.register(outbox.Consumer("ear", lambda kind: True, lambda event: seen.append(connection.in_atomic_block)))
    new_invoice()
    assert drain().done == 1
    assert seen == [False]


def test_late_commit_of_an_earlier_transaction_is_neither_lost_nor_overtaken(heard: list[str]) -> None:
    """The event of a long transaction has the smaller transaction id, though it is committed last."""
    early, late = new_invoice("Early"), new_invoice("Late")
    written, finish = threading.Event(), threading.Event()

    def slow() -> None:
        try:
            with transaction.atomic():
                record_event(invoice=invoice_lock(early.pk), kind="test.early", stamp=STAMP)
                written.set()
                assert finish.wait(20)
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(slow)
        assert written.wait(20)
        tell(late, "test.late")
        # The race is real: the later event is committed, due and visible, and would be handled first.
        assert rows() == [("test.late", 0, False, False)]
        assert outbox_drain(now=NOW) == OutboxCounts()
        finish.set()
        running.result(20)
    assert drain() == OutboxCounts(done=2)
    assert heard == ["test.early", "test.late"]


def test_two_workers_share_the_rows_and_handle_none_twice(consumers: dict[str, outbox.Consumer]) -> None:
    given: list[str] = []
    together, met = threading.Barrier(2), set[int]()

    def handle(event: Event) -> None:
        if threading.get_ident() not in met:
            met.add(threading.get_ident())
            together.wait(20)  # both workers hold a claimed batch at this moment
        given.append(event.kind)

    outbox.register(outbox.Consumer("ear", lambda kind: kind.startswith("test."), handle))
    invoice = new_invoice()
    for number in range(60):
        tell(invoice, f"test.{number:02}")

    def work() -> OutboxCounts:
        try:
            return drain()
        finally:
            connection.close()

    with ThreadPoolExecutor(2) as pool:
        counts = [running.result(30) for running in [pool.submit(work), pool.submit(work)]]
    assert sum(count.done for count in counts) == 60
    assert all(count.done >= 20 and count.retried == count.dead == 0 for count in counts)
    assert sorted(given) == [f"test.{number:02}" for number in range(60)]


def test_message_of_a_worker_that_died_comes_back_after_its_lease(consumers: dict[str, outbox.Consumer]) -> None:
    class Killed(BaseException):
        pass

    fate: Iterator[Callable[[], None]] = iter([lambda: (_ for _ in ()).throw(Killed()), lambda: None])
    outbox.register(outbox.Consumer("ear", lambda kind: kind == "test.a", lambda event: next(fate)()))
    tell(new_invoice(), "test.a")
    with pytest.raises(Killed):
        drain()
    assert rows() == [("test.a", 1, False, False)]
    waits = OutboxMessage.objects.get().due_at - database_now()
    assert LEASE - timedelta(seconds=30) < waits <= LEASE
    assert drain() == OutboxCounts()
    make_due()
    assert drain() == OutboxCounts(done=1)
    assert rows() == [("test.a", 2, True, False)]


def test_failing_consumer_is_asked_again_later_and_at_last_given_up(consumers: dict[str, outbox.Consumer]) -> None:
    def refuse(event: Event) -> None:
        raise ValueError(f"try {event.kind}: card 4242424242424242 is broken")

    outbox.register(outbox.Consumer("ear", lambda kind: kind == "test.a", refuse))
    outbox.register(outbox.Consumer("nose", lambda kind: kind == "test.a", lambda event: None))
    tell(new_invoice(), "test.a")
    for attempt, pause in enumerate(BACK_OFF, start=1):
        before = database_now()
        counts = drain()
        assert counts == OutboxCounts(retried=1, done=1 if attempt == 1 else 0)
        message = OutboxMessage.objects.get(consumer="ear")
        assert message.attempts == attempt
        assert pause <= message.due_at - before <= pause * 1.25 + timedelta(seconds=30)
        assert message.last_error == "ValueError: try test.a: card [filtered] is broken"
        assert drain() == OutboxCounts()
        make_due()
    with capture_logs() as logs:
        assert drain(now=NOW + timedelta(days=3)) == OutboxCounts(dead=1)
    dead = [line for line in logs if line["event"] == "outbox_dead"]
    assert [(line["consumer"], line["kind"], line["tries"]) for line in dead] == [("ear", "test.a", MAX_TRIES)]
    make_due()
    assert drain() == OutboxCounts()
    message = OutboxMessage.objects.get(consumer="ear")
    assert (message.dead_at, message.done_at) == (NOW + timedelta(days=3), None)


def test_message_without_a_consumer_is_kept_and_says_so(consumers: dict[str, outbox.Consumer]) -> None:
    outbox.register(outbox.Consumer("gone", lambda kind: kind == "test.a", lambda event: None))
    tell(new_invoice(), "test.a")
    gone = consumers.pop("gone")
    for _ in range(MAX_TRIES + 2):
        assert drain() == OutboxCounts(retried=1)
        make_due()
    assert rows() == [("test.a", 0, False, False)]
    assert OutboxMessage.objects.get().last_error == (
        "No consumer named gone is registered; install its app again or delete the message."
    )
    outbox.register(gone)
    assert drain() == OutboxCounts(done=1)
    assert OutboxMessage.objects.get().last_error == ""


def test_alert_events_become_alerts_once_and_other_events_none() -> None:
    """Through the consumer that the notifications app registers by itself."""
    invoice = new_invoice()
    event = tell(invoice, "alert.paid_twice", text="Paid twice.", amount_minor=4_900)
    tell(invoice, "staff.pause", text="No alert.")
    assert drain() == OutboxCounts(done=1)
    alert = Alert.objects.get()
    assert (alert.kind, alert.text, alert.raised_at) == ("paid_twice", "Paid twice.", NOW)
    assert (alert.merchant_id, alert.invoice_id, alert.event_id) == (invoice.merchant_id, invoice.pk, event.pk)
    alert_write(event)
    assert Alert.objects.count() == 1


def test_alert_is_acknowledged_once_and_only_by_its_merchant() -> None:
    invoice = new_invoice()
    tell(invoice, "alert.exhausted")
    drain()
    alert = Alert.objects.get()
    assert alert.text == "Alert: exhausted."
    stranger = merchant_create(name="Stranger").merchant
    assert alert_acknowledge(merchant_pk=stranger.pk, alert_pks=[alert.pk], by="eve", now=NOW) == 0
    assert alert_acknowledge(merchant_pk=invoice.merchant_id, alert_pks=[alert.pk], by="ann", now=NOW) == 1
    assert alert_acknowledge(merchant_pk=invoice.merchant_id, alert_pks=[alert.pk], by="bob", now=NOW) == 0
    alert = Alert.objects.get()
    assert (alert.acknowledged_by, alert.acknowledged_at) == ("ann", NOW)
