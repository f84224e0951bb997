"""The same facts in any order, told twice, end in the same ledger."""

from collections.abc import Callable, Sequence
from datetime import timedelta
from itertools import permutations
from random import Random

import pytest

from tests.support.books import assert_chain, assert_next_steps, assert_slots, assert_totals
from tests.support.shop import Shop
from tests.support.sizes import LONG, MARKS
from tests.support.stripe import BASIL, OLD, Bill, StripeEvent

pytestmark = [pytest.mark.django_db, *MARKS]
DAY = timedelta(days=1)
ORDERS = 720 if LONG else 12
Story = Callable[[Bill], list[StripeEvent]]


def failed_once(bill: Bill) -> list[StripeEvent]:
    return bill.attempt().failed()


def failed_twice(bill: Bill) -> list[StripeEvent]:
    first, second = bill.attempt(), bill.attempt(bill.at + 3 * DAY)
    return [
        first.charge_failed(),
        first.intent_failed(),
        first.invoice_failed(),
        second.charge_failed(),
        second.intent_failed(),
        second.invoice_failed(),
    ]


def failed_then_paid(bill: Bill) -> list[StripeEvent]:
    first, second = bill.attempt(), bill.attempt(bill.at + 3 * DAY)
    return [first.charge_failed(), first.intent_failed(), first.invoice_failed(), *second.succeeded()]


def paid_first_try(bill: Bill) -> list[StripeEvent]:
    paid = bill.attempt()
    return [*paid.succeeded(), paid.invoice_paid("invoice.payment_succeeded")]


def failed_then_voided(bill: Bill) -> list[StripeEvent]:
    return [*bill.attempt().failed()[:3], bill.voided(bill.at + DAY)]


def failed_then_written_off(bill: Bill) -> list[StripeEvent]:
    return [*bill.attempt().failed()[:3], bill.uncollectible(bill.at + DAY)]


def refunded(bill: Bill) -> list[StripeEvent]:
    paid = bill.attempt()
    return [
        paid.charge_succeeded(),
        paid.invoice_paid(),
        paid.charge_refunded(bill.amount, 0, bill.at + DAY),
        paid.refund("a", bill.amount, bill.at + DAY),
        paid.refund("a", bill.amount, bill.at + DAY, kind="refund.updated"),
    ]


def partly_refunded(bill: Bill) -> list[StripeEvent]:
    paid = bill.attempt()
    return [
        paid.charge_succeeded(),
        paid.invoice_paid(),
        paid.refund("a", 1000, bill.at + DAY),
        paid.charge_refunded(1000, 0, bill.at + DAY),
        paid.refund("b", 500, bill.at + 2 * DAY),
        paid.charge_refunded(1500, 1000, bill.at + 2 * DAY),
    ]


def dispute_lost(bill: Bill) -> list[StripeEvent]:
    paid = bill.attempt()
    return [
        paid.charge_succeeded(),
        paid.invoice_paid(),
        paid.dispute("needs_response", bill.at + DAY),
        paid.dispute("lost", bill.at + 30 * DAY),
    ]


def dispute_won(bill: Bill) -> list[StripeEvent]:
    paid = bill.attempt()
    return [
        paid.charge_succeeded(),
        paid.invoice_paid(),
        paid.dispute("needs_response", bill.at + DAY),
        paid.dispute("won", bill.at + 30 * DAY),
    ]


STORIES: Sequence[Story] = (
    failed_once,
    failed_twice,
    failed_then_paid,
    paid_first_try,
    failed_then_voided,
    failed_then_written_off,
    refunded,
    partly_refunded,
    dispute_lost,
    dispute_won,
)


def orders(size: int, limit: int = ORDERS) -> list[list[int]]:
    """All orders of a short story, a sample of a long one; an index that comes again is the same fact told again."""
    dice = Random(20260302)
    every = [list(order) for order in permutations(range(size))]
    chosen = every if len(every) <= limit else [every[0], every[-1], *dice.sample(every, limit - 2)]
    for order in chosen[1:]:
        for _ in range(2):
            order.insert(dice.randrange(len(order) + 1), dice.randrange(size))
    return chosen


def tell(shop: Shop, events: Sequence[StripeEvent], order: Sequence[int]) -> None:
    """Deliver in this order, all after the last has happened; a repetition has an event id of its own."""
    shop.at = max(event.created for event in events) + timedelta(minutes=1)
    seen: set[int] = set()
    for index in order:
        shop.tell(events[index].again() if index in seen else events[index])
        seen.add(index)
    shop.wait(minutes=2)  # what came before its counterpart gets its next turn
    shop.process()


@pytest.mark.parametrize("version", [OLD, BASIL])
@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.__name__)
def test_every_order_of_the_same_events_ends_in_the_same_ledger(shop: Shop, story: Story, version: str) -> None:
    size, started, expected = len(story(shop.bill(version=version))), shop.at, None
    for order in orders(size):
        shop.at = started
        bill = shop.bill(version=version)
        events = story(bill)
        tell(shop, events, order)
        assert shop.waiting() == []
        expected = expected or shop.outcome(bill)
        assert shop.outcome(bill) == expected, [(events[index].type, events[index].created.day) for index in order]
        assert_chain(shop.invoice(bill))
    assert_next_steps(shop)
    assert_slots(shop)
    assert_totals(shop)
