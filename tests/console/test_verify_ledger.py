"""`verify_ledger`: silent over an honest ledger; chain, states and amounts are each held against the events."""

import pytest

from invoices.models import Attempt, Invoice, OutboxMessage
from providers.base import DisputeFacts, DisputeStatus, RefundFacts, RefundStatus
from recovery_site.console.verification import MUST_BE_ZERO, verify
from retries.services.manual import case_pause
from tests.console.tampering import found, rehash, tamper
from tests.console.world import World

# --- an honest ledger -----------------------------------------------------------------------------


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


# --- the chain ------------------------------------------------------------------------------------


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
    tamper(f"UPDATE invoices_event SET {change} WHERE invoice_id = %s AND kind = 'attempt.decline'", recovered.pk)  # noqa: S608
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


# --- states and amounts ---------------------------------------------------------------------------


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
    tamper(f"UPDATE {table} SET status = %s WHERE status <> 'DECLINED'", status)  # noqa: S608
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
    tamper(f"UPDATE invoices_event SET {change}")  # noqa: S608
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
