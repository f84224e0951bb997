"""Charges and refunds whose provider cannot even be asked: a day of patience, then staff, and no turn of others."""

from collections.abc import Callable
from datetime import timedelta

import pytest

from invoices.models import Connection
from invoices.services.parties import connection_switch
from retries.engine.claim import jobs_claim
from retries.engine.prepare import attempt_prepare
from tests.retries.refunding import ask as ask_for_refund
from tests.retries.refunding import assert_clean, collected, question, script
from tests.retries.refunding import sandbox as sandbox
from tests.retries.test_answers import answer
from tests.support.shop import Shop
from tests.support.stripe import Bill

pytestmark = pytest.mark.django_db(transaction=True)
LEASE = timedelta(minutes=5)


def unknown(shop: Shop, *steps: str) -> Bill:
    bill = shop.failed_bill()
    shop.sandbox.script(bill.token, *steps)
    assert shop.retry(bill).unknown == 1
    shop.expire_leases()
    return bill


def switched_off(shop: Shop) -> None:
    connection_switch(connection_pk=shop.connection.pk, enabled=False)


def paused(shop: Shop) -> None:
    Connection.objects.filter(pk=shop.connection.pk).update(paused_reason="the provider refused the key")


def without_key(shop: Shop) -> None:
    Connection.objects.filter(pk=shop.connection.pk).update(provider="stripe", secrets_encrypted="")


@pytest.mark.parametrize("happens", [switched_off, paused, without_key])
def test_unknown_charge_of_a_mute_connection_reaches_staff_after_a_day(
    shop: Shop, happens: Callable[[Shop], None]
) -> None:
    bill = unknown(shop, "timeout_after_charge")
    happens(shop)
    shop.wait(hours=23, minutes=59)
    assert shop.reconcile().charges["skipped"] == 1
    assert (shop.reviews(bill), shop.case(bill).next_step) == ([], "resolving")
    shop.wait(minutes=2)
    counts = shop.reconcile()
    assert (counts.charges["staff"], counts.errors) == (1, 0)
    item = question(shop, bill)
    assert (item.kind, item.choices) == ("unknown_attempt", ["charged", "not_charged"])
    assert item.facts["why"].startswith("The provider cannot be asked: ")
    assert (shop.attempt(bill).status, shop.case(bill).next_step) == ("UNKNOWN", "staff")
    # Asked once; it takes nobody else's turn any more.
    assert shop.reconcile().charges["staff"] == 0
    assert shop.alerts(bill).count("unknown_attempt") == 1
    answer(shop, item, "charged")
    assert (shop.invoice(bill).status, shop.case(bill).status) == ("SETTLED", "RECOVERED")
    assert_clean(shop)


def test_a_connection_that_is_switched_on_again_answers_by_itself(shop: Shop) -> None:
    bill = unknown(shop, "timeout_after_charge")
    switched_off(shop)
    shop.wait(hours=25)
    shop.reconcile()
    item = question(shop, bill)
    connection_switch(connection_pk=shop.connection.pk, enabled=True)
    assert shop.reconcile().charges["adopted"] == 1
    item.refresh_from_db()
    assert (item.resolution, shop.invoice(bill).status) == ("answered_by_events", "SETTLED")


def test_overdue_settlement_of_a_mute_connection_takes_its_course(shop: Shop) -> None:
    bill = shop.failed_bill()
    shop.sandbox.script(bill.token, "pending")
    assert shop.retry(bill).awaiting == 1
    switched_off(shop)
    due = shop.attempt(bill).expected_by
    assert due is not None
    shop.wait_until(due)
    shop.wait(hours=23)
    assert shop.reconcile().charges["skipped"] == 1
    shop.wait(hours=2)
    assert shop.reconcile().charges["waiting"] == 1
    later = shop.attempt(bill).expected_by
    assert later == due + (due - shop.attempt(bill).attempted_at)
    shop.wait_until(later)
    shop.wait(hours=25)
    assert shop.reconcile().charges["staff"] == 1
    assert (shop.reviews(bill), shop.case(bill).next_step) == (["overdue_settlement"], "staff")


def test_worker_that_died_before_its_connection_went_mute_is_no_exception(shop: Shop) -> None:
    bill = shop.failed_bill()
    shop.wait_for(bill)
    (claim,) = jobs_claim(now=shop.at, lease=LEASE, limit=1)
    attempt_prepare(claim, now=shop.at, lease=LEASE, timeout=timedelta(seconds=5))
    switched_off(shop)
    shop.expire_leases()
    shop.wait(hours=25)
    counts = shop.reconcile()
    assert (counts.leases_expired, shop.attempt(bill).status) == (1, "UNKNOWN")
    assert (counts.charges["staff"], shop.reviews(bill)) == (1, ["unknown_attempt"])


@pytest.mark.parametrize("happens", [switched_off, without_key])
def test_stuck_refund_of_a_mute_connection_reaches_staff_after_a_day(
    shop: Shop, happens: Callable[[Shop], None]
) -> None:
    bill = collected(shop)
    script(shop, bill, "timeout_after_charge")
    ask_for_refund(shop, bill)
    assert shop.drain().unknown == 1
    shop.expire_leases()
    happens(shop)
    shop.wait(hours=23)
    assert shop.reconcile().refunds["skipped"] == 1
    shop.wait(hours=2)
    assert shop.reconcile().refunds["staff"] == 1
    assert shop.reviews(bill) == ["refund_stuck"]
    assert shop.reconcile().refunds["staff"] == 0
