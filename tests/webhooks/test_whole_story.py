"""One invoice's whole life through the inbox: any order, told twice, by several workers at once, one ledger."""

import copy
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from random import Random
from typing import Any

import pytest
from django.db import connection as database
from django.db.models.functions import Now

from tests.support.sizes import LONG, MARKS
from tests.webhooks.conftest import NewDoor
from tests.webhooks.door import Body, Door, faults, ledger
from tests.webhooks.renewal import BASIL, OLD, SHAPES, Renewal, moment
from webhooks.models import InboxEvent
from webhooks.services import inbox_drain

pytestmark = MARKS
ORDERS = 200 if LONG else 6
DAY = 86_400
NOW = moment(12 * DAY)


def story(shape: str, end: str) -> list[Body]:
    """Failed, tried again and failed, paid, refunded in part, disputed."""
    renewal = Renewal(shape)
    joined = [renewal.payment_joined(after=5 * DAY + 4)] if shape == BASIL else []
    return [
        *joined,
        renewal.charge_failed(),
        renewal.intent_failed(),
        renewal.invoice_failed(),
        renewal.charge_failed(2, after=3 * DAY + 1, code="do_not_honor"),
        renewal.invoice_failed(2, after=3 * DAY + 3),
        renewal.charge_succeeded(3, after=5 * DAY + 1),
        renewal.invoice_paid(3, after=5 * DAY + 3),
        renewal.charge_refunded(3, total=1000, after=6 * DAY),
        renewal.refund(3, "refund.created", "pending", amount=1000, after=6 * DAY + 1),
        renewal.refund(3, "refund.updated", "succeeded", amount=1000, after=6 * DAY + 2),
        renewal.dispute(3, "created", "needs_response", after=8 * DAY),
        renewal.dispute(3, "closed", end, after=10 * DAY),
    ]


def told(door: Door, events: Sequence[Body], random: Random) -> None:
    """Deliver all of them mixed up, some again under the same id, some under another."""
    again = [copy.deepcopy(event) for event in random.sample(events, 4)]
    for number, event in enumerate(again[:2]):
        event["id"] += f"_again_{number}"
    mixed = [*events, *again]
    random.shuffle(mixed)
    door.deliver(*mixed)


def finish(door: Door) -> None:
    """Drain until nothing waits any more, as if the time of what waits had come."""
    for _ in range(6):
        InboxEvent.objects.update(due_at=Now())
        inbox_drain(now=NOW)
        if not InboxEvent.objects.filter(endpoint=door.endpoint, status="RECEIVED").exists():
            return
    raise AssertionError(f"These wait for ever: {[row for row in door.inbox() if row[1] == 'RECEIVED']}")


def outcome(door: Door) -> list[Any]:
    """What the ledger says of the invoice (`ledger` says what that leaves out).

    Of the shape that does not say which charge is whose neither attempts nor codes are compared: a charge told before
    anything names its invoice is booked as a debt of its own, and then the biller's word, which has no code, is all
    that the invoice keeps of that try.
    """
    assert {status for _, status, _ in door.inbox()} <= {"PROCESSED", "IGNORED"}, door.inbox()
    assert faults(door.merchant) == []
    told = [one for one in ledger(door.merchant) if one["invoice"] == "in_1"]
    if door.endpoint.events.filter(event_type="invoice_payment.paid").exists():
        for one in told:
            one["cases"] = sorted((case[0], *case[5:]) for case in one["cases"])
            one.pop("attempts")
    return told


@pytest.mark.django_db
@pytest.mark.parametrize("end", ["won", "lost"])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_order_and_every_repetition_end_in_the_same_ledger(new_door: NewDoor, shape: str, end: str) -> None:
    events = story(shape, end)
    straight = new_door()
    for event in events:
        straight.deliver(event)
        straight.drain(NOW)
    finish(straight)
    expected = outcome(straight)
    assert [(one["paid"], one["refunded"]) for one in expected] == [(4900 if end == "won" else 0, 1000)]
    for seed in range(ORDERS):
        random, door = Random(seed), new_door()
        told(door, events, random)
        finish(door)
        assert outcome(door) == expected, f"seed {seed}"


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("seed", range(2))
def test_several_workers_at_once_end_in_the_same_ledger(new_door: NewDoor, seed: int) -> None:
    straight, door = new_door(), new_door()
    events = story(OLD, "lost")
    straight.tell(NOW, *events)
    finish(straight)
    told(door, events, Random(seed))
    together = threading.Barrier(3)

    def work() -> None:
        try:
            together.wait(timeout=30)
            inbox_drain(now=NOW)
        finally:
            database.close()

    with ThreadPoolExecutor(3) as pool:
        for worker in [pool.submit(work) for _ in range(3)]:
            worker.result(timeout=120)
    finish(door)
    assert outcome(door) == outcome(straight)
