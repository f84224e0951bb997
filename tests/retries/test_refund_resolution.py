"""Refunds that got stuck: looked up, adopted, failed, put before staff, and never sent twice (DESIGN section 11)."""

from datetime import timedelta
from typing import Any

import pytest
import structlog
from django.db.models.functions import Now

from invoices.models import Attempt, Transaction
from invoices.services.ledger import Stamp
from invoices.services.parties import connection_switch
from providers.base import ChargeResult, ClientTraits, Lookup, Outcome, ProviderUncertain
from providers.sandbox.client import SandboxClient
from recovery_site.common.errors import Conflict, InvalidInput
from retries.engine.claim import jobs_claim
from retries.refunding.send import PreparedRefund, refund_answer, refund_prepare, refund_send
from retries.services.answers import review_answer
from tests.retries.refunding import (
    alerts,
    ask,
    assert_clean,
    call_of,
    charge_id,
    collected,
    given_back,
    history,
    moved_back,
    question,
    refund_job,
    refund_of,
    refunds,
    sandbox_tells,
    script,
    settle_refund,
    shown,
    totals,
)
from tests.retries.refunding import sandbox as sandbox
from tests.support.shop import Shop
from tests.support.stripe import Bill

pytestmark = pytest.mark.django_db(transaction=True)
LEASE = timedelta(minutes=5)


def lost(shop: Shop, step: str = "http500_after_charge") -> Bill:
    """A refund whose reply got lost."""
    bill = collected(shop)
    script(shop, bill, step)
    ask(shop, bill)
    assert shop.drain().unknown == 1
    shop.expire_leases()
    return bill


def prepared(shop: Shop, bill: Bill) -> PreparedRefund:
    """The intent is committed; the worker dies right after."""
    ask(shop, bill)
    (claim,) = jobs_claim(now=shop.at, lease=LEASE, limit=10)
    found = refund_prepare(claim, now=shop.at, lease=LEASE, timeout=timedelta(seconds=5))
    assert isinstance(found, PreparedRefund)
    return found


def nothing(**done: int) -> dict[str, int]:
    return {"synced": 0, "adopted": 0, "failed": 0, "staff": 0, "waiting": 0, "skipped": 0, "resent": 0} | done


def unchanged(shop: Shop, bill: Bill) -> tuple[Any, ...]:
    """Everything about a refund that a look must not touch."""
    call, refund = call_of(shop, bill), refund_of(shop, bill)
    return (
        (call.status, call.provider_id, call.resends, call.finished_at, call.expected_by),
        (refund.status, refund.failure, refund.finished_at),
        totals(shop, bill),
        history(shop, bill),
    )


# --- orphans: the provider's id is not known ------------------------------------------------------------------------


def test_orphan_that_the_provider_has_is_adopted_by_our_reference(shop: Shop) -> None:
    bill = lost(shop)
    assert (call_of(shop, bill).status, call_of(shop, bill).provider_id) == ("UNKNOWN", None)
    shop.wait(minutes=6)
    with structlog.testing.capture_logs() as logs:
        assert shop.reconcile().refunds == nothing(adopted=1)
    (sent,) = given_back(shop, bill)
    assert (call_of(shop, bill).status, call_of(shop, bill).provider_id) == ("SUCCEEDED", sent["id"])
    assert totals(shop, bill) == ("REFUNDED", 2500, 2500)
    (line,) = [line for line in logs if line["event"] == "reconcile"]
    assert line == {
        "event": "reconcile",
        "log_level": "info",
        "action": "refund_adopted",
        "attempt": call_of(shop, bill).public_id,
        "status": "SUCCEEDED",
        "stuck": "0:06:00",
    }
    assert_clean(shop)


def test_recent_orphan_is_left_alone(shop: Shop) -> None:
    bill = lost(shop)
    before = unchanged(shop, bill)
    shop.wait(minutes=4, seconds=59)
    assert shop.reconcile().refunds == nothing()
    assert unchanged(shop, bill) == before


