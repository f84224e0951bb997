"""A second sending under the same key: never after its time, nor beside a person's answer, nor without its result."""

import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import structlog
from django.db import transaction

from invoices.models import Invoice
from invoices.services.ledger import Stamp
from invoices.services.parties import customer_lock
from recovery_site.common.clock import database_now
from recovery_site.common.compiled import Question
from recovery_site.common.errors import Conflict
from retries.engine import prepare, send
from retries.handler.entry import Entry
from retries.handler.joining import halves_join
from retries.models import Case, RetryJob
from retries.reconciliation import resolution
from retries.refunding.resolve import refund_attempt_resolve
from retries.services.manual import attempt_resolve
from tests.retries.refunding import ask, call_of, collected, script
from tests.support.books import assert_promises
from tests.support.sandbox import Sandbox, sandbox_running
from tests.support.shop import Shop
from tests.support.stripe import Bill
from tokens.services import cards_lock

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[Sandbox]:
    """A provider of the test's own: the reverse scan reads everything that its server has ever charged."""
    with sandbox_running(tmp_path) as running:
        yield running


@pytest.fixture
def shop(new_shop: Callable[..., Shop]) -> Shop:
    return new_shop(timeout_seconds=0.4)


def lost(shop: Shop) -> Bill:
    """A charge that never arrived, with nobody left who could still send it."""
    bill = shop.failed_bill()
    shop.sandbox.script(bill.token, "timeout_before", "ok")
    assert shop.retry(bill).unknown == 1
    shop.expire_leases()
    shop.wait(hours=1)
    return bill


def says(shop: Shop, bill: Bill, *, charged: bool) -> None:
    stamp = Stamp(actor="user:ann", cause="staff queue", now=shop.at)
    attempt_resolve(attempt_pk=shop.attempt(bill).pk, charged=charged, stamp=stamp, note="looked it up")


@pytest.mark.parametrize("guarded", [False, True])
def test_resend_that_was_held_up_past_its_time_is_not_sent(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, guarded: bool
) -> None:
    """Its process stood still between the checks and the call: who knows what was decided meanwhile."""
    bill = lost(shop)
    monkeypatch.setattr(resolution, "database_now", lambda: database_now() - timedelta(minutes=10))
    if not guarded:
        monkeypatch.setattr(send, "may_send", lambda attempt_pk, **known: True)
    assert shop.reconcile().charges["resent"] == 1
    assert len(shop.sandbox.charges(bill.customer)) == (0 if guarded else 1)
    if guarded:
        assert (shop.attempt(bill).status, shop.attempt(bill).resends) == ("UNKNOWN", 1)
        monkeypatch.undo()
        shop.expire_leases()
        shop.wait(hours=1)
        assert shop.reconcile().charges["resent"] == 1
    assert (shop.attempt(bill).status, shop.charged(bill)) == ("SUCCEEDED", 2500)
    assert_promises(shop)


def test_nobody_says_not_charged_while_it_may_still_arrive(shop: Shop) -> None:
    bill = shop.failed_bill()
    shop.sandbox.script(bill.token, "timeout_after_charge", "ok")
    assert shop.retry(bill).unknown == 1
    with pytest.raises(Conflict, match="may still arrive; answer again in a few minutes"):
        says(shop, bill, charged=False)
    assert (shop.attempt(bill).status, shop.case(bill).next_step) == ("UNKNOWN", "resolving")
    says(shop, bill, charged=True)
    assert (shop.invoice(bill).status, shop.charged(bill)) == ("SETTLED", 2500)


def test_nobody_says_not_refunded_while_it_may_still_arrive(shop: Shop) -> None:
    bill = collected(shop)
    script(shop, bill, "timeout_after_charge")
    ask(shop, bill)
    assert shop.drain().unknown == 1
    stamp = Stamp(actor="user:ann", cause="staff queue", now=shop.at)
    known: dict[str, Any] = {"attempt_pk": call_of(shop, bill).pk, "stamp": stamp, "note": "looked it up"}
    with pytest.raises(Conflict, match="may still arrive; answer again in a few minutes"):
        refund_attempt_resolve(refunded=False, **known)
    refund_attempt_resolve(refunded=True, **known)
    assert shop.invoice(bill).status == "REFUNDED"


