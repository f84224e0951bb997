"""Card disputes and bank returns of money that we collected: recorded, applied once, never charged again by machine."""

from datetime import timedelta
from zoneinfo import ZoneInfo

import pytest

from analytics.period import period_of
from analytics.rollups.reading import Figures
from analytics.selectors.cases import recovered_money
from recovery_site.common.errors import Conflict
from recovery_site.console.verification import verify
from retries.models import RetryJob
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
    question,
    refund_of,
    refunds,
    sandbox_tells,
    settle_refund,
    shown,
    totals,
)
from tests.retries.refunding import sandbox as sandbox
from tests.support.shop import Shop
from tests.support.stripe import Bill, StripeEvent
from webhooks.services import inbox_drain

pytestmark = pytest.mark.django_db(transaction=True)
ACH = {"type": "us_bank_account", "us_bank_account": {}}
SEPA = {"type": "sepa_debit", "sepa_debit": {}}


def dispute(shop: Shop, bill: Bill, status: str, **more: object) -> StripeEvent:
    """Stripe's word, now, about a dispute of the charge that we made."""
    known = {"reason": "product_not_received", **more}
    at = known.pop("at", shop.at)
    return bill.attempt(shop.at, charge=charge_id(shop, bill)).dispute(status, at, **known)  # type: ignore[arg-type]


def returned(shop: Shop, bill: Bill, code: str, method: dict[str, object]) -> StripeEvent:
    return dispute(shop, bill, "lost", network_reason_code=code, payment_method_details=method)


def open_jobs(shop: Shop, bill: Bill) -> list[tuple[str, str]]:
    found = RetryJob.objects.filter(invoice=shop.invoice(bill), kind="CHARGE", status__in=("SCHEDULED", "QUEUED"))
    return list(found.values_list("status", "trigger"))


# --- opened, won, lost ---------------------------------------------------------------


def test_dispute_that_moves_to_another_payment_is_refused_as_a_whole(shop: Shop) -> None:
    """Once taken for that payment's, it wrote its moves into the history of an invoice that it is not about."""
    first, second = collected(shop), collected(shop)
    opened = dispute(shop, first, "needs_response")
    shop.tell(opened)
    before = shop.invoice(second).last_seq
    shop.receive(dispute(shop, second, "lost", id=f"du_{first.key}_1"))
    assert inbox_drain(now=shop.at).as_dict() == {"processed": 0, "failed": 1, "ignored": 0}
    ((_, reason),) = shop.refused()
    assert "is known as one of another payment" in reason
    assert (shop.invoice(second).last_seq, shop.invoice(second).status) == (before, "SETTLED")
    assert verify(merchant=shop.merchant).problems == ()
    # Told without the charge's id it is the dispute that is known.
    nameless = dispute(shop, second, "lost", id=f"du_{first.key}_1", charge=None)
    shop.tell(nameless)
    assert (shop.invoice(first).status, shop.invoice(second).status) == ("PROCESS_FAILED", "SETTLED")
    assert_clean(shop)


def test_opened_dispute_is_recorded_and_changes_nothing_yet(shop: Shop) -> None:
    bill = collected(shop)
    shop.wait(days=3)
    opened = dispute(shop, bill, "needs_response")
    shop.tell(opened, opened.again())
    row = shop.invoice(bill).disputes.get()
    assert (row.kind, row.status, row.amount_minor, row.currency) == ("DISPUTE", "OPEN", 2500, "USD")
    assert (row.attempt, row.opened_at, row.closed_at, row.applied_at) == (shop.attempt(bill), shop.at, None, None)
    assert totals(shop, bill) == ("SETTLED", 2500, 0)
    assert (alerts(shop, bill), shop.reviews(bill), open_jobs(shop, bill)) == (["disputed"], [], [])
    assert history(shop, bill).count("dispute.opened") == 1
    assert_clean(shop)


