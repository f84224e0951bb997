"""Merchants who charge themselves: this service says when and with what, and never calls a provider."""

from datetime import timedelta

import pytest

from invoices.models import Attempt, Connection
from invoices.services.parties import connection_create
from invoices.states import ConnectionMode
from recovery_site.common.errors import Conflict
from retries.engine.claim import job_claim, jobs_due
from retries.engine.prepare import Refused, attempt_prepare
from retries.models import Case, RetryJob
from retries.reconciliation import reconcile
from retries.services.manual import retry_now
from tests.console.world import NOW, World

pytestmark = pytest.mark.django_db


@pytest.fixture
def world() -> World:
    made = World(provider="generic")
    Connection.objects.filter(pk=made.connection.pk).update(mode=ConnectionMode.SCHEDULE)
    made.connection = Connection.objects.get(pk=made.connection.pk)
    return made


def test_a_failure_is_planned_but_never_claimed(world: World) -> None:
    invoice = world.fail()
    job = RetryJob.objects.get()
    assert (job.status, world.case(invoice).next_step) == ("SCHEDULED", "booked")
    assert jobs_due(now=job.due_at + timedelta(days=1), limit=10) == []
    other = World(name="Charging")
    other.fail()
    assert len(jobs_due(now=job.due_at + timedelta(days=1), limit=10)) == 1


def test_a_claim_by_hand_is_refused_before_anything_is_sent(world: World) -> None:
    world.fail()
    job = RetryJob.objects.get()
    claim = job_claim(job.pk, lease=timedelta(minutes=5))
    assert claim is not None
    refused = attempt_prepare(claim, now=job.due_at, lease=timedelta(minutes=5), timeout=timedelta(seconds=5))
    assert isinstance(refused, Refused)
    assert refused.reason == "the merchant charges through this connection itself"
    assert Attempt.objects.count() == 1


def test_staff_cannot_charge_for_the_merchant(world: World) -> None:
    invoice = world.fail()
    with pytest.raises(Conflict, match="charges through this connection itself"):
        retry_now(invoice_pk=invoice.pk, stamp=world.stamp(), reason="x")


def test_tries_on_our_word_use_up_the_policy(world: World) -> None:
    """Two retries after insufficient funds: the second failure is the last that is planned for."""
    invoice = world.fail(invoice="in_1", charge="ch_1")
    told = [RetryJob.objects.get().due_at]
    for number in (2, 3):
        world.at = RetryJob.objects.get().due_at
        world.fail(invoice="in_1", charge=f"ch_{number}")
        told.append(RetryJob.objects.get().due_at)
    case = world.case(invoice)
    assert (case.status, case.next_step) == ("OPEN", "customer")
    assert RetryJob.objects.get().status == "CANCELED"
    attempts = list(Attempt.objects.order_by("id"))
    assert [attempt.origin for attempt in attempts] == ["OUTSIDE"] * 3
    assert ["job" in attempt.decision for attempt in attempts] == [False, True, True]
    assert told[1] > told[0]


def test_a_success_on_our_word_counts_as_our_retry(world: World) -> None:
    invoice = world.fail(invoice="in_1", charge="ch_1")
    world.wait(hours=25)
    world.pay(invoice, charge="ch_2")
    case = world.case(invoice)
    assert (case.status, case.recovered_by) == ("RECOVERED", "retry")


def test_a_plan_nobody_reported_on_is_told_again_until_the_horizon(world: World) -> None:
    invoice = world.fail()
    job = RetryJob.objects.get()
    world.at = job.due_at + timedelta(hours=23)
    reconcile(now=world.at)
    assert world.case(invoice).next_step_at == job.due_at
    world.at = job.due_at + timedelta(hours=25)
    reconcile(now=world.at)
    assert world.case(invoice).next_step_at == world.at
    world.at = NOW + timedelta(days=100)
    reconcile(now=world.at)
    assert Case.objects.get().status == "LOST"


def test_the_mode_is_offered_where_others_can_charge(world: World) -> None:
    made = connection_create(merchant=world.merchant, provider="stripe", config={"mode": "schedule"}, name="own")
    assert (made.mode, made.secrets_encrypted != "") == ("schedule", True)
