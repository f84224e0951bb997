"""What neither side names (Stripe from basil on) and what may happen while the two halves of a debt are joined: it is
booked and charged once, and what people have decided of it holds."""

import threading
import time
from collections.abc import Callable
from datetime import timedelta
from itertools import permutations
from random import Random
from typing import Any

import pytest
from django.db import connection
from django.db.models import Sum
from django.db.models.functions import Now

from accounts.models import Membership, Merchant, User
from invoices.models import Attempt, Invoice, ReviewItem
from invoices.services.billing import SUPERSEDED
from invoices.services.casework import invoice_assign
from invoices.services.ledger import Stamp
from invoices.services.parties import connection_create
from providers.base import (
    CardFacts,
    CustomerFacts,
    DeclineFacts,
    EventKind,
    InvoiceFacts,
    MethodFacts,
    PaymentEvent,
    PaymentFacts,
)
from retries.handler import event_handle
from retries.models import Case
from retries.services.manual import case_pause, invoice_cancel
from tests.support.fixtures import new_shop as new_shop
from tests.support.fixtures import sandbox as sandbox
from tests.support.fixtures import shop as shop
from tests.support.shop import Shop
from tests.support.stripe import BASIL as VERSION
from tests.webhooks.door import Body, Door, door_open, faults
from tests.webhooks.renewal import BASIL, FAILED_AT, Renewal, moment
from webhooks.models import InboxEvent
from webhooks.services import draining, inbox_drain

pytestmark = pytest.mark.django_db
NewDoor = Callable[..., Door]
DAY = 86_400


def booked(door: Door) -> int:
    paid: int = Invoice.objects.filter(merchant=door.merchant).aggregate(paid=Sum("paid_minor"))["paid"]
    return paid


def owed(door: Door) -> list[tuple[str | None, str]]:
    """(name, status) of the rows that stand for something."""
    rows = Invoice.objects.filter(merchant=door.merchant).exclude(cancel_reason=SUPERSEDED)
    return list(rows.values_list("provider_invoice_id", "status"))


# --- at the same time -------------------------------------------------------------------------------------------------


def beside(monkeypatch: pytest.MonkeyPatch, door: Door, first: Body, second: Body) -> None:
    """One worker has applied `first` and not committed it yet when another one takes `second`."""
    apply, began = draining.event_apply, threading.Event()

    def slowly(**known: Any) -> Any:
        handled = apply(**known)
        if known["event"].event_id == first["id"]:
            began.set()
            time.sleep(0.3)
        return handled

    def drain() -> None:
        try:
            inbox_drain(now=moment(5 * DAY + 60))
        finally:
            connection.close()

    monkeypatch.setattr(draining, "event_apply", slowly)
    workers = [threading.Thread(target=drain) for _ in range(2)]
    door.deliver(first)
    workers[0].start()
    assert began.wait(20)
    door.deliver(second)
    workers[1].start()
    for worker in workers:
        worker.join(60)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("known", ["invoice", "customer"])
@pytest.mark.parametrize("swapped", [False, True])
def test_two_workers_that_hear_of_one_payment_book_it_once(
    monkeypatch: pytest.MonkeyPatch, known: str, swapped: bool
) -> None:
    door = door_open(Merchant.objects.create(name="Halves"))
    renewal = Renewal(BASIL)
    before = renewal.invoice_failed() if known == "invoice" else Renewal(BASIL, name="9", amount=700).invoice_failed()
    door.tell(moment(60), before)
    told = [renewal.invoice_paid(3, after=5 * DAY + 1), renewal.charge_succeeded(3, after=5 * DAY)]
    beside(monkeypatch, door, told[swapped], told[not swapped])
    for _ in range(3):
        door.drain(moment(5 * DAY + 60))
    assert booked(door) == 4900
    assert ("in_1", "SETTLED") in owed(door)
    assert faults(door.merchant) == []


@pytest.mark.parametrize("with_failure", [False, True])
def test_the_word_that_joins_may_come_in_one_batch_with_what_it_joins(new_door: NewDoor, with_failure: bool) -> None:
    for order in permutations(range(3)):
        door, renewal = new_door(), Renewal(BASIL)
        door.tell(moment(60), renewal.invoice_failed())
        paid = renewal.charge_succeeded(3, after=5 * DAY)
        joined = renewal.payment_joined(after=5 * DAY)
        third = renewal.charge_failed(2, after=3 * DAY) if with_failure else renewal.invoice_paid(3, after=5 * DAY + 1)
        events = [paid, joined, third]
        door.deliver(*[events[index] for index in order])
        for _ in range(4):
            door.drain(moment(5 * DAY + 60))
        assert (booked(door), owed(door)) == (4900, [("in_1", "SETTLED")]), order
        assert faults(door.merchant) == []