def test_won_dispute_leaves_the_payment_as_it_was(shop: Shop) -> None:
    bill = collected(shop)
    shop.tell(dispute(shop, bill, "needs_response"))
    with pytest.raises(Conflict, match="disputed or was returned"):
        ask(shop, bill)
    shop.wait(days=20)
    shop.tell(dispute(shop, bill, "won"))
    row = shop.invoice(bill).disputes.get()
    assert (row.status, row.closed_at, row.applied_at) == ("WON", shop.at, None)
    assert totals(shop, bill) == ("SETTLED", 2500, 0)
    ask(shop, bill)
    assert shop.drain().succeeded == 1
    assert totals(shop, bill) == ("REFUNDED", 2500, 2500)
    assert_clean(shop)


def test_lost_dispute_reopens_the_invoice_for_people_only(shop: Shop) -> None:
    bill = collected(shop)
    shop.wait(days=20)
    lost = dispute(shop, bill, "lost")
    shop.tell(dispute(shop, bill, "needs_response"), lost, lost.again())
    row = shop.invoice(bill).disputes.get()
    assert (row.status, row.applied_at) == ("LOST", shop.at)
    assert totals(shop, bill) == ("PROCESS_FAILED", 0, 0)
    case = shop.case(bill)
    assert (case.status, case.next_step, case.automatic_barred, case.amount_minor) == ("OPEN", "customer", True, 2500)
    item = question(shop, bill)
    assert (item.kind, item.choices) == ("disputed", ["noted"])
    assert item.facts == {
        "kind": "Card dispute",
        "reason": "product_not_received",
        "amount_minor": 2500,
        "currency": "USD",
    }
    assert history(shop, bill).count("invoice.reverse") == 1
    assert open_jobs(shop, bill) == []
    # Neither the sweeps nor a new card start anything, for days.
    fresh = shop.bill(customer=bill.customer)
    shop.tell(fresh.method_attached(shop.at), fresh.method_updated(shop.at, {"card": {"exp_year": 2029}}))
    for _ in range(5):
        shop.wait(days=1)
        assert (shop.drain().claimed, open_jobs(shop, bill)) == (0, [])
        shop.reconcile()
    with pytest.raises(Conflict, match="would give it back twice"):
        ask(shop, bill)
    assert shop.charged(bill) == 2500
    assert_clean(shop)


def test_staff_may_charge_again_after_a_lost_dispute_and_that_is_audited(shop: Shop) -> None:
    bill = collected(shop)
    shop.tell(dispute(shop, bill, "lost"))
    shop.wait(days=1)
    shop.retry_now(bill)
    assert open_jobs(shop, bill) == [("SCHEDULED", "staff")]
    audited = shop.invoice(bill).events.get(kind="staff.retry")
    assert (audited.actor, audited.data["reason"]) == ("user:ann", "customer called")
    assert shop.drain().succeeded == 1
    assert totals(shop, bill) == ("SETTLED", 2500, 0)
    assert (shop.case(bill).status, shop.case(bill).recovered_by) == ("RECOVERED", "staff")
    assert shop.charged(bill) == 5000
    assert_clean(shop)


def test_customers_own_payment_after_a_lost_dispute_settles(shop: Shop) -> None:
    bill = collected(shop)
    shop.tell(dispute(shop, bill, "lost"))
    paid = charge_at_provider(shop, bill, 2500)
    shop.tell(bill.attempt(shop.wait(days=2), charge=paid).charge_succeeded())
    assert totals(shop, bill) == ("SETTLED", 2500, 0)
    assert (shop.case(bill).status, shop.case(bill).recovered_by) == ("RECOVERED", "provider")