def test_orphan_of_a_worker_that_died_before_the_reply(shop: Shop) -> None:
    bill = collected(shop)
    refund_send(prepared(shop, bill))
    assert (call_of(shop, bill).status, moved_back(shop, bill)) == ("SENDING", 2500)
    shop.wait(minutes=6)
    counts = shop.reconcile()
    assert (counts.leases_expired, counts.refunds) == (0, nothing())
    shop.expire_leases()
    counts = shop.reconcile()
    assert (counts.leases_expired, counts.refunds) == (1, nothing(adopted=1))
    assert (totals(shop, bill), moved_back(shop, bill)) == (("REFUNDED", 2500, 2500), 2500)
    assert_clean(shop)


def test_orphan_that_is_surely_absent_fails_and_the_invoice_is_settled_again(shop: Shop) -> None:
    bill = lost(shop, "timeout_before")
    with pytest.raises(Conflict):
        ask(shop, bill)
    shop.wait(minutes=9, seconds=59)
    assert shop.reconcile().refunds == nothing(waiting=1)
    assert totals(shop, bill) == ("REFUNDING", 2500, 0)
    shop.wait(minutes=1)
    with structlog.testing.capture_logs() as logs:
        assert shop.reconcile().refunds == nothing(failed=1)
    assert (call_of(shop, bill).status, call_of(shop, bill).raw_code) == ("ERRORED", "absent")
    assert refunds(shop, bill) == [("FAILED", 2500)]
    assert refund_of(shop, bill).failure == "The provider does not know this refund."
    assert totals(shop, bill) == ("SETTLED", 2500, 0)
    assert alerts(shop, bill) == ["refund_failed"]
    (line,) = [line for line in logs if line["event"] == "reconcile"]
    assert (line["log_level"], line["action"], line["status"]) == ("error", "refund_failed", "FAILED")
    assert (line["transactionId"], line["stuck"]) == (refund_of(shop, bill).public_id, "0:10:59")
    # The cap is free again, and what is asked for now is another refund under another key.
    ask(shop, bill)
    script(shop, bill, "ok")
    assert shop.drain().succeeded == 1
    assert (totals(shop, bill), moved_back(shop, bill)) == (("REFUNDED", 2500, 2500), 2500)
    assert_clean(shop)


def test_absent_proves_nothing_while_the_lease_of_its_worker_runs(shop: Shop) -> None:
    bill = lost(shop, "timeout_before")
    Attempt.objects.filter(pk=call_of(shop, bill).pk).update(lease_until=Now() + timedelta(hours=1))
    before = unchanged(shop, bill)
    shop.wait(hours=5)
    assert shop.reconcile().refunds == nothing(waiting=1)
    assert unchanged(shop, bill) == before


def test_reply_that_comes_after_the_refund_was_called_absent_is_a_late_success(shop: Shop) -> None:
    bill = collected(shop)
    sleeper = prepared(shop, bill)
    shop.expire_leases()
    shop.wait(minutes=11)
    assert shop.reconcile().refunds == nothing(failed=1)
    assert totals(shop, bill) == ("SETTLED", 2500, 0)
    result = SandboxClient({"base_url": shop.sandbox.url}).refund(sleeper.request)
    assert refund_answer(sleeper.attempt_pk, result, now=shop.at, cause="the worker woke up") == "SUCCEEDED"
    assert refunds(shop, bill) == [("DONE", 2500)]
    assert totals(shop, bill) == ("REFUNDED", 2500, 2500)
    assert alerts(shop, bill) == ["refund_failed", "late_success"]
    assert_clean(shop)


def orphan(shop: Shop, bill: Bill) -> Transaction:
    """A refund that was written down, and whose booking got lost."""
    with_job = ask(shop, bill, 1000)
    with_job.jobs.all().delete()
    return with_job


