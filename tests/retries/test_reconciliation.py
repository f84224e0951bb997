"""Promise 3: whatever got stuck is found, and nothing is ever charged by looking for it."""

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.db.models import Q

from invoices.models import Attempt, Connection, Invoice, ReviewItem
from invoices.services.parties import connection_switch
from retries.engine.claim import jobs_claim
from retries.models import Case, RetryJob
from retries.policy import preset_document
from retries.reconciliation import reconcile, sweep
from retries.services.answers import review_answer
from retries.services.cases import policy_version_create
from tests.support.books import assert_chain, assert_next_steps, assert_promises, assert_slots
from tests.support.sandbox import Sandbox, sandbox_running
from tests.support.shop import Shop
from tests.support.stripe import Bill

pytestmark = pytest.mark.django_db(transaction=True)
DAY = timedelta(days=1)


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[Sandbox]:
    """A provider of the test's own: the reverse scan reads everything that its server has ever charged."""
    with sandbox_running(tmp_path) as running:
        yield running


def force(rows: Any, **values: Any) -> None:
    """A row that no service would leave behind: a crash of the past, a hand in the database."""
    assert rows.update(**values) == 1


# --- steps --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("claimed", ["booked", "queued", "sending", "awaiting", "resolving", "paused", "staff"])
def test_a_next_step_that_no_row_carries_is_planned_anew(shop: Shop, claimed: str) -> None:
    bill = shop.failed_bill()
    job = shop.job(bill)
    job.cancel()
    job.save()
    force(Case.objects.filter(pk=shop.case(bill).pk), next_step=claimed, next_step_at=None)
    assert shop.reconcile().steps_repaired == 1
    assert shop.case(bill).next_step == "booked"
    assert shop.job(bill).status == "SCHEDULED"
    assert_next_steps(shop)
    assert shop.reconcile().steps_repaired == 0


def test_a_real_next_step_is_left_alone(shop: Shop) -> None:
    booked, paused = shop.failed_bill(), shop.failed_bill()
    queued = shop.failed_bill(customer=booked.customer)
    waiting = shop.failed_bill(code="lost_card")
    shop.pause(paused)
    before = {bill.id: shop.invoice(bill).last_seq for bill in (booked, paused, queued, waiting)}
    counts = shop.reconcile()
    assert (counts.steps_repaired, counts.deadlines, counts.slots_released, counts.errors) == (0, 0, 0, 0)
    assert {bill.id: shop.invoice(bill).last_seq for bill in (booked, paused, queued, waiting)} == before


@pytest.mark.parametrize(
    ("answer", "status", "case_status"),
    [
        ("recover", "PROCESSING", "OPEN"),
        ("paid", "SETTLED", "CANCELED"),
        ("cancel", "CANCELED", "CANCELED"),
        ("write_off", "CANCELED", "CANCELED"),
    ],
)
def test_an_open_invoice_without_a_plan_is_put_before_staff_once(
    shop: Shop, answer: str, status: str, case_status: str
) -> None:
    """Each answer ends the asking: the invoice is closed, or has a case with a next step."""
    bill = shop.failed_bill()
    case, job = shop.case(bill), shop.job(bill)
    job.cancel()
    job.save()
    force(Case.objects.filter(pk=case.pk), status="CANCELED", next_step="none")
    shop.reconcile()
    shop.reconcile()
    assert shop.reviews(bill) == ["no_plan"]
    item = ReviewItem.objects.get(invoice=shop.invoice(bill))
    assert item.choices == ["recover", "paid", "cancel", "write_off"]
    review_answer(item_pk=item.pk, answer=answer, stamp=shop.staff(), note="looked at it")
    assert (shop.invoice(bill).status, shop.case(bill).status) == (status, case_status)
    shop.reconcile()
    assert shop.reviews(bill) == []
    assert_next_steps(shop)
    if answer == "recover":
        assert shop.retry(bill).succeeded == 1


def test_reconciliation_starts_no_charge(shop: Shop) -> None:
    bill = shop.failed_bill()
    shop.wait(days=5)
    shop.reconcile()
    assert (shop.sandbox.charges(bill.customer), shop.job(bill).status) == ([], "SCHEDULED")


