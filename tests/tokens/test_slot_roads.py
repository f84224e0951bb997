"""Every road on which a retry ends hands the customer's slot to the next invoice, in PostgreSQL and in Redis."""

from collections.abc import Callable
from datetime import timedelta

import pytest
import redis
from django.db.models.functions import Now

from invoices.models import Attempt, Customer, Invoice
from providers.base import EventKind, MethodFacts
from recovery_site.common.errors import InvalidInput
from retries.engine.claim import jobs_claim
from retries.models import RetryJob
from retries.reconciliation import reconcile
from retries.services.manual import case_pause, invoice_cancel, retry_now
from tests.console.world import World
from tests.tokens.history import Book
from tokens.mirror.keys import CustomerKeys
from tokens.models import Token


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


def slot_jobs() -> list[str]:
    return list(
        RetryJob.objects.filter(status__in=("SCHEDULED", "RUNNING")).values_list("invoice__public_id", flat=True)
    )


def test_a_hard_decline_of_the_only_card_hands_the_slot_on_until_nobody_needs_it(
    world: World, redis_client: redis.Redis
):
    first = world.fail(amount=90_000)
    second = world.fail(amount=100)
    world.answer(sent(world, first), "stolen_card")
    assert (slot_jobs(), world.case(first).next_step) == ([second.public_id], "customer")
    assert redis_client.get(keys(first).status).decode().split(":")[0] == second.transactions.get().public_id
    # The card is dead for the second invoice as well, which step 2 finds out when its time comes.
    world.at = max(world.at, RetryJob.objects.get(invoice=second).due_at)
    assert (world.send(), slot_jobs(), world.case(second).next_step) == ([], [], "customer")
    assert redis_client.get(keys(first).status) is None


def past_its_deadline(world: World, invoice: Invoice) -> None:
    ends = world.case(invoice).next_step_at
    assert ends is not None
    world.at = ends


def test_the_end_of_the_grace_leaves_the_slot_to_the_other_invoice(world: World, redis_client: redis.Redis):
    first = world.fail(amount=90_000)
    runs_out_of_retries(world, first)
    assert world.case(first).next_step == "customer"
    past_its_deadline(world, first)
    second = world.fail(amount=100)
    assert slot_jobs() == [second.public_id]
    reconcile(now=world.at)
    assert (world.case(first).status, slot_jobs()) == ("LOST", [second.public_id])
    assert redis_client.get(keys(first).status).decode().split(":")[0] == second.transactions.get().public_id


@pytest.mark.parametrize("swept", [False, True])
def test_a_card_updated_past_the_deadline_is_tried_only_before_the_case_was_given_up(world: World, swept: bool):
    """The deadline gives a case up by a sweep: until then a new card is worth a try, afterwards nothing is charged."""
    invoice = world.fail(code="lost_card")
    assert world.case(invoice).next_step == "customer"
    past_its_deadline(world, invoice)
    if swept:
        reconcile(now=world.at)
    world.wait(hours=1)
    world.add_token(invoice, "tok_new", last4="1111")
    if swept:
        assert (world.case(invoice).status, slot_jobs()) == ("LOST", [])
        return
    job = RetryJob.objects.get(invoice=invoice, status="SCHEDULED")
    assert (world.case(invoice).status, job.trigger, job.due_at) == ("OPEN", "card_update", world.at)


def test_a_card_updated_past_the_deadline_that_must_wait_for_its_network_is_not_waited_for(world: World):
    invoice = world.fail(code="lost_card")
    past_its_deadline(world, invoice)
    # The new card has just been refused on somebody else's bill, and its network allows one try a day.
    world.fail(customer="cus_bob", token="tok_bob", fingerprint="shared", network="amex")
    world.add_token(invoice, "tok_new", fingerprint="shared", network="amex")
    assert (world.case(invoice).status, RetryJob.objects.filter(invoice=invoice, status="SCHEDULED").count()) == (
        "LOST",
        0,
    )


@pytest.mark.parametrize("name", ["{" * 200, "a:b}{c:" * 28, "\N{SNOWMAN}é" * 100, " " * 199 + "x"])
def test_any_customer_id_goes_through_planning_charging_and_redis(world: World, redis_client: redis.Redis, name: str):
    first, second = world.fail(customer=name, amount=90_000), world.fail(customer=name, amount=100)
    assert redis_client.get(keys(first).status).decode().split(":")[0] == first.transactions.get().public_id
    succeeds(world, first)
    assert slot_jobs() == [second.public_id]
    assert redis_client.get(keys(first).status).decode().split(":")[0] == second.transactions.get().public_id


def test_a_customer_id_of_500_characters_is_refused_as_a_whole(world: World):
    with pytest.raises(InvalidInput, match="1 to 200 characters"):
        world.fail(customer="c" * 500)
    assert (Invoice.objects.count(), Customer.objects.count(), Token.objects.count()) == (0, 0, 0)