def test_orphan_without_a_call_was_never_sent(shop: Shop) -> None:
    bill = collected(shop)
    orphan(shop, bill)
    shop.wait(minutes=4, seconds=59)
    assert shop.reconcile().refunds == nothing()
    assert (refunds(shop, bill), totals(shop, bill)) == ([("INIT", 1000)], ("REFUNDING", 2500, 0))
    shop.wait(seconds=1)
    with structlog.testing.capture_logs() as logs:
        assert shop.reconcile().refunds == nothing(failed=1)
    assert refunds(shop, bill) == [("FAILED", 1000)]
    assert refund_of(shop, bill).failure == "The refund was never sent."
    assert totals(shop, bill) == ("SETTLED", 2500, 0)
    assert [line["log_level"] for line in logs if line["event"] == "reconcile"] == ["error"]
    assert given_back(shop, bill) == []
    assert_clean(shop)


def test_refund_that_waits_for_its_next_try_is_no_orphan(shop: Shop) -> None:
    bill = collected(shop)
    script(shop, bill, "http429:36000")
    ask(shop, bill)
    assert shop.drain().rescheduled == 1
    shop.wait(hours=9)
    assert shop.reconcile().refunds == nothing()
    assert refunds(shop, bill) == [("RETRYING", 2500)]


# --- stuck: the provider knows it, and its last word is missing -----------------------------------------------------


def pending(shop: Shop) -> Bill:
    bill = collected(shop)
    script(shop, bill, "pending")
    ask(shop, bill)
    assert shop.drain().awaiting == 1
    assert (call_of(shop, bill).status, totals(shop, bill)) == ("AWAITING", ("REFUNDING", 2500, 0))
    return bill


def settle(shop: Shop, bill: Bill, **outcome: str) -> None:
    settle_refund(shop, call_of(shop, bill).provider_id or "", **outcome)


def test_stuck_refund_is_synced(shop: Shop) -> None:
    bill = pending(shop)
    settle(shop, bill, status="succeeded")
    shop.wait(minutes=29)
    assert shop.reconcile().refunds == nothing()
    shop.wait(minutes=2)
    assert shop.reconcile().refunds == nothing(synced=1)
    assert (call_of(shop, bill).status, totals(shop, bill)) == ("SUCCEEDED", ("REFUNDED", 2500, 2500))
    assert_clean(shop)


def test_stuck_refund_that_failed_passes_the_providers_error_text_on(shop: Shop) -> None:
    bill = pending(shop)
    settle(shop, bill, status="failed", failure_code="insufficient_funds_at_merchant")
    shop.wait(minutes=31)
    assert shop.reconcile().refunds == nothing(synced=1)
    assert refunds(shop, bill) == [("FAILED", 2500)]
    assert refund_of(shop, bill).failure == "insufficient_funds_at_merchant"
    assert totals(shop, bill) == ("SETTLED", 2500, 0)
    assert alerts(shop, bill) == ["refund_failed"]
    assert_clean(shop)


def test_refund_that_is_still_pending_stays_as_it_is(shop: Shop) -> None:
    bill = pending(shop)
    before = unchanged(shop, bill)
    shop.wait(hours=1)
    assert shop.reconcile().refunds == nothing(waiting=1)
    assert unchanged(shop, bill) == before
    assert shop.reviews(bill) == []


@pytest.mark.parametrize("kind", ["stuck", "orphan"])
def test_provider_that_cannot_be_read_leaves_the_row_intact(shop: Shop, kind: str) -> None:
    bill = pending(shop) if kind == "stuck" else lost(shop)
    before = unchanged(shop, bill)
    url, shop.connection.base_url = shop.connection.base_url, "http://127.0.0.1:9"
    shop.connection.save(update_fields=["base_url"])
    shop.wait(hours=1)
    assert shop.reconcile().refunds == nothing(waiting=1)
    assert unchanged(shop, bill) == before
    shop.connection.base_url = url
    shop.connection.save(update_fields=["base_url"])
    if kind == "stuck":
        settle(shop, bill, status="succeeded")
    shop.wait(hours=1)
    assert shop.reconcile().refunds == nothing(**{"synced" if kind == "stuck" else "adopted": 1})
    assert totals(shop, bill) == ("REFUNDED", 2500, 2500)


