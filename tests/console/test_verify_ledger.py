"""`verify_ledger`: silent over an honest ledger, and each check speaks up when its one thing is wrong."""

import json
from collections.abc import Callable
from datetime import timedelta
from io import StringIO
from typing import Any

import pgtrigger
import pytest
from django.core.management import call_command
from django.db import connection

from invoices.chain import Link, link_hash
from invoices.models import Attempt, Event, Invoice, OutboxMessage
from providers.base import DisputeFacts, DisputeStatus, RefundFacts, RefundStatus
from recovery_site.console.verification import MUST_BE_ZERO, verify
from retries.services.manual import case_pause
from tests.console.world import World
from tokens.models import ImportedMark


def tamper(sql: str, *parameters: object) -> None:
    """Change rows behind the triggers' back, as somebody with the database's password could."""
    with pgtrigger.ignore(), connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        assert cursor.rowcount != 0, "the tampering changed nothing, so the test would prove nothing"


def rehash(invoice: Invoice) -> None:
    """Write the chain anew after an event was changed: what remains is what only the replay can find."""
    previous = ""
    for event in Event.objects.filter(invoice=invoice).order_by("seq"):
        link = Link(
            invoice=invoice.public_id,
            seq=event.seq,
            subject_type=event.subject_type,
            subject_id=event.subject_id,
            kind=event.kind,
            from_state=event.from_state,
            to_state=event.to_state,
            actor=event.actor,
            cause=event.cause,
            data=event.data,
            occurred_at=event.occurred_at,
        )
        previous = link_hash(previous, link)
        tamper("UPDATE invoices_event SET hash = %s WHERE id = %s", previous, event.pk)
    tamper("UPDATE invoices_invoice SET last_hash = %s WHERE id = %s", previous, invoice.pk)


def found() -> set[str]:
    return {problem.problem for problem in verify().problems}


@pytest.fixture
def recovered(world: World) -> Invoice:
    """Declined, retried by us, paid."""
    invoice = world.fail()
    world.wait(hours=25)
    world.charge("ok")
    assert found() == set()
    return world.again(invoice)


@pytest.fixture
def booked(world: World) -> Invoice:
    """Declined, its retry booked."""
    invoice = world.fail()
    assert found() == set()
    return invoice


# --- an honest ledger ----------------------------------------------------------------------------------------------


def test_every_kind_of_history_is_clean(world: World) -> None:
    recovered = world.fail(customer="cus_a", token="tok_a")
    unknown = world.fail(customer="cus_b", token="tok_b")
    waiting = world.fail(customer="cus_c", token="tok_c", code="card_declined")
    behind = world.fail(customer="cus_a", token="tok_a", amount=900)
    paused = world.fail(customer="cus_d", token="tok_d")
    case_pause(invoice_pk=paused.pk, stamp=world.stamp("user:1"), reason="asked to wait")
    world.wait(hours=25)
    answers = {recovered.pk: "ok", unknown.pk: "lost"}
    for attempt in world.send():
        world.answer(attempt, answers[attempt.invoice_id])
    world.pay(recovered)
    charge = Attempt.objects.get(invoice=recovered, origin="OURS")
    world.refund(
        RefundFacts(
            id="re_1",
            amount_minor=1_000,
            currency="USD",
            status=RefundStatus.SUCCEEDED,
            charge_id=charge.provider_id or "",
        )
    )
    states = {one.pk: one.status for one in Invoice.objects.all()}
    assert states == {
        recovered.pk: "SETTLED",
        unknown.pk: "PROCESSING",
        waiting.pk: "PROCESS_FAILED",
        behind.pk: "PROCESSING",
        paused.pk: "PROCESSING",
    }
    report = verify()
    assert report.problems == ()
    assert (report.ok, report.invoices) == (True, 5)
    assert report.must_be_zero == dict.fromkeys(MUST_BE_ZERO, 0)