def test_of_two_equal_debts_that_failed_the_one_that_is_paid_counts_as_paid(new_door: NewDoor) -> None:
    """Both are told within seconds and in any order, so that names may be dealt out wrongly at first. A person is asked
    where the biller's word was booked for one and the payment for the other before anything told them apart."""
    silent = 0
    for seed in range(40):
        dice, door = Random(seed), new_door()
        one, two = Renewal(BASIL, "1"), Renewal(BASIL, "2")
        first = [one.charge_failed(), one.invoice_failed(), two.charge_failed(after=2), two.invoice_failed(after=5)]
        second = [one.charge_succeeded(2, after=3 * DAY), one.invoice_paid(2, after=3 * DAY + 2)]
        second.append(one.payment_joined(after=3 * DAY + 3))
        for now, events in ((60, first), (3 * DAY + 60, second)):
            dice.shuffle(events)
            door.tell(moment(now), *events)
        for _ in range(4):
            InboxEvent.objects.filter(endpoint=door.endpoint, status="RECEIVED").update(due_at=Now())
            door.drain(moment(3 * DAY + 60))
        told = (seed, [(event["type"], event["data"]["object"]["id"]) for event in first + second])
        ends = dict(owed(door))
        assert (ends.keys(), ends["in_1"]) == ({"in_1", "in_2"}, "SETTLED"), told
        asked = ReviewItem.objects.filter(invoice__provider_invoice_id="in_2", invoice__merchant=door.merchant)
        assert (ends["in_2"], booked(door), asked.count()) in (("PROCESSING", 4900, 0), ("SETTLED", 9800, 1)), told
        silent += ends["in_2"] == "PROCESSING"
        assert faults(door.merchant) == []
    assert silent > 30, "most need nobody"


def test_an_event_that_names_a_paid_invoice_has_done_something(door: Door) -> None:
    """Its failure is known and over, but whose it was is not."""
    renewal = Renewal(BASIL)
    door.tell(moment(60), renewal.charge_failed(), renewal.charge_succeeded(2, after=30), renewal.invoice_failed())
    assert owed(door) == [("in_1", "SETTLED")]
    assert [(status, reason) for _, status, reason in door.inbox()] == [("PROCESSED", "")] * 3


# --- what goes on -----------------------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_what_people_have_decided_of_the_row_that_ends_holds_for_the_other(shop: Shop) -> None:
    bill = shop.bill("tok_ok", version=VERSION)
    shop.tell(bill.attempt(shop.at).invoice_failed())
    ann = User.objects.create_user("ann")
    Membership.objects.create(merchant=shop.merchant, user=ann, role="support")
    invoice_assign(invoice_pk=shop.invoice(bill).pk, user_pk=ann.pk, stamp=shop.staff())
    case_pause(invoice_pk=shop.invoice(bill).pk, stamp=shop.staff(), reason="customer asked")
    first = shop.invoice(bill).pk
    opened_at = Case.objects.get(invoice=first).opened_at
    shop.wait(days=3)
    again = bill.attempt(shop.at)
    shop.tell(again.charge_failed(), again.invoice_failed())
    assert shop.invoice(bill).pk != first
    case = Case.objects.get(invoice=shop.invoice(bill), status="OPEN")
    assert (case.next_step, case.opened_at, shop.invoice(bill).assignee) == ("paused", opened_at, ann)
    shop.wait(days=3)
    shop.drain()
    assert shop.charged(bill) == 0
    assert faults(shop.merchant) == []


@pytest.mark.django_db(transaction=True)
def test_our_own_failed_try_moves_with_the_debt_which_is_charged_once(shop: Shop) -> None:
    bill = shop.bill("tok_decline_insufficient_funds", version=VERSION)
    shop.tell(bill.attempt(shop.at).invoice_failed(default_payment_method=bill.token))
    shop.wait(seconds=5)
    shop.tell(bill.method_attached(shop.at))
    shop.retry(bill)
    ours = Attempt.objects.get(origin="OURS")
    assert ours.status == "DECLINED"
    shop.wait(days=2)
    again = bill.attempt(shop.at)
    shop.tell(again.charge_failed(), again.intent_failed(), again.invoice_failed())
    ours.refresh_from_db()
    assert ours.invoice == shop.invoice(bill)
    other = shop.bill("tok_ok", customer=bill.customer, version=VERSION)
    shop.wait(minutes=1)
    shop.tell(other.method_attached(shop.at))
    for _ in range(8):
        shop.wait(days=1)
        shop.drain()
    assert shop.charged(bill) == bill.amount
    assert faults(shop.merchant) == []