def test_provider_that_cannot_be_read_for_a_day_is_a_question_for_staff(shop: Shop) -> None:
    bill = lost(shop)
    shop.connection.base_url = "http://127.0.0.1:9"
    shop.connection.save(update_fields=["base_url"])
    shop.wait(hours=24)
    assert shop.reconcile().refunds == nothing(waiting=1)
    shop.wait(minutes=1)
    assert shop.reconcile().refunds == nothing(staff=1)
    assert shop.reviews(bill) == ["refund_stuck"]
    assert alerts(shop, bill) == ["refund_stuck"]
    assert "cannot be read now" in question(shop, bill).facts["why"]
    assert totals(shop, bill) == ("REFUNDING", 2500, 0)
    shop.wait(hours=23)
    shop.reconcile()
    assert alerts(shop, bill) == ["refund_stuck"]


@pytest.mark.parametrize("kind", ["stuck", "orphan"])
def test_disabled_connection_is_skipped(shop: Shop, kind: str) -> None:
    bill = pending(shop) if kind == "stuck" else lost(shop, "timeout_before")
    connection_switch(connection_pk=shop.connection.pk, enabled=False)
    before = unchanged(shop, bill)
    shop.wait(hours=3)
    assert shop.reconcile().refunds == nothing(skipped=1)
    assert unchanged(shop, bill) == before
    connection_switch(connection_pk=shop.connection.pk, enabled=True)
    settled = nothing(failed=1) if kind == "orphan" else nothing(waiting=1)
    assert shop.reconcile().refunds == settled


@pytest.mark.parametrize("end", ["DONE", "FAILED", "ERRORED"])
def test_terminal_states_are_left_alone(shop: Shop, end: str) -> None:
    bill = collected(shop)
    script(shop, bill, {"DONE": "ok", "FAILED": "decline:no", "ERRORED": "timeout_before"}[end])
    ask(shop, bill)
    shop.drain()
    if end == "ERRORED":
        shop.expire_leases()
        shop.wait(minutes=11)
        shop.reconcile()
    assert call_of(shop, bill).status == {"DONE": "SUCCEEDED", "FAILED": "DECLINED", "ERRORED": "ERRORED"}[end]
    before = unchanged(shop, bill)
    shop.wait(days=30)
    assert shop.reconcile().refunds == nothing()
    assert unchanged(shop, bill) == before


# --- webhooks beside resolution ---------------------------------------------------------------------------------------


def test_late_webhook_about_a_synced_refund_changes_nothing(shop: Shop) -> None:
    bill = pending(shop)
    settle(shop, bill, status="succeeded")
    shop.wait(minutes=31)
    shop.reconcile()
    before = unchanged(shop, bill)
    told = shown(shop, "refund", call_of(shop, bill).provider_id or "")
    assert sandbox_tells(shop, "refund.succeeded", told) == 1
    assert sandbox_tells(shop, "refund.succeeded", told) == 0
    assert sandbox_tells(shop, "refund.succeeded", told, name="evt_told_again") == 1
    assert sandbox_tells(shop, "refund.pending", {**told, "status": "pending"}) == 1
    assert shop.process().processed == 3
    assert unchanged(shop, bill) == before
    assert refunds(shop, bill) == [("DONE", 2500)]


