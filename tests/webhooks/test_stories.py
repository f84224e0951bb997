"""What really happened, told by Stripe over HTTP in both of its shapes, in any order: one truth in the ledger."""

from collections.abc import Callable, Sequence
from datetime import timedelta
from itertools import permutations
from typing import Any

import pytest

from invoices.models import Attempt, Dispute, Invoice, Transaction
from retries.decisions import Plan
from retries.handler import invoices
from retries.models import Case, RetryJob
from retries.services import outcomes
from retries.services.planning import case_plan
from retries.states import NextStep
from tests.webhooks.door import Body, Door, faults, ledger, tokens
from tests.webhooks.renewal import BASIL, FAILED_AT, OLD, SHAPES, Renewal, moment
from tokens.models import Card

pytestmark = pytest.mark.django_db
NewDoor = Callable[..., Door]
both_shapes = pytest.mark.parametrize("shape", SHAPES)


def in_order(new_door: NewDoor, events: Sequence[Body], order: Sequence[int], seconds: int = 10) -> Door:
    """Deliver and process one by one, all `seconds` after the first charge."""
    door = new_door()
    door.tell(moment(seconds), *[events[index] for index in order])
    return door


# --- one failed charge, four events ---------------------------------------------------------------------------------


@both_shapes
@pytest.mark.parametrize(
    ("named_method", "told_by"), [(False, 4), (True, 3)], ids=["invoice names no card", "invoice names the card"]
)
def test_one_failed_charge_told_by_four_events_is_one_attempt_in_all_24_orders(
    new_door: NewDoor, shape: str, named_method: bool, told_by: int
) -> None:
    renewal = Renewal(shape, named_method=named_method)
    events = [renewal.charge_failed(), renewal.intent_failed(), renewal.invoice_failed(), renewal.past_due()]
    for order in permutations(range(told_by)):
        door = in_order(new_door, events, order)
        told = [events[index]["type"] for index in order]
        assert ledger(door.merchant) == [
            {
                "invoice": "in_1",
                "customer": "cus_northwind",
                "status": "PROCESSING",
                "amount": (4900, "EUR"),
                "paid": 0,
                "refunded": 0,
                "number": "NW-1",
                "subscription": "sub_northwind",
                "provider_retry_at": None,
                "attempts": [
                    (
                        "CHARGE",
                        "DECLINED",
                        "ch_1_1",
                        "pi_1",
                        4900,
                        "insufficient_funds",
                        "INSUFFICIENT_FUNDS",
                        "pm_northwind_1",
                    )
                ],
                "transactions": [("CHARGE", "RETRYING", 4900, "EUR")],
                "cases": [
                    (
                        *("OPEN", *(("INSUFFICIENT_FUNDS", "insufficient_funds") * 2)),
                        *(4900, 0, "", "", False, "booked", False),
                    )
                ],
                "jobs": [("SCHEDULED", "pm_northwind_1", "automatic")],
                "disputes": [],
                "reviews": [],
            }
        ], told
        job = RetryJob.objects.get(invoice=door.invoice(), status="SCHEDULED")
        # 24 hours after the charge; only its own event tells the very second.
        assert timedelta(hours=24) <= job.due_at - FAILED_AT <= timedelta(hours=24, seconds=3), told
        assert door.alerts() == ["alert.first_failure"], told
        assert faults(door.merchant) == []


@both_shapes
def test_an_immediate_retry_is_booked_alike_in_all_orders(new_door: NewDoor, shape: str) -> None:
    """Processing errors are tried again within minutes; waiting for the other half must not make that ten."""
    renewal = Renewal(shape)
    code = "processing_error"
    events = [renewal.charge_failed(code=code), renewal.intent_failed(code=code), renewal.invoice_failed()]
    due = set()
    for order in permutations(range(3)):
        door = in_order(new_door, events, order)
        due.add(RetryJob.objects.get(invoice=door.invoice(), status="SCHEDULED").due_at)
    assert max(due) - min(due) <= timedelta(seconds=3), sorted(due)


