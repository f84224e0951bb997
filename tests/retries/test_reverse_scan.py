"""Payments that the provider has and the ledger has not: found in its list, recorded once, differences asked about."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
import requests

from invoices.models import Attempt, Connection, Invoice
from invoices.services.parties import connection_switch
from providers.base import ChargeResult, Outcome, PaymentEvent, ProviderUnavailable
from providers.sandbox.client import SandboxClient
from retries.engine.claim import jobs_claim
from retries.engine.prepare import Prepared, attempt_prepare
from retries.engine.send import charge_record, charge_send
from retries.handler import EventWaits, Handled
from retries.models import Case, RetryJob
from retries.reconciliation import scan as scan_module
from retries.reconciliation.scan import connection_scan, connections_to_scan
from retries.services.answers import review_answer
from tests.retries.refunding import (
    alerts,
    assert_clean,
    assert_ledger,
    charge_at_provider,
    collected,
    history,
    question,
    sandbox_tells,
    shown,
    totals,
)
from tests.retries.refunding import sandbox as sandbox
from tests.support.shop import Shop
from tests.support.stripe import Bill

pytestmark = pytest.mark.django_db(transaction=True)
LEASE = timedelta(minutes=5)


def charge(shop: Shop, customer: str, amount: int = 1700, token: str = "", **more: Any) -> str:
    """A charge that somebody makes at the provider behind our back; its id."""
    body = {"amount": amount, "currency": "USD", "token": token or f"tok_ok__{customer}", "customer": customer, **more}
    answer = requests.post(
        f"{shop.sandbox.url}/charges", json=body, headers={"Idempotency-Key": uuid4().hex}, timeout=10
    )
    answer.raise_for_status()
    found: str = answer.json()["id"]
    return found


def invoices(shop: Shop) -> list[tuple[str, int, str, int]]:
    rows = Invoice.objects.filter(merchant=shop.merchant).order_by("id")
    return list(rows.values_list("status", "amount_minor", "currency", "paid_minor"))


def written(shop: Shop) -> tuple[int, int, int]:
    """Rows that a second look must not add to."""
    mine = {"merchant": shop.merchant}
    return (
        Attempt.objects.filter(**mine).count(),
        sum(Invoice.objects.filter(**mine).values_list("last_seq", flat=True)),
        Case.objects.filter(**mine).count(),
    )


# --- what we do not know ----------------------------------------------------------------------------


def test_unknown_payments_are_recorded_once_whatever_their_end(shop: Shop) -> None:
    paid = charge(shop, "cus_paid")
    declined = charge(shop, "cus_poor", 900, "tok_decline_insufficient_funds")
    shop.sandbox.script("tok_slow", "pending")
    awaited = charge(shop, "cus_slow", 400, "tok_slow")
    shop.wait(minutes=5)
    assert shop.reconcile().scanned == 3
    found = {
        attempt.provider_id: (attempt.origin, attempt.status, attempt.amount_minor)
        for attempt in Attempt.objects.filter(merchant=shop.merchant)
    }
    assert found == {
        paid: ("PROVIDER", "SUCCEEDED", 1700),
        declined: ("PROVIDER", "DECLINED", 900),
        awaited: ("PROVIDER", "AWAITING", 400),
    }
    assert sorted(invoices(shop)) == [
        ("PROCESSING", 400, "USD", 0),
        ("PROCESSING", 900, "USD", 0),
        ("SETTLED", 1700, "USD", 1700),
    ]
    (case,) = Case.objects.filter(merchant=shop.merchant)
    assert (case.next_step, case.code) == ("booked", "insufficient_funds")
    before = written(shop)
    for _ in range(3):
        shop.wait(hours=1)
        assert shop.reconcile().scanned == 0
    assert written(shop) == before
    assert_ledger(shop)


def test_late_webhook_about_a_scanned_payment_changes_nothing(shop: Shop) -> None:
    paid = charge(shop, "cus_paid")
    shop.reconcile()
    before = written(shop)
    sandbox_tells(shop, "charge.succeeded", shown(shop, "charge", paid))
    assert shop.process().processed == 1
    assert written(shop) == before


def test_payment_that_was_told_by_webhook_is_no_news(shop: Shop) -> None:
    paid = charge(shop, "cus_paid")
    sandbox_tells(shop, "charge.succeeded", shown(shop, "charge", paid))
    shop.process()
    before = written(shop)
    assert shop.reconcile().scanned == 0
    assert written(shop) == before


def test_payments_without_a_payer_are_passed_over(shop: Shop) -> None:
    body = {"amount": 100, "currency": "USD", "token": "tok_ok"}
    requests.post(
        f"{shop.sandbox.url}/charges", json=body, headers={"Idempotency-Key": uuid4().hex}, timeout=10
    ).raise_for_status()
    assert shop.reconcile().scanned == 0
    assert invoices(shop) == []


# --- what we know otherwise -------------------------------------------------------------------------


def test_charge_that_counted_as_unsent_is_found_and_its_success_told(shop: Shop) -> None:
    """Staff said that it was not charged; no webhook ever came. The list is the last net."""
    bill = shop.failed_bill()
    shop.sandbox.script(bill.token, "timeout_after_charge", "ok")
    shop.retry(bill)
    url, shop.connection.base_url = shop.connection.base_url, "http://127.0.0.1:9"
    shop.connection.save(update_fields=["base_url"])
    shop.wait(hours=25)
    shop.expire_leases()
    shop.reconcile()
    review_answer(item_pk=question(shop, bill).pk, answer="not_charged", stamp=shop.staff())
    assert shop.attempt(bill).status == "ERRORED"
    shop.connection.base_url = url
    shop.connection.save(update_fields=["base_url"])
    counts = shop.reconcile()
    assert (counts.scanned, shop.attempt(bill).status) == (1, "SUCCEEDED")
    assert totals(shop, bill) == ("SETTLED", 2500, 0)
    assert (alerts(shop, bill), shop.case(bill).status) == (["unknown_attempt", "late_success"], "RECOVERED")
    assert shop.drain().claimed == 0
    assert shop.charged(bill) == 2500
    assert_clean(shop)


def test_unknown_charge_is_adopted_from_the_list_before_its_own_time_comes(shop: Shop) -> None:
    bill = shop.failed_bill()
    shop.sandbox.script(bill.token, "reset_after_charge")
    assert shop.retry(bill).unknown == 1
    assert shop.reconcile().scanned == 1
    assert (shop.attempt(bill).status, totals(shop, bill)) == ("SUCCEEDED", ("SETTLED", 2500, 0))
    assert_clean(shop)


def test_charge_that_is_being_sent_is_left_to_its_worker(shop: Shop) -> None:
    bill = shop.failed_bill()
    result = charge_send(sending(shop, bill))
    assert isinstance(result, ChargeResult)
    assert (shop.charged(bill), shop.reconcile().scanned) == (2500, 0)
    assert (shop.attempt(bill).status, shop.attempt(bill).provider_id) == ("SENDING", None)
    assert charge_record(shop.attempt(bill).pk, result, now=shop.at) == "SUCCEEDED"
    assert_clean(shop)


def sending(shop: Shop, bill: Bill) -> Prepared:
    """A worker has written down that it sends."""
    shop.wait_for(bill)
    (claim,) = jobs_claim(now=shop.at, lease=LEASE, limit=1)
    prepared = attempt_prepare(claim, now=shop.at, lease=LEASE, timeout=timedelta(seconds=5))
    assert isinstance(prepared, Prepared)
    return prepared


@pytest.mark.parametrize("wrong", [{"amount": 2600}, {"currency": "EUR"}, {}])
def test_second_charge_under_our_reference_is_a_question_for_staff(shop: Shop, wrong: dict[str, Any]) -> None:
    bill = collected(shop)
    reference = shop.attempt(bill).public_id
    known = {"amount": 2500, "currency": "USD", **wrong}
    other = charge(shop, bill.customer, token=bill.token, reference=reference, **known)
    before = history(shop, bill)
    assert shop.reconcile().scanned == 0
    item = question(shop, bill)
    assert (item.kind, item.subject_id, item.choices) == ("mismatch", reference, ["noted"])
    differs = {
        "amount": "amount 2600 instead of 2500, another payment's id",
        "currency": "currency EUR instead of USD, another payment's id",
        "": "another payment's id",
    }
    assert item.facts["difference"] == differs[next(iter(wrong), "")]
    assert (item.facts["provider_id"], item.facts["raw"]["id"], item.facts["raw"]["amount"]) == (
        other,
        other,
        known["amount"],
    )
    assert alerts(shop, bill) == ["mismatch"]
    assert history(shop, bill) == [*before, "review.opened", "alert.mismatch"]
    shop.reconcile()
    assert alerts(shop, bill) == ["mismatch"]
    review_answer(item_pk=item.pk, answer="noted", stamp=shop.staff(), note="refunded by hand")
    assert (shop.reviews(bill), totals(shop, bill)) == ([], ("SETTLED", 2500, 0))


def test_charge_of_somebody_else_may_carry_a_reference_of_its_own(shop: Shop) -> None:
    paid = charge(shop, "cus_paid", reference="order-77")
    sandbox_tells(shop, "charge.succeeded", shown(shop, "charge", paid))
    shop.process()
    assert shop.reconcile().scanned == 0
    assert not Invoice.objects.filter(merchant=shop.merchant, review_items__isnull=False).exists()


# --- how far the list was read ----------------------------------------------------------------------


START = datetime(2026, 3, 1, tzinfo=UTC)


def listed(number: int, *, at: datetime | None = None, customer: str = "") -> ChargeResult:
    return ChargeResult(
        outcome=Outcome.SUCCEEDED,
        provider_id=f"ch_{number}",
        amount_minor=100 + number,
        currency="USD",
        token=f"tok_ok__{number}",
        customer=customer or f"cus_{number}",
        created_at=at or START + timedelta(minutes=number),
    )


@pytest.fixture
def listing(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[datetime]]:
    """Lets the provider's list be what the test wants; returns where each reading began."""
    Connection.objects.filter(pk=shop.connection.pk).update(scanned_until=START)

    def let(read: Callable[[], Iterator[ChargeResult]]) -> list[datetime]:
        asked: list[datetime] = []

        def charges_list(client: SandboxClient, created_after: datetime) -> Iterator[ChargeResult]:
            asked.append(created_after)
            return (result for result in read() if result.created_at is None or result.created_at > created_after)

        monkeypatch.setattr(SandboxClient, "charges_list", charges_list)
        return asked

    return let


