"""Expired cards are never chosen; a new expiry brings them, and what waits for them, back."""

from datetime import UTC, datetime, timedelta

import pytest

from invoices.models import Invoice
from providers.base import CardFacts, CustomerFacts, DeclineFacts, EventKind, InvoiceFacts, MethodFacts, PaymentFacts
from retries.models import RetryJob
from retries.services.manual import retry_now
from tests.console.world import World
from tests.tokens.history import Book
from tokens.models import Card
from tokens.selectors import TokenOption, card_expires_at, expiry_year, token_options

pytestmark = pytest.mark.django_db
TICK = timedelta(microseconds=1)


def options(invoice: Invoice, at: datetime) -> list[TokenOption]:
    return token_options(
        customer=invoice.customer,
        cards=list(Card.objects.all()),
        invoice_pk=invoice.pk,
        amount_minor=invoice.amount_minor,
        currency=invoice.currency,
        not_before=at,
    )


def fail(world: World, month: int, year: int) -> Invoice:
    """A failed charge with a card that is good until then."""
    facts = {"amount_minor": 4_990, "currency": "USD"}
    card = CardFacts(fingerprint="fp_tok_ok", network="visa", last4="4242", exp_month=month, exp_year=year)
    world.tell(
        EventKind.PAYMENT_FAILED,
        customer=CustomerFacts(id="cus_ann"),
        invoice=InvoiceFacts(id="in_1", issued_at=world.at, **facts),
        payment=PaymentFacts(
            charge_id="ch_1",
            payment_id="pi_1",
            invoice_id="in_1",
            method=MethodFacts(token="tok_ok", card=card),
            decline=DeclineFacts(raw_code="insufficient_funds"),
            **facts,
        ),
    )
    return world.get("in_1")


def renew(world: World, month: int, year: int, **more: bool) -> None:
    card = CardFacts(fingerprint="fp_tok_ok", network="visa", last4="4242", exp_month=month, exp_year=year)
    world.tell(
        EventKind.METHOD_UPDATED,
        customer=CustomerFacts(id="cus_ann"),
        method=MethodFacts(token="tok_ok", card=card, **more),
    )


@pytest.mark.parametrize(
    ("month", "year", "expires_at"),
    [
        (10, 2025, datetime(2025, 11, 1, tzinfo=UTC)),
        (12, 2025, datetime(2026, 1, 1, tzinfo=UTC)),
        (2, 28, datetime(2028, 3, 1, tzinfo=UTC)),
        (12, 9998, datetime(9999, 1, 1, tzinfo=UTC)),
        (12, 9999, None),
        (None, 2025, None),
        (10, None, None),
        (0, 2025, None),
        (13, 2025, None),
    ],
)
def test_a_card_ends_with_the_month_printed_on_it(month: int | None, year: int | None, expires_at: datetime | None):
    assert card_expires_at(Card(exp_month=month, exp_year=year)) == expires_at


def test_two_digit_years_are_of_this_century():
    assert [expiry_year(Card(exp_year=year)) for year in (0, 25, 99, 100, 2031)] == [2000, 2025, 2099, 100, 2031]


def test_the_obstacle_names_the_month():
    world = World()
    invoice = world.fail()
    Card.objects.update(exp_month=11, exp_year=2026)
    december = datetime(2026, 12, 1, tzinfo=UTC)
    assert [(one.usable, one.obstacle) for one in options(invoice, december - TICK)] == [(True, "")]
    assert [(one.usable, one.obstacle) for one in options(invoice, december)] == [(False, "expired in 11/2026")]
    Card.objects.update(wait_until=december)
    (blocked,) = options(invoice, december - TICK)
    assert (blocked.usable, blocked.obstacle) == (False, "expires in 11/2026, before it may be tried again")


def test_a_retry_is_not_booked_with_an_expired_card():
    world = World()
    invoice = fail(world, 10, 2026)
    case = world.case(invoice)
    assert (case.next_step, RetryJob.objects.filter(invoice=invoice).exists()) == ("customer", False)
    assert "expired in 10/2026" in case.why


def test_a_card_that_expires_while_its_retry_is_booked_is_not_charged():
    world = World()
    invoice = world.fail()
    Card.objects.update(exp_month=10, exp_year=2026)
    world.at = RetryJob.objects.get().due_at
    assert world.send() == []
    assert world.case(invoice).next_step == "customer"


