"""One bill that fails twice and is paid then: however the events of it come, the ledger ends alike."""

from collections.abc import Callable
from itertools import permutations, product
from random import Random

import pytest
from django.db.models import Q
from django.db.models.functions import Now

from invoices.models import Attempt, Event, Invoice
from invoices.services.billing import SUPERSEDED
from tests.webhooks.door import Body, Door, faults, ledger
from tests.webhooks.renewal import BASIL, OLD, SHAPES, Renewal, moment
from webhooks.models import InboxEvent

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
@pytest.mark.parametrize(
    ("shape", "linked"), [(OLD, True), (BASIL, True), (BASIL, False)], ids=["old", "basil", "bare"]
)
def test_they_may_be_told_in_any_order_at_all(new_door: NewDoor, shape: str, linked: bool, code: str) -> None:
    """Where neither side names the other, with or without the word that joins them, what is told of the two halves
    comes together in one row, and no money is booked on both."""
    events = [event for burst in _two_tries_and_a_payment(shape, code) for event in burst]
    events = [event for event in events if linked or not event["type"].startswith("invoice_payment")]
    ends = {}
    for order in Random(code).sample(list(permutations(range(len(events)))), 25):
        door = new_door()
        for index in order:
            _tell_with_what_waits(door, events[index])
        assert faults(door.merchant) == []
        ends[repr(_standing(door))] = order
    assert len(ends) == 1, ends


def _tell_with_what_waits(door: Door, event: Body) -> None:
    """Those that wait for another event are due again before the next one comes."""
    now = moment(5 * 86_400 + 60)
    door.tell(now, event)
    InboxEvent.objects.filter(endpoint=door.endpoint, status="RECEIVED").update(due_at=Now())
    door.drain(now)


def _standing(door: Door) -> list[Body]:
    """The ledger without the rows whose place another one took."""
    gone = Invoice.objects.filter(merchant=door.merchant, cancel_reason=SUPERSEDED)
    assert not gone.filter(Q(paid_minor__gt=0) | ~Q(status="CANCELED") | Q(provider_invoice_id__isnull=False)).exists()
    assert not Attempt.objects.filter(invoice__in=gone, provider_id__isnull=False).exists()
    return [one for one in ledger(door.merchant) if one["invoice"] is not None]


def test_a_payment_that_both_halves_tell_of_is_booked_once(door: Door) -> None:
    """The biller's word of it comes for a row that knows no payment, and its own for one that knows no invoice."""
    renewal, day = Renewal(BASIL), 86_400
    door.tell(
        moment(5 * day + 60),
        renewal.invoice_failed(2, after=3 * day),
        renewal.charge_succeeded(3, after=5 * day),
        renewal.invoice_paid(3, after=5 * day + 1),
    )
    (paid,) = Invoice.objects.filter(merchant=door.merchant, paid_minor__gt=0)
    assert (paid.provider_invoice_id, paid.status, paid.paid_minor) == ("in_1", "SETTLED", 4900)
    assert [(one.status, one.recovered_minor) for one in paid.cases.all()] == [("RECOVERED", 4900)]
    assert faults(door.merchant) == []


def test_a_try_moves_to_the_row_that_stays_and_the_biller_s_word_of_it_makes_room(door: Door) -> None:
    renewal, day = Renewal(BASIL, named_method=True), 86_400
    door.tell(
        moment(5 * day + 60),
        renewal.invoice_failed(),
        renewal.invoice_paid(3, after=5 * day + 1),
        renewal.charge_failed(2, after=3 * day, code="do_not_honor"),
        renewal.invoice_failed(2, after=3 * day + 2),
    )
    lone = Attempt.objects.get(merchant=door.merchant, provider_id="ch_1_2")
    born, word = lone.invoice, Attempt.objects.get(merchant=door.merchant, number=3, provider_id=None)
    assert (born.provider_invoice_id, word.invoice.provider_invoice_id) == (None, "in_1")
    door.tell(moment(5 * day + 60), renewal.charge_succeeded(3, after=5 * day))
    lone.refresh_from_db()
    word.refresh_from_db()
    assert (lone.invoice.provider_invoice_id, lone.counts, lone.decision["biller_number"]) == ("in_1", True, 2)
    assert (word.invoice, word.counts) == (born, False), "no network has seen a second one"
    paths = Event.objects.filter(kind__in=("attempt.left", "attempt.came")).order_by("id")
    assert list(paths.values_list("kind", "subject_id", "invoice__provider_invoice_id")) == [
        ("attempt.left", lone.public_id, None),
        ("attempt.came", lone.public_id, "in_1"),
        ("attempt.left", word.public_id, "in_1"),
        ("attempt.came", word.public_id, None),
    ]
    assert faults(door.merchant) == []


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