def known(shop: Shop) -> set[str | None]:
    return set(Attempt.objects.filter(merchant=shop.merchant).values_list("provider_id", flat=True))


def until(shop: Shop) -> datetime | None:
    return Connection.objects.get(pk=shop.connection.pk).scanned_until


def test_list_that_comes_newest_first_is_worked_oldest_first_and_none_is_missed(
    shop: Shop, listing: Callable[..., list[datetime]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stripe lists the newest first. More than one tick can do must not be forgotten at the old end."""
    monkeypatch.setattr(scan_module, "_MOST_PER_TICK", 4)
    asked = listing(lambda: (listed(number) for number in range(10, 0, -1)))
    assert connection_scan(shop.connection.pk, now=shop.at) == 4
    assert (known(shop), until(shop)) == ({f"ch_{n}" for n in range(1, 5)}, START + timedelta(minutes=4))
    assert connection_scan(shop.connection.pk, now=shop.at) == 4
    assert connection_scan(shop.connection.pk, now=shop.at) == 2
    assert connection_scan(shop.connection.pk, now=shop.at) == 0
    assert (known(shop), until(shop)) == ({f"ch_{n}" for n in range(1, 11)}, START + timedelta(minutes=10))
    hour = timedelta(hours=1)
    assert asked == [START - hour, *(START + timedelta(minutes=n) - hour for n in (4, 8, 10))]


def test_charge_that_shows_up_late_in_the_list_is_still_found(
    shop: Shop, listing: Callable[..., list[datetime]]
) -> None:
    listing(lambda: iter([listed(1), listed(60)]))
    assert connection_scan(shop.connection.pk, now=shop.at) == 2
    listing(lambda: iter([listed(1), listed(2), listed(60)]))
    assert connection_scan(shop.connection.pk, now=shop.at) == 1
    assert (known(shop), until(shop)) == ({"ch_1", "ch_2", "ch_60"}, START + timedelta(minutes=60))


def test_list_that_breaks_off_gives_what_it_gave_and_is_read_again(
    shop: Shop, listing: Callable[..., list[datetime]]
) -> None:
    def breaks() -> Iterator[ChargeResult]:
        yield listed(9)
        yield listed(8)
        raise ProviderUnavailable("The list ends in the middle.")

    listing(breaks)
    assert connection_scan(shop.connection.pk, now=shop.at) == 2
    assert (known(shop), until(shop)) == ({"ch_8", "ch_9"}, START)
    listing(lambda: (listed(number) for number in range(9, 0, -1)))
    assert connection_scan(shop.connection.pk, now=shop.at) == 7
    assert until(shop) == START + timedelta(minutes=9)


def test_provider_that_cannot_be_read_is_left_for_the_next_tick(shop: Shop) -> None:
    shop.connection.base_url = "http://127.0.0.1:9"
    shop.connection.save(update_fields=["base_url"])
    counts = shop.reconcile()
    assert (counts.scanned, counts.errors, until(shop)) == (0, 0, None)


def test_impossible_payment_stops_neither_the_others_nor_the_scan(
    shop: Shop, listing: Callable[..., list[datetime]]
) -> None:
    listing(lambda: iter([listed(1), listed(2, customer="x" * 300), listed(3)]))
    assert connection_scan(shop.connection.pk, now=shop.at) == 2
    assert (known(shop), until(shop)) == ({"ch_1", "ch_3"}, START + timedelta(minutes=3))


def test_payment_that_has_to_wait_is_met_again(
    shop: Shop, listing: Callable[..., list[datetime]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside a charge of ours that is being sent nobody can tell whose it is: not now, but not never."""
    handle, busy = scan_module.event_handle, ["ch_1"]

    def while_sending(*, event: PaymentEvent, **known: Any) -> Handled:
        if event.payment is not None and event.payment.charge_id in busy:
            raise EventWaits("A charge of this invoice is being sent.")
        return handle(event=event, **known)

    monkeypatch.setattr(scan_module, "event_handle", while_sending)
    listing(lambda: iter([listed(1), listed(200)]))
    assert connection_scan(shop.connection.pk, now=shop.at) == 1
    assert (known(shop), until(shop)) == ({"ch_200"}, START)
    busy.clear()
    assert connection_scan(shop.connection.pk, now=shop.at) == 1
    assert (known(shop), until(shop)) == ({"ch_1", "ch_200"}, START + timedelta(minutes=200))


# --- where nobody looks -----------------------------------------------------------------------------


def test_disabled_broken_and_observed_connections_are_not_scanned(shop: Shop, new_shop: Callable[..., Shop]) -> None:
    observed, paused = new_shop(mode="observe"), new_shop()
    Connection.objects.filter(pk=paused.connection.pk).update(paused_reason="the key was refused")
    assert connections_to_scan() == [shop.connection.pk]
    connection_switch(connection_pk=shop.connection.pk, enabled=False)
    assert connections_to_scan() == []
    charge(shop, "cus_paid")
    assert (shop.reconcile().scanned, invoices(shop), invoices(observed), invoices(paused)) == (0, [], [], [])
    assert not RetryJob.objects.exists()


def test_two_merchants_at_one_provider_account_do_not_meet(shop: Shop, new_shop: Callable[..., Shop]) -> None:
    """Each connection has its own books, even if both list the same charge."""
    other = new_shop()
    paid = charge_at_provider(shop, shop.bill(), 700)
    shop.reconcile()
    found = Attempt.objects.filter(provider_id=paid)
    assert sorted(found.values_list("merchant", flat=True)) == sorted([shop.merchant.pk, other.merchant.pk])