def test_webhook_that_overtakes_the_reply_makes_the_reply_a_no_op(shop: Shop) -> None:
    bill = collected(shop)
    going = prepared(shop, bill)
    result = refund_send(going)
    assert isinstance(result, ChargeResult)
    sandbox_tells(shop, "refund.succeeded", shown(shop, "refund", result.provider_id))
    assert shop.process().processed == 1
    assert totals(shop, bill) == ("REFUNDED", 2500, 2500)
    assert call_of(shop, bill).provider_id == result.provider_id
    assert refund_job(shop, bill).status == "DONE"
    before = unchanged(shop, bill)
    assert refund_answer(going.attempt_pk, result, now=shop.at, cause="reply") == "SUCCEEDED"
    assert unchanged(shop, bill) == before
    shop.expire_leases()
    shop.wait(days=1)
    assert shop.reconcile().refunds == nothing()
    assert shop.drain().claimed == 0
    assert_clean(shop)


def test_webhook_that_says_pending_names_an_unknown_refund(shop: Shop) -> None:
    bill = lost(shop)
    (sent,) = given_back(shop, bill)
    told = {**shown(shop, "refund", sent["id"]), "status": "pending"}
    sandbox_tells(shop, "refund.pending", told)
    assert shop.process().processed == 1
    call = call_of(shop, bill)
    assert (call.status, call.provider_id) == ("AWAITING", sent["id"])
    shop.wait(minutes=31)
    assert shop.reconcile().refunds == nothing(synced=1)
    assert totals(shop, bill) == ("REFUNDED", 2500, 2500)
    assert_clean(shop)


def test_webhook_before_the_payment_is_known_waits_and_is_then_matched(shop: Shop) -> None:
    bill = shop.bill()
    first = bill.attempt(shop.at)
    refund = first.refund("1", 2500, shop.at + timedelta(minutes=5))
    shop.receive(refund)
    assert shop.process().processed == 0
    assert shop.waiting() == ["refund.created"]
    shop.tell(*first.succeeded())
    shop.wait(minutes=2)
    shop.process()
    assert (shop.waiting(), totals(shop, bill)) == ([], ("REFUNDED", 2500, 2500))
    shop.tell(refund.again())
    assert refunds(shop, bill) == [("DONE", 2500)]
    assert_clean(shop)


def test_refund_made_at_the_provider_is_followed_to_its_end_without_further_webhooks(shop: Shop) -> None:
    """Somebody refunds in the provider's own dashboard: told once as pending, then never again."""
    bill = collected(shop)
    shop.sandbox.script(f"refund:{charge_id(shop, bill)}", "pending")
    made = shop.sandbox.refund(charge_id(shop, bill), 1000, key=f"dashboard-{bill.key}")
    sandbox_tells(shop, "refund.pending", shown(shop, "refund", made["id"]))
    assert shop.process().processed == 1
    call = call_of(shop, bill)
    assert (call.origin, call.status, call.provider_id) == ("PROVIDER", "AWAITING", made["id"])
    assert totals(shop, bill) == ("REFUNDING", 2500, 0)
    with pytest.raises(InvalidInput, match=r"At most \$15\.00"):
        ask(shop, bill, 2500)
    settle_refund(shop, made["id"], status="succeeded")
    shop.wait(minutes=31)
    assert shop.reconcile().refunds == nothing(synced=1)
    assert (totals(shop, bill), refunds(shop, bill)) == (("SETTLED", 2500, 1000), [("DONE", 1000)])
    assert_clean(shop)