@pytest.mark.django_db(transaction=True)
def test_what_we_have_charged_ourselves_is_nobody_else_s_payment(shop: Shop) -> None:
    """Of two equal debts we charge one, and the biller calls the other one paid."""
    ours = shop.bill("tok_ok", version=VERSION)
    theirs = shop.bill("tok_ok", customer=ours.customer, version=VERSION)
    for bill in (ours, theirs):
        tried = bill.attempt(shop.at)
        shop.tell(tried.charge_failed(), tried.invoice_failed())
        shop.wait(hours=3)
    shop.retry(ours)
    sent = Attempt.objects.get(origin="OURS")
    assert (sent.status, sent.invoice) == ("SUCCEEDED", shop.invoice(ours))
    shop.tell(ours.attempt(shop.at, reference=sent.public_id, charge=sent.provider_id).charge_succeeded())
    shop.tell(theirs.attempt(shop.at).invoice_paid())
    assert [shop.invoice(bill).status for bill in (ours, theirs)] == ["SETTLED", "SETTLED"]
    sent.refresh_from_db()
    assert (sent.invoice, "guessed" in sent.decision) == (shop.invoice(ours), False)
    assert faults(shop.merchant) == []


@pytest.mark.django_db(transaction=True)
def test_of_a_payment_in_part_the_rest_is_booked_with_the_biller_s_word(shop: Shop) -> None:
    bill = shop.bill("tok_ok", version=VERSION)
    shop.tell(bill.attempt(shop.at).invoice_failed())
    shop.wait(days=2)
    part = bill.attempt(shop.at, captured=bill.amount - 1000)
    shop.tell(part.charge_succeeded(), part.invoice_paid())
    assert (shop.invoice(bill).status, shop.invoice(bill).paid_minor) == ("SETTLED", bill.amount)
    shop.wait(days=1)
    shop.drain()
    assert shop.charged(bill) == 0
    assert faults(shop.merchant) == []


def test_a_payment_of_what_staff_had_canceled_is_asked_about(door: Door) -> None:
    renewal = Renewal(BASIL)
    door.tell(moment(60), renewal.invoice_failed())
    stamp = Stamp(actor="user:1", cause="test", now=moment(3600))
    invoice_cancel(invoice_pk=door.invoice().pk, stamp=stamp, reason="given up")
    paid = [renewal.charge_succeeded(3, after=5 * DAY), renewal.invoice_paid(3, after=5 * DAY + 1)]
    door.tell(moment(5 * DAY + 60), *paid)
    assert booked(door) == 4900
    assert [item.kind for item in ReviewItem.objects.filter(merchant=door.merchant)] == ["paid_after_cancel"]
    assert faults(door.merchant) == []


def test_a_payment_soon_after_a_failed_try_does_not_hide_it(door: Door) -> None:
    renewal = Renewal(BASIL)
    door.tell(
        moment(3 * DAY + 3600),
        renewal.invoice_failed(),
        renewal.charge_succeeded(3, after=3 * DAY + 1800),
        renewal.invoice_failed(2, after=3 * DAY + 2),
        renewal.invoice_paid(2, after=3 * DAY + 1801),
    )
    assert owed(door) == [("in_1", "SETTLED")]
    tries = Attempt.objects.filter(invoice__provider_invoice_id="in_1").order_by("attempted_at")
    assert [(one.status, one.counts) for one in tries] == [("DECLINED", True), ("DECLINED", True), ("SUCCEEDED", True)]
    assert faults(door.merchant) == []


def test_news_of_the_invoice_that_a_payment_s_event_brings_is_planned_on() -> None:
    """The invoice's own event, which tells the same, finds no news any more."""
    merchant = Merchant.objects.create(name="Both in one")
    config = {"api_key": "sk_test_x", "mode": "charge", "take_over": 3}
    account = connection_create(merchant=merchant, provider="stripe", config=config)
    card = CardFacts(fingerprint="fp", network="visa", last4="4242", exp_month=12, exp_year=2030)
    payment = PaymentFacts(
        charge_id="ch_1",
        payment_id="pi_1",
        amount_minor=4900,
        currency="EUR",
        invoice_id="in_1",
        method=MethodFacts(token="pm_1", card=card),
        decline=DeclineFacts(raw_code="insufficient_funds"),
        occurred_at=FAILED_AT,
    )
    again_at = FAILED_AT + timedelta(days=3)
    told = [
        (EventKind.PAYMENT_FAILED, payment, None),
        (EventKind.PAYMENT_FAILED, payment, again_at),
        (EventKind.INVOICE_FAILED, None, again_at),
    ]
    for number, (kind, tried, next_retry_at) in enumerate(told):
        at = FAILED_AT + timedelta(seconds=number)
        facts = InvoiceFacts(id="in_1", amount_minor=4900, currency="EUR", attempt_count=1, next_retry_at=next_retry_at)
        event = PaymentEvent(
            kind=kind,
            provider="stripe",
            event_id=f"evt_{number}",
            event_type=kind.value,
            occurred_at=at,
            customer=CustomerFacts(id="cus_1"),
            payment=tried,
            invoice=facts,
        )
        event_handle(event=event, connection=account, cause="test", now=at)
    case = Case.objects.get(merchant=merchant)
    assert (case.next_step, case.next_step_at) == ("provider", again_at)
