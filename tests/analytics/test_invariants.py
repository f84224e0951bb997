"""The must-be-zero board: zero over honest histories, not zero once a promise is broken behind the services."""

from datetime import timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from analytics.period import Period, period_of
from analytics.selectors.invariants import LIMIT, NAMES, breaches, must_be_zero
from invoices.models import Attempt, Invoice, ReviewItem
from retries.models import Case, RetryJob
from tests.analytics.history import month
from tests.console.world import World


def period(world: World, days: int = 30) -> Period:
    return period_of(days, world.at, ZoneInfo("UTC"))


def slip(world: World, like: Attempt, *, after: timedelta, **changes: Any) -> Attempt:
    """An attempt of ours that no rule allowed, declined like the one before it: written around the services."""
    number = Attempt.objects.count() + 1
    fields = {
        name: getattr(like, name)
        for name in (
            "merchant",
            "connection",
            "customer",
            "invoice",
            "transaction",
            "card",
            "token",
            "amount_minor",
            "currency",
        )
    }
    made = Attempt.objects.create(
        **{
            **fields,
            "origin": "OURS",
            "trigger": "automatic",
            "number": number,
            "idempotency_key": f"slip-{number}",
            "attempted_at": like.attempted_at + after,
            **changes,
        }
    )
    Attempt.objects.filter(pk=made.pk).update(status="DECLINED", category="SOFT_DECLINE", finished_at=made.attempted_at)
    return Attempt.objects.get(pk=made.pk)


def test_a_month_of_honest_work_breaks_no_promise(world: World) -> None:
    month(world, until=world.at, days=12, per_day=3)
    assert Attempt.objects.filter(origin="OURS").count() >= 10
    board = must_be_zero(world.merchant, period(world))
    assert {broken.definition.key: broken.count for broken in board} == dict.fromkeys(NAMES, 0)


def test_retry_after_a_hard_decline_is_found(world: World) -> None:
    invoice = world.fail(code="expired_card")
    declined = invoice.attempts.get()
    world.wait(days=1)
    slip(world, declined, after=timedelta(hours=3))
    assert breaches("after_hard_decline", world.merchant, period(world)) == [invoice.pk]


@pytest.mark.parametrize("changes", [{"trigger": "staff"}, {"trigger": "customer"}, {"trigger": "card_update"}])
def test_a_person_or_a_new_card_may_try_after_a_hard_decline(world: World, changes: dict[str, Any]) -> None:
    invoice = world.fail(code="expired_card")
    world.wait(days=1)
    allowed = slip(world, invoice.attempts.get(), after=timedelta(hours=3), **changes)
    assert breaches("after_hard_decline", world.merchant, period(world)) == []
    slip(world, allowed, after=timedelta(hours=3))
    assert breaches("after_hard_decline", world.merchant, period(world)) == []  # revived by the one before


def test_another_token_may_be_tried_after_a_hard_decline(world: World) -> None:
    invoice = world.fail(code="expired_card")
    world.add_token(invoice, "tok_other", last4="1111")
    world.wait(hours=1)
    world.charge("ok")
    assert breaches("after_hard_decline", world.merchant, period(world)) == []


def test_the_sixteenth_visa_attempt_on_an_amount_in_thirty_days_is_found(world: World) -> None:
    invoice = world.fail(code="do_not_honor", network="visa")
    first = invoice.attempts.get()
    world.wait(days=29)
    for hours in range(1, 15):
        slip(world, first, after=timedelta(hours=hours))
    assert breaches("over_network_rule", world.merchant, period(world)) == []  # 15 declines, none of them the 16th
    world.wait(days=2)
    slip(world, first, after=timedelta(days=30) - timedelta(microseconds=1))
    assert breaches("over_network_rule", world.merchant, period(world, 90)) == [invoice.pk]


def test_the_window_ends_at_its_very_instant(world: World) -> None:
    invoice = world.fail(code="do_not_honor", network="visa")
    first = invoice.attempts.get()
    for hours in range(1, 15):
        slip(world, first, after=timedelta(hours=hours))
    world.wait(days=31)
    slip(world, first, after=timedelta(days=30))  # the first has just left the window: 14 are in it
    assert breaches("over_network_rule", world.merchant, period(world, 90)) == []


def test_another_amount_has_its_own_visa_budget(world: World) -> None:
    invoice = world.fail(code="do_not_honor", network="visa")
    first = invoice.attempts.get()
    for hours in range(1, 15):
        slip(world, first, after=timedelta(hours=hours))
    slip(world, first, after=timedelta(hours=20), amount_minor=first.amount_minor + 1)
    world.wait(days=2)
    assert breaches("over_network_rule", world.merchant, period(world)) == []
    slip(world, first, after=timedelta(hours=21))
    assert breaches("over_network_rule", world.merchant, period(world)) == [invoice.pk]