def test_refund_that_is_taken_back_after_it_succeeded(shop: Shop) -> None:
    bill = collected(shop)
    ask(shop, bill)
    shop.drain()
    assert totals(shop, bill) == ("REFUNDED", 2500, 2500)
    told = shown(shop, "refund", call_of(shop, bill).provider_id or "")
    failed = {**told, "status": "failed", "failure_code": "account_closed"}
    sandbox_tells(shop, "refund.failed", failed)
    assert shop.process().processed == 1
    assert totals(shop, bill) == ("SETTLED", 2500, 0)
    refund = refund_of(shop, bill)
    assert (refund.status, refund.reversed_at, refund.failure) == ("DONE", shop.at, "account_closed")
    assert shop.invoice(bill).events.filter(kind="invoice.settle_again").get().data == {"reason": "refund reversed"}
    assert alerts(shop, bill) == ["refund_failed"]
    before = unchanged(shop, bill)
    sandbox_tells(shop, "refund.failed", failed, name="evt_failed_again")
    sandbox_tells(shop, "refund.succeeded", told, name="evt_late")
    shop.process()
    assert unchanged(shop, bill) == before
    # The money is with the merchant again: it can be given back once more.
    ask(shop, bill)
    assert refunds(shop, bill) == [("DONE", 2500), ("INIT", 2500)]
    assert_clean(shop)


# --- what no machine can find out -------------------------------------------------------------------------------------


def test_refund_that_is_pending_beyond_its_time_is_a_question_for_staff(shop: Shop) -> None:
    bill = pending(shop)
    shop.wait(days=9)
    assert shop.reconcile().refunds == nothing(waiting=1)
    shop.wait(days=1, seconds=1)
    assert shop.reconcile().refunds == nothing(staff=1)
    item = question(shop, bill)
    assert (item.kind, item.choices, item.subject_id) == (
        "refund_stuck",
        ["refunded", "not_refunded"],
        call_of(shop, bill).public_id,
    )
    assert item.facts["why"] == "the refund is still pending after its usual time"
    assert alerts(shop, bill) == ["refund_stuck"]
    # The provider's last word answers it, and nobody has to.
    settle(shop, bill, status="succeeded")
    shop.wait(days=2)
    assert shop.reconcile().refunds == nothing(synced=1)
    assert (totals(shop, bill), shop.reviews(bill)) == (("REFUNDED", 2500, 2500), [])
    item.refresh_from_db()
    assert (item.resolution, item.resolved_by) == ("answered_by_events", "system:engine")
    assert_clean(shop)


@pytest.mark.parametrize("answer", ["refunded", "not_refunded"])
def test_staff_resolve_a_stuck_refund(shop: Shop, answer: str) -> None:
    bill = pending(shop)
    shop.wait(days=10, seconds=1)
    shop.reconcile()
    stamp = Stamp(actor="user:bob", cause="staff queue", now=shop.at)
    review_answer(item_pk=question(shop, bill).pk, answer=answer, stamp=stamp, note="asked the bank")
    if answer == "refunded":
        assert (totals(shop, bill), refunds(shop, bill)) == (("REFUNDED", 2500, 2500), [("DONE", 2500)])
    else:
        assert (totals(shop, bill), refunds(shop, bill)) == (("SETTLED", 2500, 0), [("FAILED", 2500)])
    assert shop.reviews(bill) == []
    audited = shop.invoice(bill).events.get(kind="staff.resolve")
    assert (audited.actor, audited.data) == ("user:bob", {"answer": answer, "note": "asked the bank"})
    before = unchanged(shop, bill)
    shop.wait(days=5)
    assert shop.reconcile().refunds == nothing()
    assert unchanged(shop, bill) == before
    assert_clean(shop)


def test_provider_proves_staff_wrong(shop: Shop) -> None:
    """Staff said that it was not refunded; the provider's own word overrules them, with an alert."""
    bill = pending(shop)
    shop.wait(days=10, seconds=1)
    shop.reconcile()
    stamp = Stamp(actor="user:bob", cause="staff queue", now=shop.at)
    review_answer(item_pk=question(shop, bill).pk, answer="not_refunded", stamp=stamp)
    settle(shop, bill, status="succeeded")
    sandbox_tells(shop, "refund.succeeded", shown(shop, "refund", call_of(shop, bill).provider_id or ""))
    shop.process()
    assert (totals(shop, bill), refunds(shop, bill)) == (("REFUNDED", 2500, 2500), [("DONE", 2500)])
    assert alerts(shop, bill) == ["refund_stuck", "refund_failed", "late_success"]
    assert_clean(shop)