def test_a_lost_dispute_is_clean_and_takes_its_money_off_the_total(world: World, recovered: Invoice) -> None:
    charge = Attempt.objects.get(invoice=recovered, origin="OURS")
    world.wait(days=20)
    dispute = DisputeFacts(
        id="dp_1",
        amount_minor=4_990,
        currency="USD",
        status=DisputeStatus.LOST,
        charge_id=charge.provider_id or "",
        reason_code="fraudulent",
    )
    world.dispute("", dispute)
    assert world.again(recovered).paid_minor == 0
    assert verify().problems == ()
    tamper("UPDATE invoices_dispute SET status = 'WON'")
    assert found() == {"state_differs", "paid_differs"}


def test_a_payment_that_came_twice_is_clean_while_somebody_was_asked(world: World, recovered: Invoice) -> None:
    world.pay(recovered)
    assert verify().problems == ()
    tamper("UPDATE invoices_reviewitem SET resolved_at = now(), resolution = 'keep'")
    assert verify().problems == ()
    tamper("DELETE FROM invoices_reviewitem")
    assert found() == {"paid_beyond_the_amount"}


# --- the chain -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        "data = '{}'",
        "actor = 'user:1'",
        "cause = 'nothing'",
        "occurred_at = occurred_at - interval '1 second'",
        "kind = 'attempt.succeed'",
    ],
)
def test_a_changed_event_breaks_the_chain(recovered: Invoice, change: str) -> None:
    tamper(f"UPDATE invoices_event SET {change} WHERE invoice_id = %s AND kind = 'attempt.decline'", recovered.pk)
    assert "chain_broken" in found()


def test_a_missing_event_leaves_a_gap(recovered: Invoice) -> None:
    OutboxMessage.objects.all().delete()
    tamper("DELETE FROM invoices_event WHERE invoice_id = %s AND kind = 'alert.first_failure'", recovered.pk)
    assert found() == {"gap_in_events"}


def test_a_cut_off_end_is_noticed_by_the_invoice_itself(recovered: Invoice) -> None:
    OutboxMessage.objects.all().delete()
    tamper("DELETE FROM invoices_event WHERE invoice_id = %s AND seq = %s", recovered.pk, recovered.last_seq)
    assert "head_differs" in found()


def test_a_head_that_points_elsewhere_is_noticed(recovered: Invoice) -> None:
    tamper("UPDATE invoices_invoice SET last_hash = repeat('0', 64)")
    assert found() == {"head_differs"}


# --- states and amounts ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "status"),
    [
        ("invoices_invoice", "REFUNDED"),
        ("invoices_transaction", "CANCELED"),
        ("invoices_attempt", "ERRORED"),
        ("retries_case", "LOST"),
    ],
)
def test_a_row_that_stands_elsewhere_than_its_events_lead(recovered: Invoice, table: str, status: str) -> None:
    tamper(f"UPDATE {table} SET status = %s WHERE status <> 'DECLINED'", status)
    assert "state_differs" in found()


def test_a_row_without_a_word_in_the_events(recovered: Invoice) -> None:
    OutboxMessage.objects.all().delete()
    tamper("DELETE FROM invoices_event WHERE kind = 'transaction.created'")
    tamper("UPDATE invoices_event SET to_state = '' WHERE subject_type = 'transaction'")
    details = [one.detail for one in verify().problems if one.problem == "state_differs"]
    assert any("its events lead to nothing" in detail for detail in details)


def test_a_deleted_row_is_missed(recovered: Invoice) -> None:
    tamper("DELETE FROM retries_retryjob")
    tamper("DELETE FROM retries_case")
    assert "row_missing" in found()


