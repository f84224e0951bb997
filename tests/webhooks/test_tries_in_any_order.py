"""One bill that fails twice and is paid then: however the events of it come, the ledger ends alike."""

from collections.abc import Callable
from itertools import permutations, product
from random import Random

import pytest

from tests.webhooks.door import Body, Door, faults, ledger
from tests.webhooks.renewal import BASIL, OLD, SHAPES, Renewal, moment

pytestmark = pytest.mark.django_db
NewDoor = Callable[..., Door]


def _two_tries_and_a_payment(shape: str, code: str) -> list[list[Body]]:
    """Three bursts of events: two failed tries of one bill, then its payment."""
    renewal, day = Renewal(shape), 86_400
    paid = [renewal.charge_succeeded(3, after=5 * day), renewal.invoice_paid(3, after=5 * day + 1)]
    if shape == BASIL:
        paid.append(renewal.payment_joined(after=5 * day + 2))
    return [
        [renewal.charge_failed(code=code), renewal.invoice_failed()],
        [renewal.charge_failed(2, after=3 * day, code="do_not_honor"), renewal.invoice_failed(2, after=3 * day + 2)],
        paid,
    ]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("code", ["insufficient_funds", "stolen_card"])
def test_two_failed_tries_and_a_payment_end_alike_however_each_is_told(
    new_door: NewDoor, shape: str, code: str
) -> None:
    bursts = _two_tries_and_a_payment(shape, code)
    ends = {}
    for orders in product(*(permutations(burst) for burst in bursts)):
        door = new_door()
        for days, burst in zip((0, 3, 5), orders, strict=True):
            door.tell(moment(days * 86_400 + 60), *burst)
        assert faults(door.merchant) == []
        ends[repr(ledger(door.merchant))] = [event["type"] for burst in orders for event in burst]
    assert len(ends) == 1, ends


@pytest.mark.parametrize("code", ["insufficient_funds", "stolen_card"])
def test_what_names_its_invoice_may_come_in_any_order_at_all(new_door: NewDoor, code: str) -> None:
    events = [event for burst in _two_tries_and_a_payment(OLD, code) for event in burst]
    ends = {}
    for order in Random(code).sample(list(permutations(range(len(events)))), 40):
        door = new_door()
        door.tell(moment(5 * 86_400 + 60), *[events[index] for index in order])
        assert faults(door.merchant) == []
        ends[repr(ledger(door.merchant))] = order
    assert len(ends) == 1, ends


def test_the_slot_of_an_invoice_that_turns_out_to_be_the_other_one_goes_to_that(door: Door) -> None:
    """Ending the one writes the other's history: what was read before that must not be written after it."""
    renewal, day = Renewal(BASIL), 86_400
    second = renewal.charge_failed(2, after=3 * day, code="do_not_honor")
    door.tell(moment(5 * day), renewal.invoice_failed(2, after=3 * day + 2), renewal.charge_failed(), second)
    assert {status for _, status, _ in door.inbox()} == {"PROCESSED"}
    owed = [one for one in ledger(door.merchant) if one["status"] != "CANCELED"]
    assert [(one["invoice"], [attempt[2] for attempt in one["attempts"]]) for one in owed] == [
        ("in_1", ["ch_1_1", "ch_1_2"])
    ]
    assert faults(door.merchant) == []