@both_shapes
def test_the_biller_s_own_next_try_is_known_in_all_orders(new_door: NewDoor, shape: str) -> None:
    renewal = Renewal(shape)
    events = [renewal.charge_failed(), renewal.intent_failed(), renewal.invoice_failed(next_try=259_200)]
    for order in permutations(range(3)):
        door = new_door(take_over=3)
        door.tell(moment(10), *[events[index] for index in order])
        assert door.invoice().provider_retry_at == moment(259_200), order
        case = door.case()
        assert (case.next_step, case.next_step_at) == ("provider", moment(259_200)), order
        assert not RetryJob.objects.filter(invoice=door.invoice(), status="SCHEDULED").exists(), order


def test_a_plan_is_made_once_for_what_several_events_tell(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """The invoice's own event plans anew only what it brings news of."""
    planned = list[NextStep]()

    def counted(*args: Any, **options: Any) -> Plan:
        plan = case_plan(*args, **options)
        planned.append(plan.step)
        return plan

    for place in (outcomes, invoices):
        monkeypatch.setattr(place, "case_plan", counted)
    renewal = Renewal(OLD, named_method=False)
    door.tell(moment(10), renewal.charge_failed(), renewal.invoice_failed())
    assert planned == [NextStep.BOOKED]
    door.tell(moment(11), renewal.invoice_failed(after=5, next_try=86_400))
    assert planned == [NextStep.BOOKED, door.case().next_step]
    assert door.invoice().provider_retry_at == moment(86_400)


@both_shapes
def test_two_failed_tries_are_two_attempts(new_door: NewDoor, shape: str) -> None:
    renewal = Renewal(shape)
    day = 86_400
    first = [renewal.charge_failed(), renewal.intent_failed(), renewal.invoice_failed()]
    second = [
        renewal.charge_failed(2, after=3 * day + 1, code="do_not_honor"),
        renewal.intent_failed(2, after=3 * day + 2, code="do_not_honor"),
        renewal.invoice_failed(2, after=3 * day + 3),
    ]
    for order in permutations(range(3)):
        door = in_order(new_door, first, order)
        door.tell(moment(3 * day + 10), *[second[index] for index in order])
        assert [attempt[2] for attempt in ledger(door.merchant)[0]["attempts"]] == ["ch_1_1", "ch_1_2"], order
        assert [case.code for case in Case.objects.filter(merchant=door.merchant)] == ["do_not_honor"], order
        assert faults(door.merchant) == []


# --- basil: nothing names the other side -----------------------------------------------------------------------------


def test_a_payment_born_invoice_is_named_by_the_word_that_joins(door: Door) -> None:
    """invoice_payment.* comes before the invoice's own events: the payment is known, its invoice gets its name."""
    renewal = Renewal(BASIL)
    door.tell(moment(10), renewal.charge_failed())
    assert door.invoice().provider_invoice_id is None
    door.tell(moment(11), renewal.payment_joined(kind="created"))
    assert door.invoice().provider_invoice_id == "in_1"
    door.tell(moment(12), renewal.invoice_failed())
    assert [one["invoice"] for one in ledger(door.merchant)] == ["in_1"]
    assert Attempt.objects.count() == 1
    assert faults(door.merchant) == []


def test_the_word_that_joins_waits_for_what_it_joins(door: Door) -> None:
    renewal = Renewal(BASIL)
    door.deliver(renewal.payment_joined(kind="created"), renewal.invoice_failed(), renewal.charge_failed())
    assert door.drain(moment(10)).as_dict() == {"processed": 3, "failed": 0, "ignored": 0}
    assert [one["invoice"] for one in ledger(door.merchant)] == ["in_1"]
    assert Attempt.objects.count() == 1


@pytest.mark.parametrize("order", list(permutations(range(3))), ids=str)
def test_the_join_holds_in_every_order(new_door: NewDoor, order: tuple[int, ...]) -> None:
    renewal = Renewal(BASIL)
    events = [renewal.payment_joined(kind="created"), renewal.invoice_failed(), renewal.charge_failed()]
    door = new_door()
    for index in order:
        door.deliver(events[index])
    door.drain(moment(10))
    (invoice,) = ledger(door.merchant)
    assert (invoice["invoice"], len(invoice["attempts"]), len(invoice["cases"])) == ("in_1", 1, 1)
    assert invoice["jobs"] == [("SCHEDULED", "pm_northwind_1", "automatic")]


def test_an_invoice_and_a_payment_join_by_customer_amount_and_time(door: Door) -> None:
    door.tell(moment(10), Renewal(BASIL).charge_failed(), Renewal(BASIL).invoice_failed(after=600))
    (invoice,) = ledger(door.merchant)
    assert (invoice["invoice"], len(invoice["attempts"])) == ("in_1", 1)


@pytest.mark.parametrize(
    ("other", "after"),
    [
        (Renewal(BASIL, customer="cus_other"), 3),
        (Renewal(BASIL, amount=4901), 3),
        (Renewal(BASIL), 2 * 3600),
    ],
    ids=["another customer", "another amount", "another time"],
)
def test_what_does_not_fit_is_not_joined(door: Door, other: Renewal, after: int) -> None:
    door.tell(moment(2 * 3600 + 10), Renewal(BASIL).charge_failed(), other.invoice_failed(after=after))
    invoices = [(one["invoice"], one["customer"], one["amount"][0]) for one in ledger(door.merchant)]
    assert sorted(invoices, key=repr) == sorted(
        [(None, "cus_northwind", 4900), ("in_1", other.customer, other.amount)], key=repr
    )
    assert faults(door.merchant) == []


def test_two_equal_renewals_of_one_customer_stay_two(new_door: NewDoor) -> None:
    """Same customer, amount and minute: two subscriptions. However they are told, two debts with one try each."""
    one, two = Renewal(BASIL, name="1"), Renewal(BASIL, name="2")
    orders = [
        [one.charge_failed(), two.charge_failed(), one.invoice_failed(), two.invoice_failed()],
        [one.charge_failed(), one.invoice_failed(), two.charge_failed(), two.invoice_failed()],
        [one.invoice_failed(), two.invoice_failed(), one.charge_failed(), two.charge_failed()],
        [one.invoice_failed(), two.invoice_failed(), two.charge_failed(), one.charge_failed()],
        [one.charge_failed(), two.invoice_failed(), two.charge_failed(), one.invoice_failed()],
    ]
    for events in orders:
        door = new_door()
        door.tell(moment(10), *events, one.payment_joined(kind="created"), two.payment_joined(kind="created"))
        open_ones = [invoice for invoice in ledger(door.merchant) if invoice["status"] != "CANCELED"]
        told = [f"{event['type']} {event['data']['object']['id']}" for event in events]
        assert sorted(invoice["invoice"] or "" for invoice in open_ones) == ["in_1", "in_2"], told
        assert sorted(attempt[2] for invoice in open_ones for attempt in invoice["attempts"]) == ["ch_1_1", "ch_2_1"]
        assert faults(door.merchant) == []


# --- paid -----------------------------------------------------------------------------------------------------------


@both_shapes
def test_a_payment_that_succeeds_later_settles_the_case_once_in_every_order(new_door: NewDoor, shape: str) -> None:
    renewal = Renewal(shape)
    hour = 3600
    events = [
        renewal.intent_succeeded(2, after=hour + 2),
        renewal.charge_succeeded(2, after=hour + 1),
        renewal.invoice_paid(2, after=hour + 3),
    ]
    for order in permutations(range(3)):
        door = in_order(new_door, [renewal.charge_failed(), renewal.invoice_failed()], range(2))
        door.tell(moment(hour + 10), *[events[index] for index in order])
        (invoice,) = ledger(door.merchant)
        assert (invoice["status"], invoice["paid"], invoice["jobs"], invoice["reviews"]) == ("SETTLED", 4900, [], [])
        assert [attempt[1:3] for attempt in invoice["attempts"]] == [
            ("DECLINED", "ch_1_1"),
            ("SUCCEEDED", "ch_1_2"),
        ], order
        assert [row[1] for row in invoice["transactions"]] == ["DONE"], order
        case = door.case()
        assert (case.status, case.recovered_minor, case.recovered_by) == ("RECOVERED", 4900, "provider"), order
        assert faults(door.merchant) == []


@both_shapes
def test_a_success_told_before_the_failure_stays_a_success(new_door: NewDoor, shape: str) -> None:
    renewal = Renewal(shape)
    failed = [renewal.charge_failed(), renewal.intent_failed(), renewal.invoice_failed()]
    paid = [renewal.charge_succeeded(2, after=3601), renewal.invoice_paid(2, after=3603)]
    for order in permutations(range(3)):
        door = in_order(new_door, paid, range(2), 3610)
        door.tell(moment(3620), *[failed[index] for index in order])
        (invoice,) = ledger(door.merchant)
        assert (invoice["status"], invoice["paid"], invoice["jobs"]) == ("SETTLED", 4900, []), order
        assert not Case.objects.filter(merchant=door.merchant, status="OPEN").exists(), order
        assert faults(door.merchant) == []


@both_shapes
def test_an_invoice_marked_as_paid_outside_stripe_is_paid(door: Door, shape: str) -> None:
    renewal = Renewal(shape)
    door.tell(moment(10), renewal.charge_failed(), renewal.invoice_failed())
    paid = renewal.invoice_paid(1, after=100)
    paid["data"]["object"] |= {"amount_paid": 0, "charge": None, "payment_intent": None, "paid_out_of_band": True}
    door.tell(moment(110), paid)
    (invoice,) = ledger(door.merchant)
    assert (invoice["status"], invoice["paid"], invoice["jobs"]) == ("SETTLED", 4900, [])
    assert door.case().status == "RECOVERED"


# --- refunds --------------------------------------------------------------------------------------------------------


@both_shapes
def test_one_refund_told_by_three_events_counts_once_in_every_order(new_door: NewDoor, shape: str) -> None:
    renewal = Renewal(shape)
    events = [
        renewal.charge_refunded(1, total=1900, after=300),
        renewal.refund(1, "refund.created", "pending", amount=1900, after=301),
        renewal.refund(1, "refund.updated", "succeeded", amount=1900, after=302),
    ]
    for order in permutations(range(3)):
        door = in_order(new_door, [renewal.charge_succeeded(), renewal.invoice_paid()], range(2))
        door.tell(moment(310), *[events[index] for index in order])
        (invoice,) = ledger(door.merchant)
        assert (invoice["status"], invoice["paid"], invoice["refunded"]) == ("SETTLED", 4900, 1900), order
        refunds = [attempt[:5] for attempt in invoice["attempts"] if attempt[0] == "REFUND"]
        assert refunds == [("REFUND", "SUCCEEDED", "re_1", "pi_1", 1900)], order
        assert faults(door.merchant) == []


@both_shapes
def test_two_refunds_of_the_same_amount_are_two(door: Door, shape: str) -> None:
    renewal = Renewal(shape)
    door.tell(
        moment(310),
        renewal.charge_succeeded(),
        renewal.invoice_paid(),
        renewal.charge_refunded(1, total=1000, after=300),
        renewal.refund(1, "refund.created", "succeeded", amount=1000, refund="re_1", after=301),
        renewal.refund(1, "refund.created", "succeeded", amount=1000, refund="re_2", after=305),
        renewal.charge_refunded(1, total=2000, before=1000, after=304),
    )
    (invoice,) = ledger(door.merchant)
    assert (invoice["status"], invoice["refunded"]) == ("SETTLED", 2000)
    assert [attempt[2] for attempt in invoice["attempts"] if attempt[0] == "REFUND"] == ["re_1", "re_2"]


@both_shapes
def test_a_full_refund_and_its_failure(door: Door, shape: str) -> None:
    renewal = Renewal(shape)
    door.tell(moment(310), renewal.charge_succeeded(), renewal.invoice_paid())
    door.tell(moment(310), renewal.refund(1, "refund.created", "succeeded", amount=4900))
    assert (door.invoice().status, door.invoice().refunded_minor) == ("REFUNDED", 4900)
    door.tell(moment(410), renewal.refund(1, "refund.failed", "failed", amount=4900, after=400))
    assert (door.invoice().status, door.invoice().refunded_minor) == ("SETTLED", 0)
    assert "alert.refund_failed" in door.alerts()
    assert faults(door.merchant) == []


# --- the end --------------------------------------------------------------------------------------------------------


@both_shapes
def test_a_voided_invoice_is_not_charged_any_more(new_door: NewDoor, shape: str) -> None:
    renewal = Renewal(shape)
    events = [renewal.charge_failed(), renewal.invoice_failed(), renewal.invoice_voided()]
    for order in permutations(range(3)):
        door = in_order(new_door, events, order, 110)
        open_jobs = RetryJob.objects.filter(merchant=door.merchant, status__in=("SCHEDULED", "QUEUED", "PAUSED"))
        named = Invoice.objects.filter(merchant=door.merchant, provider_invoice_id="in_1")
        if order.index(2) > 0:  # told first it is of an invoice that nobody knows
            assert (named.get().status, named.get().cancel_reason) == ("CANCELED", "canceled"), order
            assert not open_jobs.exists(), order
        assert faults(door.merchant) == []


@both_shapes
def test_the_end_of_a_subscription_ends_its_retries_and_no_others(new_door: NewDoor, shape: str) -> None:
    renewal = Renewal(shape)
    events = [renewal.charge_failed(), renewal.intent_failed(), renewal.invoice_failed()]
    for order in permutations(range(3)):
        door = in_order(new_door, events, order)
        other = Renewal(shape, name="other", customer="cus_other", token="pm_other")
        door.tell(moment(20), other.charge_failed(), other.invoice_failed())
        door.tell(moment(110), renewal.subscription_deleted())
        states = Invoice.objects.filter(merchant=door.merchant).values_list(
            "provider_invoice_id", "status", "cancel_reason"
        )
        assert set(states) == {("in_1", "CANCELED", "subscription_ended"), ("in_other", "PROCESSING", "")}, order
        jobs = RetryJob.objects.filter(merchant=door.merchant, status__in=("SCHEDULED", "QUEUED"))
        assert list(jobs.values_list("invoice__provider_invoice_id", flat=True)) == ["in_other"], order
        assert faults(door.merchant) == []


@both_shapes
def test_a_payment_after_the_end_is_recorded_and_asked_about(door: Door, shape: str) -> None:
    renewal = Renewal(shape)
    door.tell(moment(110), renewal.charge_failed(), renewal.invoice_failed(), renewal.invoice_voided())
    door.tell(moment(210), renewal.charge_succeeded(2, after=200))
    invoice = Invoice.objects.get(merchant=door.merchant, status="CANCELED")
    assert (invoice.paid_minor, "alert.paid_after_cancel" in door.alerts()) == (4900, True)


# --- disputes -------------------------------------------------------------------------------------------------------


@both_shapes
@pytest.mark.parametrize("end", ["won", "lost"])
def test_a_dispute_is_one_row_from_beginning_to_end(door: Door, shape: str, end: str) -> None:
    renewal = Renewal(shape)
    door.tell(moment(400), renewal.charge_succeeded(), renewal.invoice_paid())
    door.tell(moment(510), renewal.dispute(1, "created", "needs_response"))
    (dispute,) = Dispute.objects.filter(merchant=door.merchant)
    assert (dispute.status, dispute.kind, dispute.amount_minor, dispute.reason_code) == (
        "OPEN",
        "DISPUTE",
        4900,
        "13.2",
    )
    assert door.invoice().status == "SETTLED"
    door.tell(moment(620), renewal.dispute(1, "updated", "under_review", after=550))
    door.tell(moment(620), renewal.dispute(1, "closed", end, after=600))
    (dispute,) = Dispute.objects.filter(merchant=door.merchant)
    invoice = door.invoice()
    if end == "won":
        assert (dispute.status, invoice.status, invoice.paid_minor) == ("WON", "SETTLED", 4900)
        assert not Case.objects.filter(merchant=door.merchant).exists()
    else:
        assert (dispute.status, invoice.status, invoice.paid_minor) == ("LOST", "PROCESS_FAILED", 0)
        case = door.case()
        assert (case.status, case.automatic_barred, case.next_step) == ("OPEN", True, "customer")
        assert not RetryJob.objects.filter(merchant=door.merchant).exists()
    assert faults(door.merchant) == []


@both_shapes
def test_a_dispute_told_before_its_payment_waits_for_it(door: Door, shape: str) -> None:
    renewal = Renewal(shape)
    door.deliver(renewal.dispute(1, "created", "needs_response"), renewal.charge_succeeded(), renewal.invoice_paid())
    assert door.drain(moment(510)).as_dict() == {"processed": 3, "failed": 0, "ignored": 0}
    assert Dispute.objects.filter(merchant=door.merchant).count() == 1


@both_shapes
def test_a_dispute_of_a_payment_that_never_succeeded_breaks_nothing(door: Door, shape: str) -> None:
    """Nothing was paid, so nothing can be taken back; the ledger's totals must agree on that."""
    renewal = Renewal(shape)
    door.tell(moment(610), renewal.charge_failed(), renewal.invoice_failed())
    door.tell(moment(610), renewal.dispute(1, "closed", "lost", after=600))
    assert [status for _, status, _ in door.inbox()] == ["PROCESSED"] * 3
    assert door.invoice().paid_minor == 0
    assert faults(door.merchant) == []


# --- payment methods ------------------------------------------------------------------------------------------------


def test_late_news_of_an_old_card_says_nothing_about_its_replacement(new_door: NewDoor) -> None:
    """The old card is reported as lost, the network has replaced it: in whatever order that is told, the payment method
    is alive with its new card, which is to be tried, and old and new share one budget."""
    renewal = Renewal(BASIL)
    events = [renewal.charge_failed(code="lost_card"), renewal.card_replaced(after=200), renewal.invoice_failed()]
    for order in permutations(range(3)):
        door = in_order(new_door, events, order, 210)
        told = [events[index]["type"] for index in order]
        assert tokens(door.merchant) == [("pm_northwind_1", "live", False, "9999", 2031)], told
        job = RetryJob.objects.get(merchant=door.merchant, status="SCHEDULED")
        assert (job.token.provider_token if job.token else None, job.due_at) == ("pm_northwind_1", moment(210)), told
        cards = Card.objects.filter(merchant=door.merchant)
        assert {"0341", "9999"} <= set(cards.values_list("last4", flat=True)), told
        assert cards.values("budget_group").distinct().count() == 1, told
        attempt = Attempt.objects.get(merchant=door.merchant)
        assert attempt.card is not None
        assert attempt.card.last4 == "0341", told
        assert faults(door.merchant) == []


def test_a_new_card_that_is_refused_for_good_stays_so_when_old_news_comes(door: Door) -> None:
    renewal = Renewal(BASIL)
    door.tell(moment(210), renewal.charge_failed(code="lost_card"), renewal.invoice_failed())
    door.tell(moment(210), renewal.card_replaced(after=200))
    refused = renewal.charge_failed(2, after=300, code="lost_card")
    refused["data"]["object"]["payment_method_details"]["card"] |= {
        "fingerprint": "fp_new",
        "last4": "9999",
        "exp_year": 2031,
    }
    door.tell(moment(310), refused)
    dead = [("pm_northwind_1", "declined", False, "9999", 2031)]
    assert tokens(door.merchant) == dead
    door.tell(moment(320), renewal.intent_failed(1, code="lost_card"))
    assert tokens(door.merchant) == dead
    assert not RetryJob.objects.filter(merchant=door.merchant, status__in=("SCHEDULED", "QUEUED")).exists()


def test_nothing_about_anybody_s_money_is_made_up(door: Door) -> None:
    """Events about methods and customers alone open no invoice, no transaction and no case."""
    from tests.contract.stripe_fixtures import load

    door.tell(
        moment(60),
        load("2025-10-29.clover/payment_method.attached.json"),
        load("2025-10-29.clover/customer.updated-email.json") | {"id": "evt_other"},
        load("2025-10-29.clover/customer.subscription.updated.json") | {"id": "evt_third"},
    )
    assert [status for _, status, _ in door.inbox()] == ["PROCESSED", "IGNORED", "IGNORED"]
    assert len(tokens(door.merchant)) == 1
    assert (Invoice.objects.count(), Transaction.objects.count(), Case.objects.count()) == (0, 0, 0)