def test_dispute_over_a_part_makes_only_that_part_due_again(shop: Shop) -> None:
    bill = collected(shop)
    shop.tell(dispute(shop, bill, "lost", amount=900))
    assert totals(shop, bill) == ("PROCESS_FAILED", 1600, 0)
    assert (shop.invoice(bill).due_minor, shop.case(bill).amount_minor) == (900, 900)
    shop.wait(days=1)
    shop.retry_now(bill)
    assert shop.drain().succeeded == 1
    assert (totals(shop, bill), shop.charged(bill)) == (("SETTLED", 2500, 0), 3400)
    assert_clean(shop)


def test_news_of_a_dispute_in_the_wrong_order_end_alike(shop: Shop) -> None:
    """Won on day 20, told before the loss of day 10 and the opening."""
    bill = collected(shop)
    day = shop.at
    shop.wait(days=30)
    won = dispute(shop, bill, "won", at=day + timedelta(days=20))
    shop.tell(won, dispute(shop, bill, "lost", at=day + timedelta(days=10)))
    shop.tell(dispute(shop, bill, "needs_response", at=day + timedelta(days=1)))
    row = shop.invoice(bill).disputes.get()
    assert (row.status, row.closed_at) == ("WON", day + timedelta(days=20))
    assert totals(shop, bill) == ("SETTLED", 2500, 0)


def test_dispute_that_is_lost_after_it_was_won_takes_the_money(shop: Shop) -> None:
    """The issuer goes on after the representment: the money that was won back is gone again."""
    bill = collected(shop)
    shop.tell(dispute(shop, bill, "won"))
    shop.wait(days=15)
    shop.tell(dispute(shop, bill, "lost"))
    assert shop.invoice(bill).disputes.get().status == "LOST"
    assert totals(shop, bill) == ("PROCESS_FAILED", 0, 0)
    shop.wait(days=15)
    shop.tell(dispute(shop, bill, "won"))
    assert totals(shop, bill) == ("SETTLED", 2500, 0)
    assert (shop.case(bill).status, shop.case(bill).close_reason, shop.reviews(bill)) == (
        "RECOVERED",
        "paid",
        [],
    )
    assert_clean(shop)


def test_dispute_in_another_currency_is_put_before_staff_and_not_subtracted(shop: Shop) -> None:
    bill = collected(shop)
    shop.tell(dispute(shop, bill, "lost", currency="eur", amount=2300))
    assert totals(shop, bill) == ("SETTLED", 2500, 0)
    row = shop.invoice(bill).disputes.get()
    assert (row.status, row.currency, row.applied_at) == ("LOST", "EUR", None)
    item = question(shop, bill, "disputed")
    assert item.facts["why"] == "It is in EUR, the payment was in USD: what it takes back has to be worked out by hand."
    assert_clean(shop)


# --- open invoices ---------------------------------------------------------------


def part_paid(shop: Shop) -> tuple[Bill, str]:
    bill = shop.failed_bill()
    paid = charge_at_provider(shop, bill, 1000)
    shop.tell(bill.attempt(shop.at, amount=1000, charge=paid).charge_succeeded())
    assert (totals(shop, bill), open_jobs(shop, bill)) == (("PROCESSING", 1000, 0), [("SCHEDULED", "automatic")])
    return bill, paid


def test_lost_dispute_of_a_part_payment_stops_the_retries_of_the_rest(shop: Shop) -> None:
    bill, paid = part_paid(shop)
    shop.tell(bill.attempt(shop.at, charge=paid).dispute("lost", shop.at, amount=1000, reason="general"))
    assert totals(shop, bill) == ("PROCESS_FAILED", 0, 0)
    assert (shop.case(bill).next_step, shop.case(bill).automatic_barred, open_jobs(shop, bill)) == (
        "customer",
        True,
        [],
    )
    shop.wait(days=3)
    assert shop.drain().claimed == 0
    assert shop.charged(bill) == 1000


