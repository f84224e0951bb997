"""`verify_ledger` on the promises: a real next step, slots that are used, one charge at once, no rule broken."""

from datetime import timedelta

import pytest
from django.db import connection

from invoices.models import Attempt, Invoice
from recovery_site.console.verification import verify
from tests.console.tampering import found, rehash, tamper
from tests.console.world import World
from tokens.models import ImportedMark

# --- promise 3 ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "step", ["queued", "sending", "awaiting", "resolving", "provider", "paused", "customer", "staff", "none"]
)
def test_a_next_step_with_nothing_behind_it_is_none(booked: Invoice, step: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute("ALTER TABLE retries_case DROP CONSTRAINT case_open_has_next_step")
    tamper("UPDATE retries_case SET next_step = %s, next_step_at = NULL", step)
    assert found() == {"open_invoice_without_next_step"}
    assert verify().must_be_zero["open_invoice_without_next_step"] == 1


def test_a_booked_retry_needs_its_job(booked: Invoice) -> None:
    tamper("UPDATE retries_retryjob SET status = 'CANCELED'")
    assert found() == {"open_invoice_without_next_step"}


def test_an_open_invoice_without_case_job_and_attempt_is_forgotten(booked: Invoice) -> None:
    tamper("UPDATE retries_retryjob SET status = 'CANCELED'")
    tamper("UPDATE retries_case SET status = 'LOST'")
    assert found() == {"open_invoice_without_next_step", "state_differs"}


def test_an_open_case_of_a_closed_invoice_is_found(recovered: Invoice) -> None:
    tamper("UPDATE retries_case SET status = 'OPEN', next_step = 'booked'")
    assert found() == {"case_of_closed_invoice", "state_differs"}


# --- slots ----------------------------------------------------------------------------------------


def test_a_slot_held_by_a_closed_invoice(world: World, recovered: Invoice) -> None:
    tamper("UPDATE retries_retryjob SET status = 'SCHEDULED'")
    assert found() == {"slot_without_owner"}


def test_a_running_job_whose_attempt_is_over(world: World, booked: Invoice) -> None:
    world.wait(hours=25)
    world.send()
    assert found() == set()
    tamper("UPDATE retries_retryjob SET attempt_id = (SELECT min(id) FROM invoices_attempt)")
    assert found() == {"slot_without_owner"}


def test_a_running_job_that_nobody_claimed(booked: Invoice) -> None:
    tamper("UPDATE retries_retryjob SET status = 'RUNNING', claim_token = NULL, lease_until = NULL")
    assert found() == {"slot_without_owner"}


def test_a_queue_behind_nobody(world: World, booked: Invoice) -> None:
    world.fail(amount=700)
    assert found() == set()
    tamper("UPDATE retries_retryjob SET status = 'CANCELED' WHERE status = 'SCHEDULED'")
    assert found() == {"slot_without_owner", "open_invoice_without_next_step"}


# --- promises 1 and 2 -----------------------------------------------------------------------------


def test_two_charges_at_once(world: World, booked: Invoice) -> None:
    second = world.fail(amount=700)
    world.wait(hours=25)
    (sending,) = world.send()
    with connection.cursor() as cursor:
        cursor.execute("DROP INDEX attempt_one_sending_per_customer")
        cursor.execute("DROP INDEX attempt_one_open_per_invoice")
    tamper(
        "UPDATE invoices_attempt SET status = 'SENDING', origin = 'OURS', idempotency_key = public_id"
        " WHERE invoice_id = %s",
        second.pk,
    )
    assert "two_charges_sending_for_one_customer" in found()
    assert "two_open_charges_of_one_invoice" not in found()
    tamper("UPDATE invoices_attempt SET invoice_id = %s WHERE invoice_id = %s", booked.pk, second.pk)
    assert "two_open_charges_of_one_invoice" in found()
    assert sending.status == "SENDING"


@pytest.fixture
def at_the_limit(world: World) -> Attempt:
    """Ten Mastercard declines within minutes, and our try after the day was over."""
    invoice = world.fail(network="mastercard", code="processing_error")
    for _ in range(9):
        world.wait(minutes=1)
        world.fail(invoice=invoice.provider_invoice_id or "", network="mastercard", code="processing_error")
    world.wait(hours=24)
    attempt = world.charge("insufficient_funds")
    assert found() == set()
    return attempt


def test_an_attempt_over_a_rule(at_the_limit: Attempt) -> None:
    early = at_the_limit.attempted_at - timedelta(hours=1)
    tamper("UPDATE invoices_attempt SET attempted_at = %s WHERE id = %s", early, at_the_limit.pk)
    (problem,) = verify().problems
    assert problem.problem == "attempts_over_a_rule"
    assert problem.detail == (
        f"Attempt {at_the_limit.public_id} was made when Mastercard's 10 declines in 24 hours were used up (10 of 10)."
    )


def test_an_attempt_on_the_very_instant_of_release_is_within_the_rule(at_the_limit: Attempt) -> None:
    first = Attempt.objects.order_by("id").first()
    assert first is not None
    release = first.attempted_at + timedelta(hours=24)
    tamper("UPDATE invoices_attempt SET attempted_at = %s WHERE id = %s", release, at_the_limit.pk)
    assert found() == set()


def test_what_a_provider_told_later_is_not_held_against_us(world: World, at_the_limit: Attempt) -> None:
    """The same tries, but written down after ours: nobody could know of them."""
    early = at_the_limit.attempted_at - timedelta(hours=1)
    tamper("UPDATE invoices_attempt SET attempted_at = %s WHERE id = %s", early, at_the_limit.pk)
    assert found() == {"attempts_over_a_rule"}
    tamper("UPDATE retries_retryjob SET attempt_id = NULL")
    tamper("UPDATE invoices_attempt SET id = -id, number = 0 WHERE id = %s", at_the_limit.pk)
    assert found() == set()


def test_imported_history_counts_from_its_import_on(world: World, booked: Invoice) -> None:
    """Fifteen tries that somebody else made: known before our attempt they forbid it, imported after it they do not."""
    world.wait(hours=25)
    ours = world.charge("insufficient_funds")
    assert ours.token is not None
    assert ours.card is not None
    ImportedMark.objects.create(
        merchant=world.merchant,
        card=ours.card,
        token=ours.token,
        at=ours.attempted_at - timedelta(days=2),
        count=15,
        source="old system",
    )
    tamper("UPDATE invoices_attempt SET created_at = now() - interval '1 hour'")
    assert found() == set()
    tamper("UPDATE tokens_importedmark SET created_at = now() - interval '2 hours'")
    assert found() == {"attempts_over_a_rule"}


def test_an_attempt_after_a_refusal_for_good(world: World, recovered: Invoice) -> None:
    ours = Attempt.objects.get(invoice=recovered, origin="OURS")
    early = ours.attempted_at - timedelta(hours=2)
    tamper("UPDATE tokens_token SET status = 'declined', declined_at = %s", early)
    assert found() == set(), "the decline that was learned was no hard one"
    tamper(
        "UPDATE invoices_event SET data = jsonb_set(data, '{category}', '\"HARD_DECLINE\"')"
        " WHERE kind = 'attempt.decline'"
    )
    rehash(recovered)
    (problem,) = verify().problems
    assert (problem.invoice, problem.problem) == (recovered.public_id, "attempts_after_hard_decline")
    assert ours.public_id in problem.detail