def test_mastercard_counts_all_amounts_of_a_card_within_a_day(world: World) -> None:
    invoice = world.fail(code="do_not_honor", network="mastercard")
    first = invoice.attempts.get()
    for minutes in range(1, 10):
        slip(world, first, after=timedelta(minutes=minutes), amount_minor=100 + minutes)
    world.wait(days=2)
    assert breaches("over_network_rule", world.merchant, period(world)) == []
    slip(world, first, after=timedelta(hours=1), amount_minor=77)
    assert breaches("over_network_rule", world.merchant, period(world)) == [invoice.pk]


def test_tries_of_others_use_up_a_limit_but_do_not_break_it(world: World) -> None:
    invoice = world.fail(code="do_not_honor", network="mastercard")
    first = invoice.attempts.get()
    for minutes in range(1, 13):
        slip(world, first, after=timedelta(minutes=minutes), origin="PROVIDER", idempotency_key=None)
    world.wait(days=2)
    assert breaches("over_network_rule", world.merchant, period(world)) == []
    slip(world, first, after=timedelta(hours=1))
    assert breaches("over_network_rule", world.merchant, period(world)) == [invoice.pk]


def test_attempts_that_never_reached_the_network_use_nothing_up(world: World) -> None:
    invoice = world.fail(code="do_not_honor", network="mastercard")
    first = invoice.attempts.get()
    for minutes in range(1, 13):
        slip(world, first, after=timedelta(minutes=minutes), counts=False)
    world.wait(days=2)
    slip(world, first, after=timedelta(hours=1))
    assert breaches("over_network_rule", world.merchant, period(world)) == []


def test_money_beyond_the_amount_is_found_until_it_is_given_back(world: World) -> None:
    invoice = world.fail(amount=1_000)
    world.pay(invoice)
    assert breaches("paid_beyond_amount", world.merchant, period(world)) == []
    world.pay(invoice)
    assert breaches("paid_beyond_amount", world.merchant, period(world)) == [invoice.pk]
    Invoice.objects.filter(pk=invoice.pk).update(refunded_minor=1_000)
    assert breaches("paid_beyond_amount", world.merchant, period(world)) == []


def test_booked_case_without_its_job_is_found(world: World) -> None:
    invoice = world.fail()
    assert breaches("without_next_step", world.merchant, period(world)) == []
    RetryJob.objects.filter(invoice=invoice).update(status="CANCELED")
    assert breaches("without_next_step", world.merchant, period(world)) == [invoice.pk]


def test_staff_case_without_a_question_is_found(world: World) -> None:
    invoice = world.fail()
    Case.objects.filter(invoice=invoice).update(next_step="staff")
    assert breaches("without_next_step", world.merchant, period(world)) == [invoice.pk]
    ReviewItem.objects.create(
        merchant=world.merchant,
        invoice=invoice,
        subject_type="invoice",
        subject_id=invoice.public_id,
        kind="no_plan",
        opened_at=world.at,
    )
    assert breaches("without_next_step", world.merchant, period(world)) == []


@pytest.mark.parametrize("step", ["queued", "sending", "awaiting", "resolving", "paused"])
def test_step_with_nothing_behind_it_is_found(world: World, step: str) -> None:
    invoice = world.fail()
    Case.objects.filter(invoice=invoice).update(next_step=step)
    assert breaches("without_next_step", world.merchant, period(world)) == [invoice.pk]


def test_processing_invoice_that_nothing_works_on_is_found(world: World) -> None:
    invoice = world.fail()
    assert world.again(invoice).status == "PROCESSING"
    Case.objects.filter(invoice=invoice).update(status="LOST", next_step="none")
    RetryJob.objects.filter(invoice=invoice).update(status="CANCELED")
    assert breaches("without_next_step", world.merchant, period(world)) == []  # its transaction is still open
    invoice.transactions.update(status="FAILED")
    assert breaches("without_next_step", world.merchant, period(world)) == [invoice.pk]


def test_board_shows_only_the_merchants_own_faults(world: World) -> None:
    other = World(name="Other", at=world.at)
    RetryJob.objects.filter(invoice=other.fail()).update(status="CANCELED")
    board = {broken.definition.key: broken.count for broken in must_be_zero(world.merchant, period(world))}
    assert board["without_next_step"] == 0


def test_board_is_one_bounded_query_per_promise(world: World) -> None:
    with CaptureQueriesContext(connection) as queries:
        must_be_zero(world.merchant, period(world))
    assert len(queries) == len(NAMES)
    assert all(f"LIMIT {LIMIT + 1}" in query["sql"] for query in queries)