def test_the_command_does_it_too_and_what_counts_as_stuck_is_a_setting(
    shop: Shop, settings: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    settings.RECONCILE_ORDER_STUCK_AFTER = timedelta(hours=2)
    bill = shop.failed_bill()
    shop.sandbox.script(bill.token, "timeout_before", "ok")
    assert shop.retry(bill).unknown == 1
    shop.expire_leases()

    def resent(**gap: float) -> int:
        call_command("reconcile", "--once", "--json", f"--at={shop.wait(**gap).isoformat()}")
        found: int = json.loads(capsys.readouterr().out)["charges"]["resent"]
        return found

    assert (resent(minutes=119), shop.attempt(bill).status) == (0, "UNKNOWN")
    assert (resent(minutes=1), shop.invoice(bill).status) == (1, "SETTLED")


# --- slots --------------------------------------------------------------------------------------------------------


def test_a_slot_without_an_owner_is_given_away(shop: Shop) -> None:
    first = shop.failed_bill()
    second = shop.failed_bill(customer=first.customer)
    force(RetryJob.objects.filter(pk=shop.job(first).pk), status="CANCELED")
    force(Case.objects.filter(pk=shop.case(first).pk), status="LOST", next_step="none")
    force(Invoice.objects.filter(pk=shop.invoice(first).pk), status="PROCESS_FAILED")
    assert (shop.job(second).status, shop.case(second).next_step) == ("QUEUED", "queued")
    assert shop.reconcile().slots_released == 1
    assert (shop.job(second).status, shop.case(second).next_step) == ("SCHEDULED", "booked")
    assert_slots(shop)
    assert_next_steps(shop)


def test_a_job_of_a_dead_worker_is_taken_up_by_the_next_sweep(shop: Shop) -> None:
    bill = shop.failed_bill()
    shop.wait_for(bill)
    assert len(jobs_claim(now=shop.at, lease=timedelta(minutes=5), limit=1)) == 1
    assert shop.drain().claimed == 0
    shop.expire_leases()
    assert shop.drain().succeeded == 1
    assert_promises(shop)


# --- deadlines ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("action", "case_status", "invoice_status", "reason"),
    [
        ("leave_open", "LOST", "PROCESS_FAILED", ""),
        ("webhook", "LOST", "PROCESS_FAILED", ""),
        ("cancel", "LOST", "CANCELED", "canceled"),
        ("write_off", "WRITTEN_OFF", "CANCELED", "written_off"),
    ],
)
def test_the_grace_period_ends_with_the_policys_final_action(
    shop: Shop, action: str, case_status: str, invoice_status: str, reason: str
) -> None:
    document = {**preset_document("standard"), "final_action": action}
    policy_version_create(merchant_id=shop.merchant.pk, document=document, note="test", created_by="test")
    bill = shop.failed_bill(code="lost_card")
    ends = shop.case(bill).next_step_at
    assert ends == bill.at + 28 * DAY
    shop.wait_until(ends - timedelta(seconds=1))
    assert (shop.reconcile().deadlines, shop.case(bill).status) == (0, "OPEN")
    shop.wait_until(ends)
    assert shop.reconcile().deadlines == 1
    invoice = shop.invoice(bill)
    assert (shop.case(bill).status, invoice.status, invoice.cancel_reason) == (case_status, invoice_status, reason)
    assert shop.reconcile().deadlines == 0
    told = invoice.events.filter(kind="case.final_action")
    assert [event.data["action"] for event in told] == (["webhook"] if action == "webhook" else [])
    assert_chain(invoice)


def test_a_provider_retry_that_did_not_come_is_not_waited_for(new_shop: Callable[..., Shop]) -> None:
    """The biller announced its next try and never told what became of it: then it is our turn, or the customer's."""
    shop = new_shop(take_over=3)
    bill = shop.bill()
    tried = bill.attempt()
    retry_at = bill.at + 3 * DAY
    shop.tell(tried.charge_failed(), tried.invoice_failed(next_payment_attempt=int(retry_at.timestamp())))
    assert (shop.case(bill).next_step, shop.case(bill).next_step_at) == ("provider", retry_at)
    shop.wait_until(retry_at)
    assert shop.reconcile().deadlines == 1
    assert shop.case(bill).next_step != "provider"
    assert_next_steps(shop)


# --- connections --------------------------------------------------------------------------------------------------


def test_what_waited_for_a_broken_connection_goes_on_together(shop: Shop) -> None:
    """The provider refuses our key: nothing more is sent, one alert, and all go on when it is repaired."""
    bills = [shop.failed_bill(code="processing_error") for _ in range(3)]
    shop.sandbox.script(bills[0].token, "decline:authentication_failed_by_gateway", "ok")
    Connection.objects.filter(pk=shop.connection.pk).update(paused_reason="The key was refused.")
    for bill in bills:
        shop.tell(bill.attempt(shop.wait(minutes=1), code="processing_error").charge_failed())
        assert (shop.case(bill).next_step, shop.job(bill).status) == ("paused", "PAUSED")
    assert_next_steps(shop)
    shop.wait(days=2)
    assert (shop.drain().claimed, shop.reconcile().steps_repaired) == (0, 0)
    connection_switch(connection_pk=shop.connection.pk, enabled=True)
    assert shop.reconcile().steps_repaired == 3
    assert [shop.case(bill).next_step for bill in bills] == ["booked"] * 3
    shop.wait(hours=1)
    shop.drain()
    assert shop.sandbox.paid() >= 2 * 2500
    assert_promises(shop)


