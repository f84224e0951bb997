"""Draining the inbox: in order, once, and nothing that is stuck holds up the rest."""

import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection as database
from django.db.models import F

import webhooks.services.draining
from invoices.models import Attempt, Invoice
from invoices.services.ledger import Stamp
from recovery_site.common.errors import Conflict, NotFound
from retries.handler import EventWaits, event_handle
from tests.webhooks.conftest import Lines
from tests.webhooks.door import Body, Door, faults, ledger, rows
from tests.webhooks.renewal import OLD, Renewal, moment
from webhooks.models import InboxEvent
from webhooks.services import inbox_drain, inbox_replay
from webhooks.services.draining import Effect
from webhooks.states import InboxStatus

pytestmark = pytest.mark.django_db
NOW = moment(60)
Told = list[tuple[str, str]]


def many(customers: int) -> list[Body]:
    """One failed charge each of as many customers."""
    return [Renewal(OLD, name=f"{n}", customer=f"cus_{n}", token=f"pm_{n}").charge_failed() for n in range(customers)]


def due_now() -> None:
    """As if the time of every waiting item had come."""
    InboxEvent.objects.filter(status=InboxStatus.RECEIVED).update(due_at=F("received_at") - timedelta(hours=1))


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> Told:
    """(event type, what it is about) of every event given to the handler, in that order."""
    told: Told = []

    def listening(**known: Any) -> object:
        told.append((known["event"].event_type, known["event"].event_id))
        return event_handle(**known)

    monkeypatch.setattr("webhooks.services.draining.event_apply", listening)
    return told


# --- order ----------------------------------------------------------------------------------------------------------


def test_items_are_processed_in_order_of_arrival_once(door: Door, heard: Told) -> None:
    events = many(4)
    door.deliver(*reversed(events))
    assert door.drain(NOW).as_dict() == {"processed": 4, "failed": 0, "ignored": 0}
    assert [event_id for _, event_id in heard] == [event["id"] for event in reversed(events)]
    assert door.drain(NOW).as_dict() == {"processed": 0, "failed": 0, "ignored": 0}


