"""UNKNOWN is not FAILED: looked up, adopted, sent again under the same key, or asked of staff; never charged anew."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from invoices.models import Attempt, Connection
from invoices.selectors.parties import connection_client
from invoices.services.parties import connection_switch
from providers.base import ChargeResult, ClientTraits, Lookup, Outcome, ProviderClient, Settles
from retries.engine.claim import jobs_claim
from retries.engine.prepare import Prepared, attempt_prepare
from retries.engine.send import charge_send
from retries.services.manual import attempt_resolve
from tests.support.books import assert_promises
from tests.support.sandbox import Sandbox, sandbox_running
from tests.support.shop import Shop
from tests.support.stripe import Bill

pytestmark = pytest.mark.django_db(transaction=True)
DAY = timedelta(days=1)
LEASE = timedelta(minutes=5)
LOST_WITH_MONEY = ["timeout_after_charge", "reset_after_charge", "http500_after_charge", "malformed"]


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[Sandbox]:
    """A provider of the test's own: the reverse scan reads everything that its server has ever charged."""
    with sandbox_running(tmp_path) as running:
        yield running


@pytest.fixture
def shop(new_shop: Callable[..., Shop]) -> Shop:
    return new_shop(timeout_seconds=0.4)


def lost(shop: Shop, *steps: str, token: str = "tok_ok") -> Bill:
    """A bill whose retry went out and whose answer was lost; the worker's lease has run out since."""
    bill = shop.failed_bill(token)
    shop.sandbox.script(bill.token, *steps)
    assert shop.retry(bill).unknown == 1
    shop.expire_leases()
    return bill


def references(shop: Shop, bill: Bill) -> list[str]:
    return [charge["reference"] for charge in shop.sandbox.charges(bill.customer)]


# --- found --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", LOST_WITH_MONEY)
def test_a_charge_whose_answer_was_lost_is_found_by_our_reference(shop: Shop, step: str) -> None:
    bill = lost(shop, step)
    assert (shop.attempt(bill).status, shop.attempt(bill).provider_id) == ("UNKNOWN", None)
    shop.wait(hours=1)
    assert shop.reconcile().charges["adopted"] == 1
    attempt = shop.attempt(bill)
    (charge,) = shop.sandbox.charges(bill.customer)
    assert (attempt.status, attempt.provider_id) == ("SUCCEEDED", charge["id"])
    assert (shop.invoice(bill).status, shop.case(bill).recovered_by) == ("SETTLED", "retry")
    assert_promises(shop)
    assert shop.reconcile().charges["adopted"] == 0


def test_a_decline_whose_answer_was_lost_resumes_the_plan(shop: Shop) -> None:
    bill = shop.failed_bill("tok_decline_insufficient_funds")
    shop.sandbox.faults(1, http500_after_charge=1.0)
    shop.retry(bill)
    shop.sandbox.faults(1)
    shop.expire_leases()
    shop.wait(hours=1)
    assert shop.reconcile().charges["adopted"] == 1
    assert (shop.attempt(bill).status, shop.attempt(bill).raw_code) == ("DECLINED", "insufficient_funds")
    assert (shop.case(bill).next_step, shop.job(bill).due_at) == ("booked", shop.at + DAY)
    assert_promises(shop)


def test_what_a_webhook_tells_first_needs_no_look_up(shop: Shop) -> None:
    bill = lost(shop, "timeout_after_charge")
    (charge,) = shop.sandbox.charges(bill.customer)
    told = bill.attempt(shop.wait(minutes=1), reference=shop.attempt(bill).public_id, charge=charge["id"])
    shop.tell(told.charge_succeeded())
    assert (shop.attempt(bill).status, shop.invoice(bill).status) == ("SUCCEEDED", "SETTLED")
    shop.wait(hours=1)
    assert shop.reconcile().charges["adopted"] == 0
    assert_promises(shop)