def test_staffs_word_leaves_room_for_the_providers_id(shop: Shop) -> None:
    """A refund that staff call done has no id; the provider's event brings it and makes no second refund."""
    bill = lost(shop)
    shop.connection.base_url = "http://127.0.0.1:9"
    shop.connection.save(update_fields=["base_url"])
    shop.wait(hours=25)
    shop.reconcile()
    stamp = Stamp(actor="user:bob", cause="staff queue", now=shop.at)
    review_answer(item_pk=question(shop, bill).pk, answer="refunded", stamp=stamp)
    assert (call_of(shop, bill).status, call_of(shop, bill).provider_id) == ("SUCCEEDED", None)
    (sent,) = given_back(shop, bill)
    told = shown(shop, "refund", sent["id"])
    sandbox_tells(shop, "refund.succeeded", told)
    shop.process()
    assert (call_of(shop, bill).provider_id, refunds(shop, bill)) == (sent["id"], [("DONE", 2500)])
    sandbox_tells(shop, "refund.failed", {**told, "reference": None, "status": "failed", "failure_code": "closed"})
    shop.process()
    assert totals(shop, bill) == ("SETTLED", 2500, 0)
    assert len(refunds(shop, bill)) == 1


# --- a provider whose look-up proves nothing ------------------------------------------------------------------------


