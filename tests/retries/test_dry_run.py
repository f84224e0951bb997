"""`--dry-run` on every sweep: what would happen and why, and nothing has happened afterwards."""

import json
from collections.abc import Callable
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command

from accounts.models import Merchant
from invoices.models import Event
from retries.engine.claim import jobs_claim
from retries.models import Case, RetryJob
from tests.support.shop import Shop
from tokens.models import Card

pytestmark = pytest.mark.django_db(transaction=True)


def dry(command: str, shop: Shop) -> dict[str, Any]:
    """The command's answer; the ledger and the queue are the same before and after."""
    out = StringIO()
    before = state()
    call_command(command, "--once", "--dry-run", "--json", at=shop.at, stdout=out)
    assert state() == before
    return json.loads(out.getvalue())


def state() -> tuple[Any, ...]:
    jobs = RetryJob.objects.order_by("pk").values_list("pk", "status", "due_at", "claim_token", "lease_until")
    return list(jobs), Event.objects.count(), list(Case.objects.order_by("pk").values_list("next_step", "why"))


def test_due_retries_are_told_with_card_and_reason_and_those_in_the_way(
    shop: Shop, new_shop: Callable[..., Shop]
) -> None:
    bill, waits, off = shop.failed_bill(), shop.failed_bill(), new_shop()
    off.failed_bill()
    Card.objects.filter(pk=shop.card(waits).pk).update(wait_until=shop.at + timedelta(days=3))
    Merchant.objects.filter(pk=off.merchant.pk).update(charging_enabled=False)
    shop.wait(days=1)
    told = dry("run_retries", shop)
    assert (told["claimed"], told["due"]) == (0, 2)
    lines = {one["invoice"]: (one["would"], one["why"]) for one in told["would"]}
    would, why = lines[shop.invoice(bill).public_id]
    assert (would, why.startswith("$25.00 with the Visa •••• 4242. Retry 1 of 2")) == ("charge", True)
    would, why = lines[shop.invoice(waits).public_id]
    assert would == "refuse"
    assert "must wait (the network asked to wait). Then: retry booked." in why
    (held,) = told["held"]
    assert (held["due"], held["why"]) == (1, "charging is switched off for the merchant")
    assert shop.sandbox.charges(bill.customer) == []
    out = StringIO()
    call_command("run_retries", "--once", "--dry-run", at=shop.at, stdout=out)
    assert out.getvalue().startswith("charge ")
    assert shop.drain().succeeded == 1


def test_a_job_that_a_worker_holds_is_not_foreseen(shop: Shop) -> None:
    shop.failed_bill()
    shop.wait(days=1)
    assert len(jobs_claim(now=shop.at, lease=timedelta(minutes=5), limit=1)) == 1
    assert dry("run_retries", shop)["would"] == []


def test_inbox_items_are_told_with_the_events_they_would_write(shop: Shop) -> None:
    bill = shop.bill()
    failed = bill.attempt(shop.at).failed()
    shop.receive(*failed)
    told = dry("process_inbox", shop)
    assert (told["processed"], len(told["would"])) == (0, len(failed))
    assert {one["would"] for one in told["would"]} <= {"process", "ignore", "wait"}
    written = [kind for one in told["would"] for kind in one["events"]]
    assert {"attempt.decline", "case.opened", "case.planned"} <= set(written)
    assert len(shop.waiting()) == len(failed)
    shop.process()
    kinds = list(shop.invoice(bill).events.order_by("seq").values_list("kind", flat=True))
    assert kinds == written, "what was foreseen is what happened, in that order"


def test_reconciliation_tells_whom_it_would_ask_and_what_it_would_plan(shop: Shop) -> None:
    lost, over = shop.failed_bill(), shop.failed_bill(code="lost_card")
    shop.sandbox.script(lost.token, "timeout_after_charge")
    shop.retry(lost)
    shop.wait(days=29)
    lines = {one["row"]: one for one in dry("reconcile", shop)["would"]}
    asked = lines[shop.attempt(lost).public_id]
    assert (asked["phase"], asked["would"]) == ("charges", "ask sandbox by our reference")
    case = lines[shop.case(over).public_id]
    assert case["would"].startswith("plan: nothing left to do.")
    assert case["why"] == "its time to wait is over"
    assert shop.charged(lost) == 2500
    assert shop.attempt(lost).status == "UNKNOWN"