def test_a_new_expiry_brings_the_card_and_what_waits_for_it_back():
    world = World()
    invoice = fail(world, 10, 2026)
    assert world.case(invoice).next_step == "customer"
    renew(world, 10, 2026)
    assert world.case(invoice).next_step == "customer", "the same date again is no news"
    renew(world, 10, 2026, updated=True)
    assert world.case(invoice).next_step == "customer", "an update that leaves it expired helps nobody"
    renew(world, 10, 2029)
    job = RetryJob.objects.get(invoice=invoice, status__in=("SCHEDULED", "QUEUED"))
    assert job.trigger == "card_update"
    assert [one.usable for one in options(invoice, world.at)] == [True]


def test_a_later_expiry_of_a_card_that_works_starts_nothing():
    world = World()
    invoice = world.fail()
    before = RetryJob.objects.get(invoice=invoice)
    renew(world, 1, 2031)
    after = RetryJob.objects.get(invoice=invoice)
    assert (after.due_at, after.trigger) == (before.due_at, "automatic")


def test_every_considered_token_stands_in_the_decision_with_its_reason():
    world = World()
    invoice = world.fail()
    world.add_token(invoice, "tok_old", last4="1111")
    Card.objects.filter(last4="1111").update(exp_month=1, exp_year=2026)
    assert world.send() == []
    job = RetryJob.objects.get()
    assert (job.status, job.token.provider_token) == ("SCHEDULED", "tok_ok")
    considered = job.decision["considered"]
    assert [(one["usable"], one["obstacle"]) for one in considered] == [(True, ""), (False, "expired in 01/2026")]
    assert [(one["chosen"], one["reason"]) for one in considered] == [(True, "chosen"), (False, "expired in 01/2026")]
    world.at = job.due_at
    (attempt,) = world.send()
    assert attempt.decision["considered"] == considered


def test_a_decision_of_staff_and_one_after_an_update_list_the_tokens_too():
    world = World()
    invoice = world.fail(code="expired_card")
    world.add_token(invoice, "tok_new", last4="1111")
    job = RetryJob.objects.get()
    reasons = [(one["chosen"], one["reason"]) for one in job.decision["considered"]]
    assert (job.trigger, reasons) == (
        "card_update",
        [(True, "chosen"), (False, "was declined for good (expired_card)")],
    )
    retry_now(invoice_pk=invoice.pk, stamp=world.stamp("user:1"), reason="customer called")
    job = RetryJob.objects.get()
    assert job.trigger == "staff"
    assert [(one["chosen"], one["reason"]) for one in job.decision["considered"]] == reasons


def test_twelve_tokens_are_twelve_reasons():
    world = World()
    invoice = world.fail()
    for number in range(11):
        world.add_token(invoice, f"tok_{number}", last4=f"{number:04d}")
    considered = RetryJob.objects.get().decision["considered"]
    assert len(considered) == 12
    assert sum(one["chosen"] for one in considered) == 1
    assert all(one["reason"] for one in considered)


def test_where_nothing_is_booked_the_tokens_stand_in_the_event():
    world = World()
    invoice = world.fail(code="expired_card")
    event = invoice.events.filter(kind="case.planned").latest("seq")
    assert event.data["step"] == "customer"
    assert [one["reason"] for one in event.data["considered"]] == ["was declined for good (expired_card)"]


def test_limits_that_end_after_the_deadline_are_told_once():
    world = World()
    invoice = world.fail(network="mastercard", code="do_not_honor")
    token = invoice.attempts.get().token
    earlier = [world.at - timedelta(days=number / 10) for number in range(1, 36)]
    Book.tries(world, token, invoice, earlier)  # type: ignore[arg-type]
    for _ in range(2):
        world.fail(invoice=invoice.provider_invoice_id, network="mastercard", code="do_not_honor")
        world.wait(hours=1)
    case = world.case(invoice)
    assert (case.next_step, "leaves no room before the deadline" in case.why) == ("customer", True)
    told = invoice.events.get(kind="alert.limits_exhausted")
    assert told.data["case"] == case.public_id
    (one,) = told.data["tokens"]
    assert one["reason"].endswith("mastercard max_retry_count_for_thirty_day: 35 per 30 days and card")
    assert invoice.events.filter(kind="alert.exhausted").count() == 1
    # A second card that is free: nothing is exhausted, and nobody is told so again.
    world.add_token(invoice, "tok_new", last4="1111")
    assert world.case(invoice).next_step == "booked"