def test_return_of_a_part_payment_that_may_be_presented_again_raises_what_is_charged(shop: Shop) -> None:
    bill, paid = part_paid(shop)
    shop.tell(
        bill.attempt(shop.at, charge=paid).dispute(
            "lost", shop.at, amount=1000, network_reason_code="R01", payment_method_details=ACH
        )
    )
    assert (totals(shop, bill), shop.invoice(bill).due_minor) == (("PROCESSING", 0, 0), 2500)
    assert open_jobs(shop, bill) == [("SCHEDULED", "automatic")]
    assert shop.job(bill).transaction.amount_minor == 2500
    shop.wait_for(bill)
    assert shop.drain().succeeded == 1
    assert (totals(shop, bill), shop.charged(bill)) == (("SETTLED", 2500, 0), 3500)


# --- bank returns ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "method"),
    [("R01", ACH), ("R09", ACH), ("AM04", SEPA), ("MS03", SEPA), ("insufficient_funds", SEPA)],
)
def test_return_for_want_of_money_is_presented_again(shop: Shop, code: str, method: dict[str, object]) -> None:
    bill = collected(shop)
    shop.wait(days=2)
    told = returned(shop, bill, code, method)
    shop.tell(told, told.again())
    first = shop.attempt(bill)
    assert (first.status, first.returned_at) == ("SUCCEEDED", shop.at)
    assert shop.invoice(bill).disputes.get().kind == "RETURN"
    assert totals(shop, bill) == ("PROCESSING", 0, 0)
    assert (shop.case(bill).automatic_barred, open_jobs(shop, bill)) == (False, [("SCHEDULED", "automatic")])
    assert (alerts(shop, bill), shop.reviews(bill)) == ([], [])
    shop.wait_for(bill)
    assert shop.drain().succeeded == 1
    assert (totals(shop, bill), shop.charged(bill)) == (("SETTLED", 2500, 0), 5000)
    assert_clean(shop)


@pytest.mark.parametrize(
    ("code", "method"),
    [("R02", ACH), ("R03", ACH), ("R10", ACH), ("R29", ACH), ("AC04", SEPA), ("MD01", SEPA), ("MD06", SEPA)],
)
def test_return_for_any_other_reason_is_never_presented_again(shop: Shop, code: str, method: dict[str, object]) -> None:
    bill = collected(shop)
    shop.tell(returned(shop, bill, code, method))
    assert shop.attempt(bill).returned_at == shop.at
    assert totals(shop, bill) == ("PROCESS_FAILED", 0, 0)
    assert (shop.case(bill).automatic_barred, open_jobs(shop, bill)) == (True, [])
    assert "disputed" in shop.reviews(bill)
    shop.tell(shop.bill(customer=bill.customer).method_attached(shop.at))
    shop.wait(days=4)
    assert (shop.drain().claimed, shop.charged(bill)) == (0, 2500)


# --- beside refunds ---------------------------------------------------------------


def test_refund_that_was_booked_before_the_loss_is_not_sent(shop: Shop) -> None:
    bill = collected(shop)
    ask(shop, bill, 1000)
    shop.tell(dispute(shop, bill, "lost"))
    assert totals(shop, bill) == ("REFUNDING", 2500, 0)
    counts = shop.drain()
    assert (counts.claimed, counts.refused) == (1, 1)
    assert (refunds(shop, bill), given_back(shop, bill)) == ([("FAILED", 1000)], [])
    assert refund_of(shop, bill).failure == (
        "It was not sent: the payment is disputed or was returned, so the bank moves that money."
    )
    # With no refund open the loss takes effect.
    assert totals(shop, bill) == ("PROCESS_FAILED", 0, 0)
    assert shop.case(bill).automatic_barred is True
    assert_clean(shop)