def test_success_of_a_resend_counts_though_the_attempt_was_given_up_meanwhile(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    bill = lost(shop)
    original = resolution.charge_send

    def given_up_meanwhile(prepared: Any) -> Any:
        answer = original(prepared)
        shop.expire_leases()
        says(shop, bill, charged=False)
        return answer

    monkeypatch.setattr(resolution, "charge_send", given_up_meanwhile)
    assert shop.reconcile().charges["resent"] == 1
    assert (shop.attempt(bill).status, shop.invoice(bill).status) == ("SUCCEEDED", "SETTLED")
    assert "late_success" in shop.alerts(bill)
    # The retry that the wrong answer had booked is gone with it.
    shop.wait(days=2)
    assert (shop.drain().claimed, shop.charged(bill)) == (0, 2500)
    assert_promises(shop)


def test_every_action_leaves_one_line_with_its_status_and_how_long_it_was_stuck(shop: Shop) -> None:
    refunded = collected(shop)
    resent, stepless, first = lost(shop), shop.failed_bill(), shop.failed_bill()
    queued = shop.failed_bill(customer=first.customer)
    RetryJob.objects.filter(pk__in=[shop.job(stepless).pk, shop.job(first).pk]).update(status="CANCELED")
    Case.objects.filter(pk=shop.case(first).pk).update(status="LOST", next_step="none")
    ask(shop, refunded)
    RetryJob.objects.filter(kind="REFUND").delete()
    shop.wait(minutes=10)
    with structlog.testing.capture_logs() as logs:
        counts = shop.reconcile()
    lines = [line for line in logs if line["event"] == "reconcile"]
    assert counts.errors == 0
    told = {(line["action"], line["status"], line["log_level"]) for line in lines if line["action"] != "scanned"}
    assert told == {
        ("adopted", "SUCCEEDED", "info"),
        ("refund_failed", "FAILED", "error"),
        ("planned", "booked", "info"),
        ("slot_released", "SCHEDULED", "info"),
        ("no_plan", "PROCESSING", "warning"),
    }
    stuck = {line["action"]: line["stuck"] for line in lines}
    assert (stuck["adopted"], stuck["refund_failed"], stuck["planned"]) == ("1:10:00", "0:10:00", "0:10:00")
    assert all(re.fullmatch(r"\d+:\d\d:\d\d", words) for words in stuck.values())
    assert next(line for line in lines if line["action"] == "adopted")["attempt"] == shop.attempt(resent).public_id
    assert shop.job(queued).status == "SCHEDULED"


@pytest.mark.parametrize("guarded", [False, True])
def test_a_resend_counts_another_customers_try_of_the_same_card(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, guarded: bool
) -> None:
    """Its network allows one try a day, and somebody else's bill was tried with the card since ours was sent."""
    if not guarded:
        monkeypatch.setattr(resolution, "_resend_obstacle", lambda *known: "")
    bill = shop.failed_bill(network="amex")
    shop.sandbox.script(bill.token, "timeout_before", "ok")
    shop.wait(hours=25)
    assert shop.drain().unknown == 1
    shop.expire_leases()
    shop.wait(hours=1)
    shop.failed_bill(network="amex", fingerprint=f"fp_{bill.token}")
    assert shop.reconcile().charges["resent"] == (0 if guarded else 1)
    assert (shop.attempt(bill).status, shop.charged(bill)) == (("UNKNOWN", 0) if guarded else ("SUCCEEDED", 2500))
    if guarded:
        assert_promises(shop)


@pytest.mark.parametrize("whose", ["card", "customer"])
@pytest.mark.parametrize("guarded", [False, True])
def test_no_other_charge_of_its_card_or_customer_leaves_beside_a_resend(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, guarded: bool, whose: str
) -> None:
    if not guarded:
        blind = Question(prepare._FACTS.replace("attempt.resends > 0", "false"))
        monkeypatch.setattr(prepare, "_ASK_FACTS", blind)
    bill = shop.failed_bill()
    shop.wait(hours=2)
    same = {"customer": bill.customer} if whose == "customer" else {"fingerprint": f"fp_{bill.token}"}
    other = shop.failed_bill(**same)
    shop.sandbox.script(bill.token, "timeout_before", "ok")
    assert shop.retry(bill).unknown == 1
    shop.expire_leases()
    shop.wait_for(other)
    beside = []

    def send_while_others_work(prepared: prepare.Prepared) -> Any:
        beside.append(shop.drain())
        return send.charge_send(prepared)

    monkeypatch.setattr(resolution, "charge_send", send_while_others_work)
    assert shop.reconcile().charges["resent"] == 1
    (counts,) = beside
    if not guarded:
        assert counts.succeeded == 1, "two charges of one card or customer were on their way together"
        return
    assert (counts.claimed, counts.rescheduled) == (1, 1)
    assert (shop.attempt(bill).status, shop.charged(bill)) == ("SUCCEEDED", 2500)
    shop.wait(seconds=30)
    assert shop.drain().succeeded == 1
    assert_promises(shop)


def test_debt_of_two_rows_is_not_charged_again_while_a_charge_of_one_is_on_its_way(shop: Shop) -> None:
    """A payment that could not name its invoice was charged on its own row; then the word came whose it was."""
    born = shop.failed_bill()
    shop.wait(hours=3)
    named = shop.failed_bill(customer=born.customer)
    pk = shop.invoice(born).pk
    shop.sandbox.script(born.token, "timeout_after_charge", "ok")
    assert shop.retry(born).unknown == 1
    Invoice.objects.filter(pk=pk).update(provider_invoice_id=None)
    with transaction.atomic():
        customer = customer_lock(shop.customer(named).pk)
        entry = Entry(customer=customer, cards=cards_lock(customer), method=None, revived=False)
        halves_join(entry, born_pk=pk, named_pk=shop.invoice(named).pk, stamp=shop.staff())
    assert (Invoice.objects.get(pk=pk).status, shop.reviews(named)) == ("CANCELED", ["unmatched_payment"])
    assert shop.case(named).next_step == "staff"
    shop.wait(days=3)
    assert shop.drain().claimed == 0
    assert shop.charged(born) == 2500