@pytest.mark.parametrize(
    "change",
    [
        "from_state = 'AWAITING' WHERE kind = 'attempt.succeed'",
        "to_state = 'ERRORED' WHERE kind = 'attempt.decline'",
        "to_state = 'DONE' WHERE kind = 'transaction.created'",
        "kind = 'invoice.reverse' WHERE kind = 'invoice.settle'",
        "to_state = 'OPEN' WHERE kind = 'case.closed'",
    ],
)
def test_an_illegal_move_is_found_even_when_the_chain_was_written_anew(recovered: Invoice, change: str) -> None:
    tamper(f"UPDATE invoices_event SET {change}")
    rehash(recovered)
    names = found()
    assert "chain_broken" not in names
    assert "illegal_move" in names


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ("invoices_invoice SET paid_minor = paid_minor - 1", "paid_differs"),
        ("invoices_invoice SET refunded_minor = 1", "refunded_differs"),
        ("invoices_invoice SET amount_minor = amount_minor + 1", "amount_differs"),
        ("invoices_invoice SET currency = 'EUR'", "amount_differs"),
        ("invoices_attempt SET captured_minor = 1 WHERE status = 'SUCCEEDED'", "captured_differs"),
        ("invoices_transaction SET captured_minor = 1", "captured_differs"),
        ("invoices_attempt SET number = 7 WHERE number = 1", "attempt_numbers"),
    ],
)
def test_amounts_are_held_against_events_and_transactions(recovered: Invoice, change: str, problem: str) -> None:
    tamper(f"UPDATE {change}")
    assert problem in found()


# --- promise 3 -------------------------------------------------------------------------------------------------------


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


# --- slots -----------------------------------------------------------------------------------------------------------


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


# --- promises 1 and 2 ------------------------------------------------------------------------------------------------


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


# --- the command -------------------------------------------------------------------------------------------------------


def run(*arguments: str) -> tuple[int, str, str]:
    out, err = StringIO(), StringIO()
    code = 0
    try:
        call_command("verify_ledger", *arguments, stdout=out, stderr=err)
    except SystemExit as stop:
        code = int(stop.code or 0)
    return code, out.getvalue(), err.getvalue()


def test_the_command_prints_one_object_and_ends_well(recovered: Invoice) -> None:
    code, out, err = run("--json")
    assert code == 0
    assert json.loads(out) == {
        "ok": True,
        "invoices": 1,
        "problems": [],
        "problems_total": 0,
        "must_be_zero": dict.fromkeys(MUST_BE_ZERO, 0),
    }
    assert err == "1 invoices checked ...\n"


def test_the_command_fails_and_says_what_differs(recovered: Invoice) -> None:
    tamper("UPDATE invoices_invoice SET paid_minor = 1")
    code, out, err = run("--json")
    answer: dict[str, Any] = json.loads(out)
    assert code == 1
    assert answer["ok"] is False
    assert answer["problems"] == [
        {
            "invoice": recovered.public_id,
            "problem": "paid_differs",
            "detail": "paid_minor is 1, the transactions say 4990.",
        }
    ]
    assert err.endswith("breaks a promise: 1 problems, 1 invoices.\n")


def test_the_command_for_people(recovered: Invoice) -> None:
    assert run()[1].startswith("1 invoices checked: all is well.\n")


def test_one_merchant_alone(recovered: Invoice) -> None:
    other = World(name="Other")
    other.fail()
    tamper("UPDATE invoices_invoice SET paid_minor = 1 WHERE id = %s", recovered.pk)
    assert run("--merchant", "Other")[0] == 0
    code, out, _ = run("--merchant", "Acme", "--json")
    assert (code, json.loads(out)["invoices"]) == (1, 1)


def test_queries_do_not_grow_with_invoices(
    world: World, django_assert_max_num_queries: Callable[..., Any]
) -> None:
    for number in range(12):
        world.fail(customer=f"cus_{number}", token=f"tok_{number}")
    with django_assert_max_num_queries(24):
        assert verify().invoices == 12


@pytest.mark.django_db(transaction=True)
def test_a_snapshot_is_one_instant_and_read_only() -> None:
    from recovery_site.console.verification import snapshot

    with snapshot(), connection.cursor() as cursor:
        cursor.execute("SHOW transaction_isolation")
        assert cursor.fetchone() == ("repeatable read",)
        cursor.execute("SHOW transaction_read_only")
        assert cursor.fetchone() == ("on",)