def test_refund_that_another_one_has_overtaken_is_not_sent(shop: Shop) -> None:
    """Between the click and the sending somebody gave most of it back at the provider."""
    bill = collected(shop)
    ask(shop, bill, 1000)
    made = shop.sandbox.refund(charge_id(shop, bill), 2000, key=f"by-hand-{bill.key}")
    sandbox_tells(shop, "refund.succeeded", shown(shop, "refund", made["id"]))
    shop.process()
    assert shop.drain().refused == 1
    assert refunds(shop, bill) == [("FAILED", 1000), ("DONE", 2000)]
    assert refund_of(shop, bill).status == "DONE"
    assert totals(shop, bill) == ("SETTLED", 2500, 2000)
    assert [refund["amount"] for refund in given_back(shop, bill)] == [2000]
    assert_clean(shop)


def test_loss_while_a_refund_is_on_its_way_waits_for_the_refunds_end(shop: Shop) -> None:
    bill = collected(shop)
    shop.sandbox.script(f"refund:{charge_id(shop, bill)}", "pending")
    ask(shop, bill, 1000)
    shop.drain()
    shop.tell(dispute(shop, bill, "lost", amount=1500))
    assert (totals(shop, bill), shop.invoice(bill).disputes.get().applied_at) == (("REFUNDING", 2500, 0), None)
    settle_refund(shop, call_of(shop, bill).provider_id or "", status="succeeded")
    shop.wait(minutes=31)
    shop.reconcile()
    assert shop.invoice(bill).disputes.get().applied_at == shop.at
    assert totals(shop, bill) == ("PROCESS_FAILED", 1000, 1000)
    assert_clean(shop)


def test_loss_after_everything_was_given_back_is_money_gone_twice(shop: Shop) -> None:
    bill = collected(shop)
    ask(shop, bill)
    shop.drain()
    shop.tell(dispute(shop, bill, "lost"))
    assert totals(shop, bill) == ("REFUNDED", 2500, 2500)
    assert shop.invoice(bill).disputes.get().applied_at is None
    assert question(shop, bill, "disputed").facts["why"] == "The money was refunded already, so it is gone twice."
    # The refund comes back: then the loss is what took the money.
    told = shown(shop, "refund", call_of(shop, bill).provider_id or "")
    sandbox_tells(shop, "refund.failed", {**told, "status": "failed", "failure_code": "account_closed"})
    shop.process()
    assert totals(shop, bill) == ("PROCESS_FAILED", 0, 0)
    assert_clean(shop)


def test_loss_of_money_that_came_for_a_canceled_invoice(shop: Shop) -> None:
    bill = shop.failed_bill()
    shop.cancel(bill)
    paid = charge_at_provider(shop, bill, 2500)
    told = bill.attempt(shop.at, charge=paid)
    shop.tell(told.charge_succeeded(), told.dispute("lost", shop.at, reason="general"))
    assert totals(shop, bill) == ("CANCELED", 2500, 0)
    assert shop.reviews(bill) == ["disputed", "paid_after_cancel"]
    assert open_jobs(shop, bill) == []


# --- what people see ---------------------------------------------------------------


def net(shop: Shop) -> list[tuple[int, int, int]]:
    period = period_of(400, shop.at, ZoneInfo("UTC"))
    return [
        (money.gross_minor, money.back_minor, money.net_minor)
        for money in recovered_money(Figures(shop.merchant, period))
    ]


def test_recovered_revenue_nets_what_went_back(shop: Shop) -> None:
    bill = collected(shop)
    assert net(shop) == [(2500, 0, 2500)]
    ask(shop, bill, 700)
    shop.wait(days=1)
    shop.drain()
    assert net(shop) == [(2500, 700, 1800)]
    told = shown(shop, "refund", call_of(shop, bill).provider_id or "")
    sandbox_tells(shop, "refund.failed", {**told, "status": "failed", "failure_code": "account_closed"})
    shop.process()
    assert net(shop) == [(2500, 0, 2500)]
    shop.tell(dispute(shop, bill, "lost", amount=900))
    assert net(shop) == [(2500, 900, 1600)]
    shop.wait(days=9)
    shop.tell(dispute(shop, bill, "won", amount=900))
    assert [money[2] for money in net(shop)] == [2500]