def test_a_webhook_after_the_look_up_changes_nothing(shop: Shop) -> None:
    bill = lost(shop, "timeout_after_charge")
    shop.wait(hours=1)
    shop.reconcile()
    before = shop.invoice(bill).last_seq
    attempt = shop.attempt(bill)
    told = bill.attempt(shop.wait(hours=1), reference=attempt.public_id, charge=attempt.provider_id or "")
    shop.tell(*told.succeeded())
    assert shop.invoice(bill).last_seq == before


def test_a_charge_that_was_booked_as_the_providers_own_is_not_counted_twice(shop: Shop) -> None:
    """While ours was unknown its webhook came without our reference: both rows are one and the same charge."""
    bill = lost(shop, "timeout_after_charge")
    (charge,) = shop.sandbox.charges(bill.customer)
    shop.tell(bill.attempt(shop.wait(minutes=1), charge=charge["id"]).charge_succeeded())
    assert shop.invoice(bill).paid_minor == 2500
    shop.wait(hours=2)
    counts = shop.reconcile()
    assert counts.errors == 0
    assert (shop.invoice(bill).status, shop.invoice(bill).paid_minor) == ("SETTLED", 2500)
    attempt = shop.attempt(bill)
    assert attempt.status != "UNKNOWN" or "mismatch" in shop.reviews(bill)


# --- not there ----------------------------------------------------------------------------------------------------


def test_a_charge_that_never_arrived_is_sent_again_under_the_same_key(shop: Shop) -> None:
    bill = lost(shop, "timeout_before", "ok")
    reference = shop.attempt(bill).public_id
    shop.wait(hours=1)
    assert shop.reconcile().charges["resent"] == 1
    attempt = shop.attempt(bill)
    assert (attempt.public_id, attempt.status, attempt.resends) == (reference, "SUCCEEDED", 1)
    assert references(shop, bill) == [reference]
    assert shop.invoice(bill).status == "SETTLED"
    assert_promises(shop)


def test_a_stored_error_is_outlived_before_a_new_key_follows(shop: Shop) -> None:
    """The provider replays its 500 for the key's life: only after half of it is a new key safe."""
    bill = lost(shop, "http500_before", "ok")
    first = shop.attempt(bill).public_id
    for _ in range(3):
        shop.wait(hours=1)
        shop.expire_leases()
        assert shop.reconcile().charges["resent"] == 1
    assert (shop.attempt(bill).status, shop.attempt(bill).resends, references(shop, bill)) == ("UNKNOWN", 3, [])
    shop.wait(hours=10)
    shop.expire_leases()
    assert shop.reconcile().charges["absent"] == 1
    attempt = shop.attempt(bill)
    assert (attempt.public_id, attempt.status, attempt.counts) == (first, "ERRORED", False)
    assert shop.case(bill).next_step == "booked"
    assert shop.drain().succeeded == 1
    (reference,) = references(shop, bill)
    assert reference == shop.attempt(bill).public_id != first
    assert_promises(shop)


@pytest.mark.parametrize("minutes", [1, 9])
def test_what_was_sent_just_now_is_left_alone(shop: Shop, minutes: int) -> None:
    bill = lost(shop, "timeout_before", "ok")
    shop.wait(minutes=minutes)
    counts = shop.reconcile()
    assert (counts.charges["resent"], counts.charges["absent"]) == (0, 0)
    assert (shop.attempt(bill).status, shop.attempt(bill).resends) == ("UNKNOWN", 0)


def test_absence_proves_nothing_while_the_worker_may_still_send(shop: Shop) -> None:
    """By `now` hours have passed, by the database's clock the lease still runs: its worker may be slow, not dead."""
    bill = shop.failed_bill()
    shop.sandbox.script(bill.token, "timeout_before", "ok")
    shop.retry(bill)
    shop.wait(hours=2)
    counts = shop.reconcile()
    assert (counts.charges["resent"], counts.charges["absent"]) == (0, 0)
    shop.expire_leases()
    assert shop.reconcile().charges["resent"] == 1
    assert_promises(shop)


