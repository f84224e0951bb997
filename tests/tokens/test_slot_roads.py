"""Every road on which a retry ends hands the customer's slot to the next invoice, in PostgreSQL and in Redis."""

from collections.abc import Callable
from datetime import timedelta

import pytest
import redis
from django.db.models.functions import Now

from invoices.models import Attempt, Invoice
from providers.base import EventKind, MethodFacts
from retries.engine.claim import jobs_claim
from retries.models import RetryJob
from retries.reconciliation import reconcile
from retries.services.manual import case_pause, invoice_cancel, retry_now
from tests.console.world import World
from tests.tokens.history import Book
from tokens.mirror.keys import CustomerKeys


@pytest.fixture
def world(transactional_db: None, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> World:
    made = World()
    monkeypatch.setattr("recovery_site.common.clock.now", lambda: made.at)
    return made


def keys(invoice: Invoice) -> CustomerKeys:
    return Book.keys(invoice, invoice.customer)  # type: ignore[arg-type]


def sent(world: World, invoice: Invoice) -> Attempt:
    world.at = max(world.at, RetryJob.objects.get(invoice=invoice, status="SCHEDULED").due_at)
    (attempt,) = world.send()
    assert attempt.invoice_id == invoice.pk
    return attempt


def succeeds(world: World, invoice: Invoice) -> None:
    world.answer(sent(world, invoice), "ok")


def is_flagged_as_fraud(world: World, invoice: Invoice) -> None:
    world.answer(sent(world, invoice), "fraudulent")


def runs_out_of_retries(world: World, invoice: Invoice) -> None:
    while RetryJob.objects.filter(invoice=invoice, status="SCHEDULED").exists():
        world.answer(sent(world, invoice), "insufficient_funds")


def is_lost_on_the_way(world: World, invoice: Invoice) -> None:
    world.answer(sent(world, invoice), "lost")


def waits_for_the_bank(world: World, invoice: Invoice) -> None:
    world.answer(sent(world, invoice), "pending")


def is_canceled(world: World, invoice: Invoice) -> None:
    invoice_cancel(invoice_pk=invoice.pk, stamp=world.stamp("user:1"), reason="given up")


def is_paid_outside(world: World, invoice: Invoice) -> None:
    world.pay(invoice)


def is_paused(world: World, invoice: Invoice) -> None:
    case_pause(invoice_pk=invoice.pk, stamp=world.stamp("user:1"), reason="customer asked")


def loses_its_card(world: World, invoice: Invoice) -> None:
    world.tell(EventKind.METHOD_REMOVED, method=MethodFacts(token="tok_ok"))


def loses_its_worker_while_sending(world: World, invoice: Invoice) -> None:
    attempt = sent(world, invoice)
    Attempt.objects.filter(pk=attempt.pk).update(lease_until=Now() - timedelta(hours=1))
    reconcile(now=world.at)


def is_overtaken_by_staff(world: World, invoice: Invoice) -> None:
    other = RetryJob.objects.get(status="QUEUED").invoice
    retry_now(invoice_pk=other.pk, stamp=world.stamp("user:1"), reason="customer called")


ROADS = [
    succeeds,
    is_flagged_as_fraud,
    runs_out_of_retries,
    is_lost_on_the_way,
    waits_for_the_bank,
    is_canceled,
    is_paid_outside,
    is_paused,
    loses_its_worker_while_sending,
    is_overtaken_by_staff,
]


@pytest.mark.parametrize("road", ROADS, ids=lambda road: road.__name__)
def test_the_next_invoice_gets_the_slot(
    world: World, redis_client: redis.Redis, road: Callable[[World, Invoice], None]
):
    first = world.fail(amount=90_000)
    # A card of its own: what happens to the first invoice's card shall not end the second one too.
    second = world.fail(amount=100, token="tok_other", fingerprint="fp_other")
    status = keys(first).status
    holder = first.transactions.get().public_id
    assert redis_client.get(status).decode().split(":")[0] == holder
    assert [RetryJob.objects.get(invoice=one).status for one in (first, second)] == ["SCHEDULED", "QUEUED"]
    road(world, first)
    assert RetryJob.objects.get(invoice=second).status == "SCHEDULED"
    assert RetryJob.objects.filter(invoice=first, status__in=("SCHEDULED", "RUNNING")).count() == 0
    assert redis_client.get(status).decode().split(":")[0] == second.transactions.get().public_id


def test_a_worker_that_died_before_its_charge_keeps_the_slot_for_the_same_invoice(
    world: World, redis_client: redis.Redis
):
    invoice = world.fail()
    world.at = RetryJob.objects.get().due_at
    lease = timedelta(minutes=5)
    (claim,) = jobs_claim(now=world.at, lease=lease, limit=5)
    assert jobs_claim(now=world.at, lease=lease, limit=5) == []
    RetryJob.objects.update(lease_until=Now() - timedelta(hours=1))
    (again,) = jobs_claim(now=world.at, lease=lease, limit=5)
    assert (again.job_pk, again.invoice_pk) == (claim.job_pk, invoice.pk)
    assert again.token != claim.token


def test_the_last_invoice_leaves_the_slot_free(world: World, redis_client: redis.Redis):
    invoice = world.fail()
    succeeds(world, invoice)
    assert redis_client.get(keys(invoice).status) is None
    assert RetryJob.objects.filter(status__in=("SCHEDULED", "RUNNING")).count() == 0


def test_a_removed_card_frees_the_slot_for_an_invoice_that_has_another(world: World, redis_client: redis.Redis):
    first = world.fail(amount=90_000)
    loses_its_card(world, first)
    assert RetryJob.objects.filter(status__in=("SCHEDULED", "RUNNING")).count() == 0
    assert redis_client.get(keys(first).status) is None
    assert world.case(first).next_step == "customer"
