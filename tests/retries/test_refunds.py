"""Refunds that people ask for: sent under the charge protocol, never more than was paid, never without a word."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta

import pytest
from django.db import IntegrityError, connection

from accounts.models import GlobalSwitch
from invoices.models import Attempt, Transaction
from invoices.services.ledger import Stamp
from invoices.services.parties import connection_switch
from recovery_site.common.errors import Conflict, InvalidInput, NotFound
from retries.models import RetryJob
from retries.refunding import refund_approve, refund_refuse, refund_request
from retries.refunding import request as request_module
from tests.retries.refunding import (
    alerts,
    ask,
    assert_clean,
    call_of,
    charge_at_provider,
    charge_id,
    collected,
    given_back,
    history,
    kinds,
    moved_back,
    question,
    refund_job,
    refund_of,
    refunds,
    script,
    totals,
)
from tests.retries.refunding import (
    sandbox as sandbox,
)
from tests.support.locks import no_locks
from tests.support.shop import Shop

pytestmark = pytest.mark.django_db(transaction=True)


# --- one refund, whole and in parts ---------------------------------------------------------------------------------


def test_full_refund_is_booked_then_sent_once_under_its_own_key(shop: Shop) -> None:
    bill = collected(shop)
    refund = ask(shop, bill)
    assert totals(shop, bill) == ("REFUNDING", 2500, 0)
    assert refunds(shop, bill) == [("INIT", 2500)]
    assert given_back(shop, bill) == []
    assert (refund_job(shop, bill).status, refund_job(shop, bill).due_at) == ("SCHEDULED", shop.at)
    counts = shop.drain()
    assert (counts.claimed, counts.succeeded) == (1, 1)
    assert totals(shop, bill) == ("REFUNDED", 2500, 2500)
    call = call_of(shop, bill)
    (sent,) = given_back(shop, bill)
    assert (sent["charge"], sent["amount"], sent["currency"], sent["status"]) == (
        charge_id(shop, bill),
        2500,
        "USD",
        "succeeded",
    )
    assert (sent["id"], sent["reference"], sent["idempotency_key"]) == (
        call.provider_id,
        call.public_id,
        call.idempotency_key,
    )
    assert (call.status, call.trigger, call.captured_minor) == ("SUCCEEDED", "staff", 2500)
    assert refund_job(shop, bill).status == "DONE"
    told = [kind for kind in history(shop, bill) if kind.startswith(("invoice.", "transaction.", "attempt."))]
    assert told[-7:] == [
        "transaction.created",
        "invoice.begin_refund",
        "transaction.submit",
        "attempt.sending",
        "attempt.succeed",
        "transaction.succeed",
        "invoice.finish_refund",
    ]
    assert refund_of(shop, bill).pk == refund.pk
    assert shop.drain().claimed == 0
    assert_clean(shop)


def test_partial_refunds_leave_the_invoice_settled_until_all_is_given_back(shop: Shop) -> None:
    bill = collected(shop)
    ask(shop, bill, 1000)
    shop.drain()
    assert totals(shop, bill) == ("SETTLED", 2500, 1000)
    moved = shop.invoice(bill).events.get(kind="invoice.settle_again")
    assert moved.data == {"reason": "partial refund done"}
    ask(shop, bill, 700)
    shop.drain()
    assert totals(shop, bill) == ("SETTLED", 2500, 1700)
    ask(shop, bill)
    shop.drain()
    assert totals(shop, bill) == ("REFUNDED", 2500, 2500)
    assert [refund["amount"] for refund in given_back(shop, bill)] == [1000, 700, 800]
    assert_clean(shop)


def test_second_refund_while_the_first_is_open(shop: Shop) -> None:
    bill = collected(shop)
    ask(shop, bill, 1000)
    ask(shop, bill, 1500)
    assert refunds(shop, bill) == [("INIT", 1000), ("INIT", 1500)]
    assert shop.drain().succeeded == 2
    assert totals(shop, bill) == ("REFUNDED", 2500, 2500)
    assert moved_back(shop, bill) == 2500
    assert history(shop, bill).count("invoice.begin_refund") == 1
    assert_clean(shop)


def test_one_of_two_open_refunds_fails_the_other_stands(shop: Shop) -> None:
    bill = collected(shop)
    script(shop, bill, "decline:expired_or_canceled_card", "ok")
    ask(shop, bill, 1000)
    ask(shop, bill, 1500)
    shop.drain()
    assert sorted(refunds(shop, bill)) in (
        [("DONE", 1000), ("FAILED", 1500)],
        [("DONE", 1500), ("FAILED", 1000)],
    )
    status, paid, back = totals(shop, bill)
    assert (status, paid, back) == ("SETTLED", 2500, moved_back(shop, bill))
    assert_clean(shop)


# --- the cap ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("amount", [2501, 0, -1])
def test_amount_outside_of_what_is_left_is_refused(shop: Shop, amount: int) -> None:
    bill = collected(shop)
    before = history(shop, bill)
    with pytest.raises(InvalidInput, match=r"^At most \$25\.00 of this payment can still be refunded"):
        ask(shop, bill, amount)
    assert (refunds(shop, bill), history(shop, bill)) == ([], before)


def test_open_refunds_count_against_the_cap_from_the_moment_they_are_asked_for(shop: Shop) -> None:
    bill = collected(shop)
    ask(shop, bill, 2000)
    with pytest.raises(InvalidInput, match=r"At most \$5\.00"):
        ask(shop, bill, 501)
    ask(shop, bill, 500)
    with pytest.raises(Conflict, match="Nothing of this invoice's payments is left"):
        ask(shop, bill, 1)
    assert refunds(shop, bill) == [("INIT", 2000), ("INIT", 500)]


def test_failed_refund_frees_the_cap_and_passes_the_providers_word_on(shop: Shop) -> None:
    bill = collected(shop)
    script(shop, bill, "decline:charge_for_pending_refund_disputed", "ok")
    ask(shop, bill, 2000)
    assert shop.drain().declined == 1
    assert refunds(shop, bill) == [("FAILED", 2000)]
    assert refund_of(shop, bill).failure == "charge_for_pending_refund_disputed"
    assert (call_of(shop, bill).status, call_of(shop, bill).raw_code) == (
        "DECLINED",
        "charge_for_pending_refund_disputed",
    )
    assert totals(shop, bill) == ("SETTLED", 2500, 0)
    assert alerts(shop, bill) == ["refund_failed"]
    ask(shop, bill)
    assert shop.drain().succeeded == 1
    assert totals(shop, bill) == ("REFUNDED", 2500, 2500)
    assert moved_back(shop, bill) == 2500
    assert_clean(shop)


def test_refund_whose_result_nobody_knows_holds_its_share_of_the_cap(shop: Shop) -> None:
    bill = collected(shop)
    script(shop, bill, "http500_after_charge")
    ask(shop, bill, 2000)
    assert shop.drain().unknown == 1
    assert (totals(shop, bill), refunds(shop, bill)) == (("REFUNDING", 2500, 0), [("PROCESSING", 2000)])
    with pytest.raises(InvalidInput, match=r"At most \$5\.00"):
        ask(shop, bill, 2500)
    assert refunds(shop, bill) == [("PROCESSING", 2000)]


def test_refund_that_the_provider_refuses_fails_at_once(shop: Shop) -> None:
    """Somebody has given the money back at the provider itself, and we were not told."""
    bill = collected(shop)
    shop.sandbox.refund(charge_id(shop, bill), 2000, key=f"by-hand-{bill.key}")
    ask(shop, bill)
    assert shop.drain().rescheduled == 1
    refund = refund_of(shop, bill)
    assert (refund.status, call_of(shop, bill).status) == ("FAILED", "ERRORED")
    assert refund.failure == f"The provider refused the refund ({call_of(shop, bill).raw_code})."
    assert totals(shop, bill) == ("SETTLED", 2500, 0)
    assert alerts(shop, bill) == ["refund_failed"]
    shop.wait(days=2)
    assert shop.drain().claimed == 0
    assert moved_back(shop, bill) == 2000


# --- what may be refunded -------------------------------------------------------------------------------------------


def test_nothing_to_refund(shop: Shop) -> None:
    bill = shop.failed_bill()
    with pytest.raises(Conflict, match="Nothing of this invoice's payments is left that could be refunded"):
        ask(shop, bill)
    with pytest.raises(NotFound, match="This invoice does not exist"):
        refund_request(invoice_pk=10**9, amount_minor=None, reason="x", stamp=shop.staff())


def test_money_that_never_went_through_the_provider_is_refunded_where_it_was_taken(shop: Shop) -> None:
    bill = shop.failed_bill()
    invoice_paid = bill.updated(shop.at, status="paid", paid=bill.amount, charge=None, payment_intent=None)
    shop.tell(invoice_paid)
    assert shop.invoice(bill).status == "SETTLED"
    with pytest.raises(Conflict, match="refund it where it was taken"):
        ask(shop, bill)


def test_of_several_payments_one_must_be_named(shop: Shop) -> None:
    bill = collected(shop)
    second = bill.attempt(shop.at)
    shop.tell(second.charge_succeeded())
    first, twice = Transaction.objects.filter(invoice=shop.invoice(bill), kind="CHARGE", status="DONE").order_by("id")
    with pytest.raises(InvalidInput, match=f"name one of {first.public_id}, {twice.public_id}"):
        ask(shop, bill)
    with pytest.raises(Conflict, match="Nothing of this invoice's payments is left"):
        ask(shop, bill, charge="txn_unheard_of")
    refund = ask(shop, bill, charge=first.public_id)
    assert (refund.refund_of_id, refund.amount_minor) == (first.pk, 2500)
    shop.drain()
    assert totals(shop, bill) == ("SETTLED", 5000, 2500)
    assert moved_back(shop, bill) == 2500


def test_money_of_a_canceled_invoice_is_refunded_without_changing_its_state(shop: Shop) -> None:
    bill = shop.failed_bill("tok_ok")
    shop.sandbox.script(bill.token, "pending")
    assert shop.retry(bill).awaiting == 1
    shop.cancel(bill)
    shop.sandbox.settle(shop.attempt(bill).provider_id or "")
    shop.wait(days=8)
    shop.reconcile()
    assert totals(shop, bill) == ("CANCELED", 2500, 0)
    assert shop.reviews(bill) == ["paid_after_cancel"]
    ask(shop, bill)
    assert totals(shop, bill) == ("CANCELED", 2500, 0)
    assert shop.drain().succeeded == 1
    assert totals(shop, bill) == ("CANCELED", 2500, 2500)
    assert moved_back(shop, bill) == 2500
    assert_clean(shop)


def test_part_payment_of_an_open_invoice_is_refunded_and_recovery_goes_on(shop: Shop) -> None:
    bill = shop.failed_bill()
    told = bill.attempt(shop.at, amount=1000, charge=charge_at_provider(shop, bill, 1000))
    shop.tell(told.charge_succeeded())
    assert totals(shop, bill) == ("PROCESSING", 1000, 0)
    booked = shop.job(bill)
    ask(shop, bill)
    assert shop.drain().succeeded == 1
    assert totals(shop, bill) == ("PROCESSING", 1000, 1000)
    assert (moved_back(shop, bill), shop.invoice(bill).due_minor) == (1000, 1500)
    assert RetryJob.objects.get(invoice=shop.invoice(bill), kind="CHARGE", status="SCHEDULED") == booked
    shop.wait_until(booked.due_at)
    assert shop.drain().succeeded == 1
    assert totals(shop, bill) == ("SETTLED", 2500, 1000)


# --- a second person --------------------------------------------------------------------------------------------------


@pytest.fixture
def careful(shop: Shop) -> Shop:
    shop.merchant.refund_approval_above_minor = 1000
    shop.merchant.save(update_fields=["refund_approval_above_minor"])
    return shop


def stamp(shop: Shop, actor: str) -> Stamp:
    return Stamp(actor=actor, cause="test", now=shop.at)


def test_refund_above_the_limit_waits_for_a_second_person(careful: Shop) -> None:
    shop, bill = careful, collected(careful)
    refund = ask(shop, bill, 1001, actor="user:ann")
    item = question(shop, bill, "refund_approval")
    assert item.facts == {
        "amount_minor": 1001,
        "all_refunds_minor": 1001,
        "currency": "USD",
        "reason": "not as described",
        "requested_by": "user:ann",
    }
    assert item.choices == ["approve", "refuse"]
    assert (totals(shop, bill), refunds(shop, bill)) == (("REFUNDING", 2500, 0), [("INIT", 1001)])
    # It is no orphan however long it waits, it holds its share, and nothing is sent.
    shop.wait(days=3)
    assert shop.drain().claimed == 0
    assert shop.reconcile().refunds["failed"] == 0
    with pytest.raises(InvalidInput, match=r"At most \$14\.99"):
        ask(shop, bill, 1500)
    with pytest.raises(Conflict, match="somebody else has to approve it"):
        refund_approve(refund_pk=refund.pk, stamp=stamp(shop, "user:ann"))
    assert shop.drain().claimed == 0
    refund_approve(refund_pk=refund.pk, stamp=stamp(shop, "user:bob"), note="looked at it")
    item.refresh_from_db()
    assert (item.resolution, item.resolved_by, item.note) == ("approve", "user:bob", "looked at it")
    assert shop.drain().succeeded == 1
    assert (totals(shop, bill), moved_back(shop, bill)) == (("SETTLED", 2500, 1001), 1001)
    with pytest.raises(Conflict, match="waits for nobody's approval"):
        refund_approve(refund_pk=refund.pk, stamp=stamp(shop, "user:bob"))
    assert shop.drain().claimed == 0
    assert_clean(shop)


def test_refused_refund_is_never_sent_and_frees_the_cap(careful: Shop) -> None:
    shop, bill = careful, collected(careful)
    refund = ask(shop, bill, 2500)
    refund_refuse(refund_pk=refund.pk, stamp=stamp(shop, "user:bob"))
    assert refunds(shop, bill) == [("FAILED", 2500)]
    assert refund_of(shop, bill).failure == "refused by a second person"
    assert totals(shop, bill) == ("SETTLED", 2500, 0)
    with pytest.raises(Conflict, match="waits for nobody's approval"):
        refund_approve(refund_pk=refund.pk, stamp=stamp(shop, "user:bob"))
    ask(shop, bill, 1000)
    assert shop.drain().succeeded == 1
    assert moved_back(shop, bill) == 1000
    assert_clean(shop)


def test_limit_itself_needs_no_second_person(careful: Shop) -> None:
    bill = collected(careful)
    ask(careful, bill, 1000)
    assert careful.reviews(bill) == []
    assert careful.drain().succeeded == 1


def test_several_small_refunds_are_one_large_one(careful: Shop) -> None:
    """Open, done and approved ones count together; what failed or was refused does not."""
    shop, bill = careful, collected(careful)
    ask(shop, bill, 400)
    assert shop.drain().succeeded == 1
    ask(shop, bill, 600)
    assert (shop.reviews(bill), moved_back(shop, bill)) == ([], 400)
    too_much = ask(shop, bill, 1, actor="user:ann")
    assert question(shop, bill, "refund_approval").facts["all_refunds_minor"] == 1001
    with pytest.raises(Conflict, match="somebody else"):
        refund_approve(refund_pk=too_much.pk, stamp=stamp(shop, "user:ann"))
    refund_refuse(refund_pk=too_much.pk, stamp=stamp(shop, "user:bob"))
    script(shop, bill, "decline:expired_or_canceled_card", "ok")
    assert shop.drain().declined == 1
    ask(shop, bill, 600)
    assert shop.reviews(bill) == []
    ask(shop, bill, 1)
    assert shop.reviews(bill) == ["refund_approval"]


@pytest.mark.parametrize("decide", [refund_approve, refund_refuse])
def test_only_refunds_can_be_decided(careful: Shop, decide: object) -> None:
    bill = collected(careful)
    charge = Transaction.objects.get(invoice=careful.invoice(bill), kind="CHARGE", status="DONE")
    with pytest.raises(NotFound, match="This refund does not exist"):
        decide(refund_pk=charge.pk, stamp=stamp(careful, "user:bob"))  # type: ignore[operator]


# --- two clicks at once -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("locked", [False, True])
def test_two_clicks_at_once_never_give_back_more_than_was_paid(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, locked: bool
) -> None:
    """Without the locks both clicks see the whole amount; with them the second waits and sees nothing left."""
    bill = collected(shop)
    invoice_pk = shop.invoice(bill).pk
    both, seen = threading.Barrier(2), list[int]()
    look = request_module.refundable_minor

    def looked_together(charge: Transaction) -> int:
        room = look(charge)
        with suppress(threading.BrokenBarrierError):
            both.wait(1 if locked else 30)
        seen.append(room)
        return room

    monkeypatch.setattr(request_module, "refundable_minor", looked_together)
    if not locked:
        no_locks(monkeypatch)

    def click(_: int) -> str:
        try:
            refund_request(invoice_pk=invoice_pk, amount_minor=2500, reason="click", stamp=shop.staff())
        except (Conflict, InvalidInput, IntegrityError) as error:
            return type(error).__name__
        finally:
            connection.close()
        return "booked"

    with ThreadPoolExecutor(2) as pool:
        answers = sorted(pool.map(click, range(2)))
    if not locked:
        # The race is real; even then the chain's sequence number lets only one of them commit.
        assert seen.count(2500) > 2
        assert answers == ["IntegrityError", "booked"]
    else:
        assert 0 in seen
        assert answers == ["Conflict", "booked"]
    assert refunds(shop, bill) == [("INIT", 2500)]
    monkeypatch.undo()
    shop.drain()
    assert moved_back(shop, bill) == 2500


def test_two_workers_send_one_refund_once(shop: Shop) -> None:
    bill = collected(shop)
    ask(shop, bill)
    gate = threading.Barrier(2)

    def drain(_: int) -> int:
        gate.wait(60)
        try:
            return shop.drain().claimed
        finally:
            connection.close()

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(drain, range(2))) == [0, 1]
    assert len(given_back(shop, bill)) == 1


# --- failures on the way ----------------------------------------------------------------------------------------------


def test_soft_failures_climb_the_ladder_and_end_with_staff(shop: Shop) -> None:
    bill = collected(shop)
    script(shop, bill, "http429:0")
    ask(shop, bill)
    waited = []
    for _ in range(5):
        asked_at = shop.at
        assert shop.drain().rescheduled == 1
        job = refund_job(shop, bill)
        assert (job.status, refunds(shop, bill)) == ("SCHEDULED", [("RETRYING", 2500)])
        waited.append(job.due_at - asked_at)
        assert shop.drain().claimed == 0
        shop.wait_until(job.due_at)
    minutes, hours = timedelta(minutes=1), timedelta(hours=1)
    assert waited == [minutes, 5 * minutes, 30 * minutes, 3 * hours, 12 * hours]
    assert shop.drain().rescheduled == 1
    assert (refunds(shop, bill), totals(shop, bill)) == ([("FAILED", 2500)], ("SETTLED", 2500, 0))
    assert alerts(shop, bill) == ["refund_failed"]
    calls = Attempt.objects.filter(invoice=shop.invoice(bill), kind="REFUND")
    assert [call.status for call in calls] == ["ERRORED"] * 6
    assert len({call.idempotency_key for call in calls}) == 6
    assert given_back(shop, bill) == []
    assert_clean(shop)


def test_provider_that_asks_for_more_patience_gets_it(shop: Shop) -> None:
    bill = collected(shop)
    script(shop, bill, "http429:7200", "ok")
    ask(shop, bill)
    asked_at = shop.at
    shop.drain()
    assert refund_job(shop, bill).due_at == asked_at + timedelta(hours=2)
    shop.wait(hours=2)
    assert shop.drain().succeeded == 1
    assert (totals(shop, bill), moved_back(shop, bill)) == (("REFUNDED", 2500, 2500), 2500)


def test_outage_of_the_provider_is_outlasted(shop: Shop) -> None:
    """Nothing listens at the address: provably unsent, so it is sent again as soon as somebody does."""
    bill = collected(shop)
    ask(shop, bill)
    url = shop.connection.base_url
    shop.connection.base_url = "http://127.0.0.1:9"
    shop.connection.save(update_fields=["base_url"])
    assert shop.drain().rescheduled == 1
    assert (call_of(shop, bill).status, call_of(shop, bill).raw_code) == ("ERRORED", "network_error")
    assert totals(shop, bill) == ("REFUNDING", 2500, 0)
    shop.connection.base_url = url
    shop.connection.save(update_fields=["base_url"])
    shop.wait(minutes=1)
    assert shop.drain().succeeded == 1
    assert (totals(shop, bill), moved_back(shop, bill)) == (("REFUNDED", 2500, 2500), 2500)
    assert_clean(shop)


def test_kill_switch_and_disabled_connection_hold_refunds_back(shop: Shop) -> None:
    bill = collected(shop)
    ask(shop, bill)
    connection_switch(connection_pk=shop.connection.pk, enabled=False)
    assert shop.drain().claimed == 0
    connection_switch(connection_pk=shop.connection.pk, enabled=True)
    GlobalSwitch.objects.update_or_create(pk=1, defaults={"charging_enabled": False})
    assert shop.drain().claimed == 0
    GlobalSwitch.objects.all().delete()
    assert given_back(shop, bill) == []
    assert shop.drain().succeeded == 1


def test_refund_neither_takes_the_slot_nor_the_cards_budget(shop: Shop) -> None:
    bill = collected(shop)
    other = shop.failed_bill(bill.token, customer=bill.customer)
    booked = shop.job(other)
    assert (booked.status, booked.kind) == ("SCHEDULED", "CHARGE")
    ask(shop, bill)
    assert shop.drain().succeeded == 1
    assert shop.job(other) == booked
    assert shop.job(other).status == "SCHEDULED"
    assert call_of(shop, bill).counts is False
    assert call_of(shop, bill).card_id is None
    assert [kind for kind in kinds(shop.invoice(other)) if kind.startswith("transaction.")] == [
        "transaction.created",
        "transaction.submit",
        "transaction.retry_later",
    ]