def test_a_sending_attempt_is_given_up_only_after_its_lease(shop: Shop) -> None:
    bill = shop.failed_bill()
    shop.wait_for(bill)
    (claim,) = jobs_claim(now=shop.at, lease=LEASE, limit=1)
    prepared = attempt_prepare(claim, now=shop.at, lease=LEASE, timeout=timedelta(seconds=5))
    assert isinstance(prepared, Prepared)
    shop.wait(hours=2)
    assert (shop.reconcile().leases_expired, shop.attempt(bill).status) == (0, "SENDING")
    shop.expire_leases()
    assert shop.reconcile().leases_expired == 1
    assert shop.attempt(bill).status != "SENDING"
    assert shop.job(bill).status == "DONE"
    assert_promises(shop)


def test_a_worker_that_dies_after_sending_is_resolved(shop: Shop) -> None:
    bill = shop.failed_bill()
    shop.wait_for(bill)
    (claim,) = jobs_claim(now=shop.at, lease=LEASE, limit=1)
    prepared = attempt_prepare(claim, now=shop.at, lease=LEASE, timeout=timedelta(seconds=5))
    assert isinstance(prepared, Prepared)
    assert isinstance(charge_send(prepared), ChargeResult)  # and here it dies
    shop.expire_leases()
    shop.reconcile()
    shop.wait(hours=1)
    shop.reconcile()
    assert (shop.attempt(bill).status, shop.invoice(bill).status) == ("SUCCEEDED", "SETTLED")
    assert shop.charged(bill) == 2500
    assert_promises(shop)


# --- what a resend must respect -----------------------------------------------------------------------------------


@pytest.mark.parametrize("event", ["cancel", "paid", "token_removed", "less_due"])
def test_nothing_is_sent_again_that_is_no_longer_wanted(shop: Shop, event: str) -> None:
    bill = lost(shop, "timeout_before", "ok")
    match event:
        case "cancel":
            shop.cancel(bill)
        case "paid":
            shop.tell(bill.attempt(shop.wait(minutes=1)).charge_succeeded())
        case "token_removed":
            shop.tell(bill.method_detached(shop.wait(minutes=1)))
        case _:
            bill.amount = 2000
            shop.tell(bill.updated(shop.wait(minutes=1)))
    shop.wait(hours=1)
    assert shop.reconcile().charges["resent"] == 0
    assert (shop.attempt(bill).resends, references(shop, bill)) == (0, [])
    shop.wait(hours=13)
    assert shop.reconcile().charges["absent"] == 1
    assert shop.attempt(bill).status == "ERRORED"
    assert_promises(shop)


def test_a_disabled_connection_is_not_asked(shop: Shop) -> None:
    bill = lost(shop, "timeout_after_charge")
    connection_switch(connection_pk=shop.connection.pk, enabled=False)
    shop.wait(hours=3)
    counts = shop.reconcile()
    assert (counts.charges["adopted"], counts.charges["skipped"]) == (0, 1)
    assert shop.attempt(bill).status == "UNKNOWN"
    connection_switch(connection_pk=shop.connection.pk, enabled=True)
    assert shop.reconcile().charges["adopted"] == 1


# --- silence and staff --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("charged", [True, False])
def test_a_provider_that_stays_silent_for_a_day_is_a_question_for_staff(shop: Shop, charged: bool) -> None:
    bill = lost(shop, "timeout_after_charge" if charged else "timeout_before")
    Connection.objects.filter(pk=shop.connection.pk).update(base_url="http://127.0.0.1:9")
    shop.wait(hours=23)
    assert shop.reconcile().charges["waiting"] == 1
    assert shop.reviews(bill) == []
    shop.wait(hours=2)
    assert shop.reconcile().charges["staff"] == 1
    assert (shop.attempt(bill).status, shop.reviews(bill)) == ("UNKNOWN", ["unknown_attempt"])
    assert shop.case(bill).next_step == "staff"
    assert "unknown_attempt" in shop.alerts(bill)
    shop.reconcile()
    assert shop.reviews(bill) == ["unknown_attempt"]
    Connection.objects.filter(pk=shop.connection.pk).update(base_url=shop.sandbox.url)
    attempt_resolve(attempt_pk=shop.attempt(bill).pk, charged=charged, stamp=shop.staff(), note="asked them")
    assert shop.reviews(bill) == []
    assert shop.invoice(bill).status == ("SETTLED" if charged else "PROCESSING")
    assert_promises(shop)