def test_it_stops_when_told_to_and_goes_on_later(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("webhooks.services.draining.TOGETHER", 1)
    door.deliver(*many(3))
    left = iter([True, True, True, False, False])
    assert inbox_drain(now=NOW, keep_going=lambda: next(left)).processed == 2
    assert [status for _, status, _ in door.inbox()] == ["PROCESSED", "PROCESSED", "RECEIVED"]
    assert door.drain(NOW).processed == 1


# --- waiting --------------------------------------------------------------------------------------------------------


def test_an_item_that_waits_gets_its_turn_in_the_same_drain(door: Door, heard: Told) -> None:
    """A refund told before its payment: it steps aside, and the payment behind it makes it possible."""
    renewal = Renewal(OLD)
    door.deliver(
        renewal.refund(1, "refund.created", "succeeded", amount=4900),
        *many(1),
        renewal.charge_succeeded(),
    )
    assert door.drain(NOW).as_dict() == {"processed": 3, "failed": 0, "ignored": 0}
    first = ["refund.created"] * 2  # beside the others, and then alone
    assert [kind for kind, _ in heard] == [*first, "charge.failed", "charge.succeeded", "refund.created"]
    assert Invoice.objects.get(provider_invoice_id="in_1").status == "REFUNDED"
    assert faults(door.merchant) == []


def test_an_item_that_waits_holds_up_nothing_and_says_why(door: Door, lines: Lines) -> None:
    renewal = Renewal(OLD)
    refund = renewal.refund(1, "refund.created", "succeeded", amount=4900)
    door.tell(NOW, refund, *many(2))
    door.drain(NOW)
    assert door.inbox() == [
        ("refund.created", "RECEIVED", "The refunded payment is not known yet."),
        ("charge.failed", "PROCESSED", ""),
        ("charge.failed", "PROCESSED", ""),
    ]
    waits = [line for line in lines() if line["event"] == "inbox_item" and line["status"] == "waits"]
    assert [(line["type"], line["reason"]) for line in waits] == [
        ("refund.created", "The refunded payment is not known yet.")
    ], "told once, not at each look"


def test_what_arrives_later_finds_the_waiting_item_when_it_is_due(door: Door) -> None:
    renewal = Renewal(OLD)
    door.tell(NOW, renewal.refund(1, "refund.created", "succeeded", amount=4900))
    door.tell(NOW, renewal.charge_succeeded())
    assert [status for _, status, _ in door.inbox()] == ["RECEIVED", "PROCESSED"]
    due_now()
    assert door.drain(NOW).processed == 1
    assert door.invoice().status == "REFUNDED"


def test_a_waiting_item_is_looked_at_less_and_less_often(door: Door) -> None:
    door.tell(NOW, Renewal(OLD).refund(1, "refund.created", "succeeded", amount=1))
    pauses = []
    for age in (timedelta(), timedelta(hours=1), timedelta(days=1), timedelta(days=3)):
        due_now()
        event = InboxEvent.objects.get()
        door.drain(event.received_at + age)
        with database.cursor() as cursor:
            cursor.execute("SELECT due_at - clock_timestamp() FROM webhooks_inboxevent")
            pauses.append(round(cursor.fetchone()[0].total_seconds() / 60))
    assert pauses == [1, 6, 144, 432]


def test_what_waits_in_vain_is_put_aside(door: Door, lines: Lines) -> None:
    """After four days: providers deliver for three, so what it waits for will not come any more."""
    door.tell(NOW, Renewal(OLD).refund(1, "refund.created", "succeeded", amount=4900))
    received = InboxEvent.objects.get().received_at
    due_now()
    assert door.drain(received + timedelta(days=4)).ignored == 0
    due_now()
    assert door.drain(received + timedelta(days=4, seconds=1)).ignored == 1
    reason = "Put aside after 4 days: The refunded payment is not known yet."
    assert door.inbox() == [("refund.created", "IGNORED", reason)]
    assert (lines()[-1]["event"], lines()[-1]["status"], lines()[-1]["reason"]) == ("inbox_item", "IGNORED", reason)


def test_a_put_aside_item_can_be_replayed_when_its_counterpart_has_come(door: Door) -> None:
    renewal = Renewal(OLD)
    door.tell(NOW, renewal.refund(1, "refund.created", "succeeded", amount=4900))
    put_aside = InboxEvent.objects.get()
    late = put_aside.received_at + timedelta(days=5)
    due_now()
    door.drain(late)
    door.tell(late, renewal.charge_succeeded())
    replay(put_aside.pk)
    door.drain(late)
    assert [status for _, status, _ in door.inbox()] == ["PROCESSED", "PROCESSED"]
    assert door.invoice().status == "REFUNDED"


# --- poison ---------------------------------------------------------------------------------------------------------


@contextmanager
def poisoned(event_id: str) -> Iterator[list[str]]:
    """The handler breaks at this event, after it has written."""
    tries: list[str] = []

    def breaks(**known: Any) -> object:
        handled = event_handle(**known)
        if known["event"].event_id == event_id:
            tries.append(event_id)
            raise ZeroDivisionError("nobody expected this")
        return handled

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("webhooks.services.draining.event_apply", breaks)
        yield tries


def test_a_poison_item_backs_off_and_ends_failed_while_others_go_on(door: Door, lines: Lines) -> None:
    poison, *others = many(3)
    door.deliver(poison, *others)
    pauses = []
    with poisoned(poison["id"]) as tries:
        assert door.drain(NOW).as_dict() == {"processed": 2, "failed": 1, "ignored": 0}
        while InboxEvent.objects.filter(status=InboxStatus.RECEIVED).exists():
            with database.cursor() as cursor:
                cursor.execute("SELECT max(due_at) - clock_timestamp() FROM webhooks_inboxevent WHERE attempts > 0")
                left = cursor.fetchone()[0].total_seconds()
            # The others' work lies between the failure and this look at it, however long it took.
            pauses.append(min((10, 60, 600, 3600), key=lambda pause: abs(pause - left)))
            assert door.drain(NOW).failed == 0, "not before it is due"
            due_now()
            assert door.drain(NOW).failed == 1
    # The first time beside the others, whose work it would have taken back, and then alone.
    assert (len(tries), pauses) == (1 + 5, [10, 60, 600, 3600])
    assert door.inbox() == [
        ("charge.failed", "FAILED", "ZeroDivisionError: nobody expected this"),
        ("charge.failed", "PROCESSED", ""),
        ("charge.failed", "PROCESSED", ""),
    ]
    assert Invoice.objects.count() == 2, "what the poisoned try had written is gone"
    named = [line["event"] for line in lines() if line["event"] in ("inbox_item_failed", "inbox_item_refused")]
    assert named == ["inbox_item_failed"] * 5 + ["inbox_item_refused"]


def test_a_poison_item_does_not_hold_up_its_own_invoice(door: Door) -> None:
    renewal = Renewal(OLD)
    poison = renewal.charge_failed()
    door.deliver(poison, renewal.intent_failed(), renewal.invoice_failed())
    with poisoned(poison["id"]):
        assert door.drain(NOW).as_dict() == {"processed": 2, "failed": 1, "ignored": 0}
    due_now()
    assert door.drain(NOW).as_dict() == {"processed": 1, "failed": 0, "ignored": 0}
    assert Attempt.objects.count() == 1


def test_a_waiting_item_that_breaks_is_not_tried_again_at_once(door: Door) -> None:
    """It had a second turn coming in this drain; an error takes that away, else all its tries were over in a moment."""
    renewal = Renewal(OLD)
    refund = renewal.refund(1, "refund.created", "succeeded", amount=1)
    later = [
        Renewal(OLD, name="2", customer="cus_2").refund(1, "refund.created", "succeeded", amount=1, refund="re_2"),
        renewal.charge_succeeded(),
        Renewal(OLD, name="2", customer="cus_2").charge_succeeded(),
    ]
    door.deliver(refund, *later)
    with poisoned(refund["id"]) as tries:
        assert door.drain(NOW).as_dict() == {"processed": 3, "failed": 1, "ignored": 0}
    assert (len(tries), InboxEvent.objects.get(provider_event_id=refund["id"]).attempts) == (1, 1)


def test_a_refused_item_holds_up_nothing(door: Door) -> None:
    wrong = Renewal(OLD).charge_failed()
    wrong["data"]["object"]["currency"] = "xbt"
    door.deliver(wrong, Renewal(OLD).intent_failed())
    assert door.drain(NOW).as_dict() == {"processed": 1, "failed": 1, "ignored": 0}


# --- replay ---------------------------------------------------------------------------------------------------------


def replay(pk: int) -> None:
    inbox_replay(event_pk=pk, stamp=Stamp(actor="user:7", cause="staff: looked odd", now=NOW))


def test_replayed_items_really_run_again_and_change_nothing(door: Door, heard: Told) -> None:
    renewal = Renewal(OLD)
    refused = renewal.charge_failed(2)
    refused["data"]["object"]["amount"] = -1
    events = [renewal.charge_failed(), renewal.intent_failed(), renewal.invoice_failed(), renewal.past_due(), refused]
    door.tell(NOW, *events)
    before, states, told = rows(), door.inbox(), list(heard)
    books = ledger(door.merchant)
    assert [status for _, status, _ in states] == ["PROCESSED", "PROCESSED", "PROCESSED", "IGNORED", "FAILED"]
    for pk in InboxEvent.objects.values_list("pk", flat=True):
        replay(pk)
    assert [(status, reason) for _, status, reason in door.inbox()] == [("RECEIVED", "Replayed by user:7")] * 5
    assert door.drain(NOW).as_dict() == {"processed": 3, "failed": 1, "ignored": 1}
    assert heard == told * 2
    assert (rows(), door.inbox(), ledger(door.merchant)) == (before, states, books)
    assert faults(door.merchant) == []


def test_a_failed_item_succeeds_when_its_cause_is_gone(door: Door) -> None:
    (event,) = many(1)
    door.deliver(event)
    with poisoned(event["id"]):
        for _ in range(5):
            due_now()
            door.drain(NOW)
    assert [status for _, status, _ in door.inbox()] == ["FAILED"]
    pk = InboxEvent.objects.get().pk
    replay(pk)
    assert InboxEvent.objects.get().attempts == 0
    assert door.drain(NOW).processed == 1
    assert door.inbox() == [("charge.failed", "PROCESSED", "")]


def test_what_waits_already_or_does_not_exist_cannot_be_replayed(door: Door) -> None:
    door.deliver(*many(1))
    with pytest.raises(Conflict, match="already waiting"):
        replay(InboxEvent.objects.get().pk)
    with pytest.raises(NotFound):
        replay(0)


# --- several drains at once -----------------------------------------------------------------------------------------


class Gate:
    """Holds the handler inside one event until `open`; everything else passes."""

    def __init__(self, event_id: str) -> None:
        self.event_id = event_id
        self.entered, self.opened = threading.Event(), threading.Event()
        self.heard: list[str] = []

    def __call__(self, **known: Any) -> object:
        self.heard.append(known["event"].event_id)
        if known["event"].event_id == self.event_id:
            self.entered.set()
            assert self.opened.wait(timeout=30)
        return event_handle(**known)


def drained() -> dict[str, int]:
    try:
        return inbox_drain(now=NOW).as_dict()
    finally:
        database.close()


_GUARD = re.compile(r"\n  AND \(event\.order_key = .*?\)\)\n", re.DOTALL)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("guarded", [False, True], ids=["without the guard", "with it"])
def test_a_second_drain_passes_over_what_the_first_works_on_and_what_is_behind_it(
    door: Door, monkeypatch: pytest.MonkeyPatch, guarded: bool
) -> None:
    """Without the guard the second drain begins an invoice's next event while the one before is still at work."""
    if not guarded:
        unguarded, removed = _GUARD.subn("\n", webhooks.services.draining.NEXT_DUE)
        assert removed == 1
        monkeypatch.setattr("webhooks.services.draining.NEXT_DUE", unguarded)
    renewal = Renewal(OLD)
    first, second = renewal.charge_failed(), renewal.invoice_failed()
    (other,) = many(1)
    door.deliver(first, second, other)
    gate = Gate(first["id"])
    monkeypatch.setattr("webhooks.services.draining.TOGETHER", 1)
    monkeypatch.setattr("webhooks.services.draining.event_apply", gate)
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(drained)
        assert gate.entered.wait(timeout=30)
        beside = drained()
        heard = list(gate.heard)
        gate.opened.set()
        held = slow.result()
    if guarded:
        assert (heard, gate.heard) == ([first["id"], other["id"]], [first["id"], other["id"], second["id"]])
        assert (beside["processed"], held["processed"]) == (1, 2)
    else:
        assert heard == [first["id"], second["id"], other["id"]]


@pytest.mark.django_db(transaction=True)
def test_many_drains_at_once_process_every_item_once_and_each_key_in_order(
    door: Door, monkeypatch: pytest.MonkeyPatch, lines: Lines
) -> None:
    drains, invoices = 3, 8
    renewals = [Renewal(OLD, name=f"{n}", customer=f"cus_{n % 3}", token=f"pm_{n % 3}") for n in range(invoices)]
    events = [event for r in renewals for event in (r.charge_failed(), r.intent_failed(), r.invoice_failed())]
    door.deliver(*events)
    heard: list[str] = []  # appending is atomic
    ended = webhooks.services.draining._ended

    def committed(event: InboxEvent, *known: Any) -> Effect:
        heard.append(event.provider_event_id)
        return ended(event, *known)

    monkeypatch.setattr("webhooks.services.draining._ended", committed)
    together = threading.Barrier(drains)

    def work() -> dict[str, int]:
        together.wait(timeout=30)
        return drained()

    with ThreadPoolExecutor(drains) as pool:
        done = [future.result() for future in [pool.submit(work) for _ in range(drains)]]
    rest = drained()
    assert sum(counts["processed"] for counts in (*done, rest)) == len(events)
    assert sum(counts["failed"] + counts["ignored"] for counts in (*done, rest)) == 0
    assert sorted(heard) == sorted(event["id"] for event in events)
    for start in range(0, len(events), 3):
        same = [event["id"] for event in events[start : start + 3]]
        assert [event_id for event_id in heard if event_id in same] == same
    assert Attempt.objects.count() == invoices
    assert faults(door.merchant) == []


_COPIES = """
INSERT INTO webhooks_inboxevent (
    merchant_id, endpoint_id, provider_event_id, event_type, order_key, body, body_hash, status, reason, attempts,
    received_at, due_at
) SELECT merchant_id, endpoint_id, 'copy_' || n, event_type, 'copy_' || n, '{}', '', 'RECEIVED', '', 0, received_at,
    received_at + interval '1 year'
FROM webhooks_inboxevent, generate_series(1, 4000) n
"""


@pytest.mark.parametrize("status", ["IGNORED", "RECEIVED"])
def test_finding_the_next_item_asks_indexes(door: Door, status: str) -> None:
    """It must cost the same beside a long history and beside many that wait for something."""
    door.deliver(*many(1))
    with database.cursor() as cursor:
        cursor.execute(_COPIES)
        cursor.execute("UPDATE webhooks_inboxevent SET status = %s WHERE order_key LIKE 'copy%%'", [status])
        cursor.execute("ANALYZE webhooks_inboxevent")
        cursor.execute("EXPLAIN " + webhooks.services.draining.NEXT_DUE, {"after": 0, "waiting": [], "limit": 1})
        plan = "\n".join(line for (line,) in cursor.fetchall())
    assert "Seq Scan" not in plan, plan
    if status == "RECEIVED":
        assert "Index Scan using inbox_order on webhooks_inboxevent earlier" in plan, plan
    else:
        assert "Index Scan using inbox_arrival on webhooks_inboxevent event" in plan, plan
    assert door.drain(NOW).processed == 1


def test_waiting_items_are_not_looked_at_for_ever(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two that wait for each other are looked at once more when something else has moved, then the drain ends."""
    looks: list[str] = []

    def handle(**known: Any) -> object:
        looks.append(known["event"].event_id)
        if known["event"].event_type == "charge.failed" and known["event"].customer.id != "cus_2":
            raise EventWaits("Never.")
        return event_handle(**known)

    monkeypatch.setattr("webhooks.services.draining.event_apply", handle)
    first, second, third = many(3)
    door.deliver(first, second, third)
    assert door.drain(NOW).as_dict() == {"processed": 1, "failed": 0, "ignored": 0}
    assert looks == [event["id"] for event in (first, second, third, first, second)]


NewDoor = Callable[..., Door]


def test_order_keys_of_two_endpoints_have_nothing_to_do_with_each_other(door: Door, new_door: NewDoor) -> None:
    other = new_door()
    door.deliver(Renewal(OLD).charge_failed())
    other.deliver(Renewal(OLD).charge_failed())
    assert door.drain(NOW).processed == 2
    assert [len(ledger(one.merchant)) for one in (door, other)] == [1, 1]