def test_a_disabled_connection_keeps_its_cases_for_later(shop: Shop) -> None:
    connection_switch(connection_pk=shop.connection.pk, enabled=False)
    bill = shop.failed_bill()
    assert shop.case(bill).next_step == "paused"
    shop.wait(days=2)
    assert shop.reconcile().steps_repaired == 0
    connection_switch(connection_pk=shop.connection.pk, enabled=True)
    assert shop.reconcile().steps_repaired == 1
    assert shop.case(bill).next_step == "booked"
    assert shop.drain().succeeded == 1


def test_a_mistake_in_one_invoice_waits_for_a_person(shop: Shop) -> None:
    bill = shop.failed_bill(code="invalid_amount")
    assert (shop.case(bill).next_step, shop.reviews(bill)) == ("paused", ["configuration"])
    shop.wait(days=1)
    assert shop.reconcile().steps_repaired == 0
    assert shop.case(bill).next_step == "paused"
    shop.resume(bill)
    assert shop.case(bill).next_step == "booked"


# --- batches ------------------------------------------------------------------------------------------------------


def broken(shop: Shop, number: int) -> list[Bill]:
    bills = [shop.failed_bill() for _ in range(number)]
    jobs = RetryJob.objects.filter(merchant=shop.merchant)
    assert jobs.update(status="CANCELED") == number
    return bills


def test_a_backlog_is_worked_in_batches_tick_by_tick(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "BATCH", 2)
    broken(shop, 5)
    repaired = [reconcile(now=shop.at).steps_repaired for _ in range(4)]
    assert repaired == [2, 2, 1, 0]
    assert_next_steps(shop)


def test_a_drain_works_batch_after_batch(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "BATCH", 2)
    broken(shop, 5)
    assert reconcile(now=shop.at, drain=True).steps_repaired == 5


def test_one_row_that_cannot_be_repaired_stops_no_other(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, third = broken(shop, 3)
    poison, plan = shop.invoice(second).pk, sweep.case_plan

    def plan_or_raise(scope: Any, *given: Any, **known: Any) -> Any:
        if scope.invoice.pk == poison:
            raise RuntimeError("no such thing")
        return plan(scope, *given, **known)

    monkeypatch.setattr(sweep, "case_plan", plan_or_raise)
    counts = shop.reconcile()
    assert (counts.steps_repaired, counts.errors) == (2, 1)
    monkeypatch.undo()
    assert shop.reconcile().steps_repaired == 1
    assert [shop.case(bill).next_step for bill in (first, second, third)] == ["booked"] * 3


def test_terminal_rows_are_never_touched(shop: Shop) -> None:
    settled, canceled, lost = shop.bill(), shop.failed_bill(), shop.failed_bill(code="fraudulent")
    paid = settled.attempt()
    refunded = shop.bill()
    again = refunded.attempt()
    shop.cancel(canceled)
    shop.tell(*paid.succeeded(), *again.succeeded(), again.refund("a", 2500, shop.wait(hours=1)))
    before = list(Invoice.objects.filter(merchant=shop.merchant).order_by("pk").values())
    attempts = list(Attempt.objects.filter(merchant=shop.merchant).order_by("pk").values())
    shop.wait(days=60)
    shop.expire_leases()
    counts = shop.reconcile()
    assert (counts.steps_repaired, counts.deadlines, counts.errors) == (0, 0, 0)
    reminded = Q(kind__startswith="alert.staff")
    assert not shop.invoice(settled).events.filter(reminded).exists()
    after = Invoice.objects.filter(merchant=shop.merchant).exclude(pk=shop.invoice(lost).pk).order_by("pk").values()
    assert list(after) == [row for row in before if row["id"] != shop.invoice(lost).pk]
    assert list(Attempt.objects.filter(merchant=shop.merchant).order_by("pk").values()) == attempts


# --- what the provider has and we do not --------------------------------------------------------------------------


def test_a_charge_that_this_ledger_never_heard_of_is_taken_in(shop: Shop, new_shop: Callable[..., Shop]) -> None:
    """Another system charged the customer at the same account; its webhook never came."""
    other = new_shop()
    bill = other.failed_bill()
    other.retry(bill)
    connection_switch(connection_pk=other.connection.pk, enabled=False)
    shop.at = other.at
    assert shop.reconcile().scanned == 1
    found = Attempt.objects.get(merchant=shop.merchant)
    assert (found.origin, found.status, found.amount_minor) == ("PROVIDER", "SUCCEEDED", 2500)
    assert (found.invoice.status, found.customer.connector_customer_id) == ("SETTLED", bill.customer)
    assert shop.reconcile().scanned == 0