@pytest.fixture
def hazy(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> Shop:
    """The sandbox behind a client as Stripe's: a look-up by our reference may come too early and prove nothing."""
    start = SandboxClient.__init__

    def hazy_start(self: SandboxClient, config: dict[str, Any]) -> None:
        start(self, config)
        self.traits = ClientTraits(
            key_ttl=timedelta(hours=24),
            lookup=Lookup.EVENTUAL,
            settles=self.traits.settles,
            timeout_seconds=self.traits.timeout_seconds,
        )

    monkeypatch.setattr(SandboxClient, "__init__", hazy_start)
    monkeypatch.setattr(SandboxClient, "refund_find", lambda self, reference: None)
    return shop


@pytest.mark.parametrize("step", ["timeout_before", "reset_after_charge"])
def test_refund_is_sent_again_under_its_own_key_where_absence_proves_nothing(hazy: Shop, step: str) -> None:
    bill = lost(hazy, step)
    script(hazy, bill, "ok")
    key = call_of(hazy, bill).idempotency_key
    hazy.wait(minutes=9)
    assert hazy.reconcile().refunds == nothing(waiting=1)
    hazy.wait(minutes=2)
    assert hazy.reconcile().refunds == nothing(resent=1)
    (sent,) = given_back(hazy, bill)
    assert (sent["idempotency_key"], sent["amount"], sent["status"]) == (key, 2500, "succeeded")
    assert (call_of(hazy, bill).status, call_of(hazy, bill).resends) == ("SUCCEEDED", 1)
    assert "attempt.resent" in history(hazy, bill)
    assert (totals(hazy, bill), moved_back(hazy, bill)) == (("REFUNDED", 2500, 2500), 2500)
    assert_clean(hazy)


def test_refund_is_not_sent_again_once_its_payment_was_taken_back(hazy: Shop) -> None:
    bill = lost(hazy, "timeout_before")
    script(hazy, bill, "ok")
    told = bill.attempt(hazy.at, charge=charge_id(hazy, bill))
    hazy.tell(told.dispute("lost", hazy.at))
    hazy.wait(minutes=11)
    assert hazy.reconcile().refunds == nothing(waiting=1)
    assert (given_back(hazy, bill), call_of(hazy, bill).status) == ([], "UNKNOWN")


def test_key_that_is_half_used_up_is_not_trusted_any_more(hazy: Shop) -> None:
    bill = lost(hazy, "timeout_before")
    script(hazy, bill, "ok")
    hazy.wait(hours=12)
    assert hazy.reconcile().refunds == nothing(waiting=1)
    hazy.wait(hours=12, seconds=1)
    assert hazy.reconcile().refunds == nothing(staff=1)
    assert question(hazy, bill).facts["why"] == "the provider cannot say whether the refund exists"
    assert given_back(hazy, bill) == []
    with pytest.raises(Conflict):
        ask(hazy, bill)


def test_resend_that_gets_lost_leaves_the_refund_unknown(hazy: Shop) -> None:
    bill = lost(hazy, "timeout_before")
    script(hazy, bill, "http429:0", "http500_before", "ok")
    hazy.wait(minutes=11)
    assert hazy.reconcile().refunds == nothing(resent=1)
    assert (call_of(hazy, bill).status, refunds(hazy, bill)) == ("UNKNOWN", [("PROCESSING", 2500)])
    hazy.expire_leases()
    hazy.wait(minutes=40)
    assert hazy.reconcile().refunds == nothing(resent=1)
    assert (call_of(hazy, bill).status, call_of(hazy, bill).resends) == ("UNKNOWN", 2)


# --- answers that belong to something else ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        {"amount_minor": 2400},
        {"currency": "EUR"},
        {"reference": "att_of_another"},
    ],
)
def test_answer_about_another_refund_is_never_adopted(shop: Shop, wrong: dict[str, Any]) -> None:
    bill = lost(shop)
    facts: dict[str, Any] = {
        "outcome": Outcome.SUCCEEDED,
        "provider_id": "re_other",
        "amount_minor": 2500,
        "currency": "USD",
        "reference": call_of(shop, bill).public_id,
        "raw": {"id": "re_other", "seen": True},
    }
    result = ChargeResult(**(facts | wrong))
    assert refund_answer(call_of(shop, bill).pk, result, now=shop.at, cause="test") == "UNKNOWN"
    item = question(shop, bill, "refund_stuck")
    assert item.facts["raw"] == {"id": "re_other", "seen": True}
    assert totals(shop, bill) == ("REFUNDING", 2500, 0)
    # The right answer later closes the question.
    shop.wait(minutes=6)
    assert shop.reconcile().refunds == nothing(adopted=1)
    assert (totals(shop, bill), shop.reviews(bill)) == (("REFUNDED", 2500, 2500), [])


def test_id_of_another_refund_is_never_adopted(shop: Shop) -> None:
    bill = collected(shop)
    ask(shop, bill, 1000)
    assert shop.drain().succeeded == 1
    first = call_of(shop, bill)
    going = prepared(shop, bill)
    taken = ChargeResult(
        outcome=Outcome.SUCCEEDED,
        provider_id=first.provider_id or "",
        amount_minor=1500,
        currency="USD",
        reference=going.request.reference,
        raw={"id": first.provider_id},
    )
    assert refund_answer(going.attempt_pk, taken, now=shop.at, cause="reply") == "UNKNOWN"
    assert refunds(shop, bill) == [("DONE", 1000), ("PROCESSING", 1500)]
    assert question(shop, bill, "refund_stuck").facts["raw"] == {"id": first.provider_id}


def test_answer_that_makes_no_sense_is_kept_for_staff(shop: Shop) -> None:
    bill = collected(shop)
    going = prepared(shop, bill)
    raw = {"status": 200, "body": "<html>maintenance</html>"}
    answer = ProviderUncertain("The provider answered without a result.", **raw)
    assert refund_answer(going.attempt_pk, answer, now=shop.at, cause="reply") == "UNKNOWN"
    assert call_of(shop, bill).decision["raw_answer"] == raw
    event = shop.invoice(bill).events.get(kind="attempt.lose_track", subject_id=going.request.reference)
    assert event.data == {"why": "The provider answered without a result."}