def test_a_success_that_staff_denied_is_found_later(shop: Shop) -> None:
    """Late evidence beats the answer, with an alert; the plan that went on meanwhile may make it a second payment."""
    bill = lost(shop, "timeout_after_charge", "ok")
    attempt_resolve(attempt_pk=shop.attempt(bill).pk, charged=False, stamp=shop.staff(), note="not seen")
    first = shop.attempt(bill)
    assert first.status == "ERRORED"
    (charge,) = shop.sandbox.charges(bill.customer)
    told = bill.attempt(shop.wait(minutes=1), reference=first.public_id, charge=charge["id"])
    shop.tell(told.charge_succeeded())
    assert (shop.attempt(bill).status, shop.invoice(bill).status) == ("SUCCEEDED", "SETTLED")
    assert "late_success" in shop.alerts(bill)
    assert shop.drain().claimed == 0
    assert_promises(shop)


@pytest.mark.parametrize(
    "change",
    [
        {"amount_minor": 2600},
        {"currency": "EUR"},
        {"reference": "att_of_somebody_else"},
        {"token": "tok_of_somebody_else"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_an_answer_that_differs_is_never_adopted(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, change: dict[str, object]
) -> None:
    bill = lost(shop, "timeout_after_charge")
    attempt = shop.attempt(bill)
    answer = {
        "outcome": Outcome.SUCCEEDED,
        "provider_id": "ch_odd",
        "amount_minor": 2500,
        "currency": "USD",
        "reference": attempt.public_id,
        "token": bill.token,
        "raw": {"seen": "by the test"},
    }
    use(monkeypatch, lambda client: Looking(client, client.traits, ChargeResult(**{**answer, **change})))
    shop.wait(hours=1)
    assert shop.reconcile().charges["staff"] == 1
    assert (shop.attempt(bill).status, shop.invoice(bill).paid_minor) == ("UNKNOWN", 0)
    assert (shop.reviews(bill), shop.case(bill).next_step) == (["mismatch"], "staff")
    item = shop.invoice(bill).review_items.get(kind="mismatch")
    assert item.facts["raw"] == {"seen": "by the test"}


# --- clients that promise less ------------------------------------------------------------------------------------


class Looking:
    """A real client whose look-ups answer as told and whose traits are as told; charges go through."""

    def __init__(self, client: ProviderClient, traits: ClientTraits, found: ChargeResult | None = None) -> None:
        self.client, self.traits, self.found = client, traits, found

    def charge(self, request: object) -> ChargeResult:
        return self.client.charge(request)  # type: ignore[arg-type]

    def charge_find(self, reference: str) -> ChargeResult | None:
        assert self.traits.lookup is not Lookup.NONE, "this client cannot look anything up by reference"
        return self.found

    def charge_get(self, provider_id: str) -> ChargeResult | None:
        return self.found

    def charges_list(self, created_after: object) -> Iterator[ChargeResult]:
        return iter(())


def use(monkeypatch: pytest.MonkeyPatch, wrap: Callable[[ProviderClient], Looking]) -> None:
    for module in ("resolution", "scan"):
        path = f"retries.reconciliation.{module}.connection_client"
        monkeypatch.setattr(path, lambda connection: wrap(connection_client(connection)))


@pytest.mark.parametrize("lookup", [Lookup.NONE, Lookup.EVENTUAL])
def test_without_an_authoritative_look_up_only_the_same_key_is_safe(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, lookup: Lookup
) -> None:
    """The charge had happened: the same key finds it out; a new one would have charged twice."""
    bill = lost(shop, "timeout_after_charge", "ok")
    use(monkeypatch, lambda client: Looking(client, replace(client.traits, lookup=lookup)))
    shop.wait(hours=1)
    assert shop.reconcile().charges["resent"] == 1
    assert (shop.attempt(bill).status, shop.charged(bill)) == ("SUCCEEDED", 2500)
    assert len(references(shop, bill)) == 1
    assert_promises(shop)


@pytest.mark.parametrize("lookup", [Lookup.NONE, Lookup.EVENTUAL])
def test_past_half_the_keys_life_only_staff_may_decide(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, lookup: Lookup
) -> None:
    bill = lost(shop, "timeout_after_charge", "ok")
    use(monkeypatch, lambda client: Looking(client, replace(client.traits, lookup=lookup)))
    shop.wait(hours=12)
    counts = shop.reconcile()
    assert (counts.charges["resent"], counts.charges["staff"]) == (0, 1)
    assert (shop.attempt(bill).status, shop.attempt(bill).resends) == ("UNKNOWN", 0)
    assert shop.reviews(bill) == ["unknown_attempt"]
    assert len(references(shop, bill)) == 1


@pytest.mark.parametrize(("ttl_hours", "resent"), [(24, 1), (1, 0)])
def test_the_keys_life_is_the_clients(shop: Shop, monkeypatch: pytest.MonkeyPatch, ttl_hours: int, resent: int) -> None:
    traits = {"key_ttl": timedelta(hours=ttl_hours), "settles": Settles.NOW}
    bill = lost(shop, "timeout_before", "ok")
    use(monkeypatch, lambda client: Looking(client, replace(client.traits, **traits)))
    shop.wait(minutes=45)
    counts = shop.reconcile()
    assert (counts.charges["resent"], counts.charges["absent"]) == (resent, 1 - resent)
    assert shop.attempt(bill).status == ("SUCCEEDED" if resent else "ERRORED")


# --- awaiting -----------------------------------------------------------------------------------------------------


def awaiting(shop: Shop) -> Bill:
    bill = shop.failed_bill()
    shop.sandbox.script(bill.token, "pending", "ok")
    assert shop.retry(bill).awaiting == 1
    return bill


@pytest.mark.parametrize("end", ["succeeded", "declined"])
def test_a_settlement_is_read_when_it_is_due(shop: Shop, end: str) -> None:
    bill = awaiting(shop)
    (charge,) = shop.sandbox.charges(bill.customer)
    shop.sandbox.settle(charge["id"], end, "insufficient_funds" if end == "declined" else "")
    expected = shop.attempt(bill).expected_by
    assert expected is not None
    shop.wait_until(expected)
    shop.reconcile()
    assert shop.attempt(bill).status == end.upper()
    assert shop.case(bill).next_step == ("none" if end == "succeeded" else "booked")
    assert_promises(shop)


def test_a_settlement_that_stays_away_gets_its_time_once_more_then_staff(shop: Shop) -> None:
    bill = awaiting(shop)
    sent_at, first = shop.attempt(bill).attempted_at, shop.attempt(bill).expected_by
    assert first is not None
    shop.wait_until(first)
    shop.reconcile()
    second = shop.attempt(bill).expected_by
    assert second == first + (first - sent_at)
    assert (shop.case(bill).next_step, shop.case(bill).next_step_at, shop.reviews(bill)) == ("awaiting", second, [])
    shop.wait_until(second)
    shop.reconcile()
    assert (shop.reviews(bill), shop.case(bill).next_step) == (["overdue_settlement"], "staff")
    assert (shop.attempt(bill).status, len(references(shop, bill))) == ("AWAITING", 1)
    shop.wait(days=30)
    assert shop.drain().claimed == 0
    assert_promises(shop)


def test_an_early_answer_settles_it_before_its_time(shop: Shop) -> None:
    bill = awaiting(shop)
    attempt = shop.attempt(bill)
    told = bill.attempt(shop.wait(hours=5), reference=attempt.public_id, charge=attempt.provider_id or "")
    shop.tell(told.charge_succeeded())
    (charge,) = shop.sandbox.charges(bill.customer)
    shop.sandbox.settle(charge["id"])
    assert (shop.invoice(bill).status, shop.case(bill).status) == ("SETTLED", "RECOVERED")
    shop.wait(days=30)
    shop.reconcile()
    assert Attempt.objects.filter(invoice=shop.invoice(bill), origin="OURS").count() == 1
    assert_promises(shop)
