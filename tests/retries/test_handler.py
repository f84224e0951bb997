"""What a provider's events do to the ledger: one road, nothing lost, nothing believed twice."""

from collections.abc import Callable
from datetime import timedelta

import pytest

from invoices.models import Attempt, Invoice, ProviderPayment
from retries.models import Case, RetryJob
from retries.states import JOB_OPEN
from tests.support.books import assert_chain, assert_next_steps, assert_slots, assert_totals
from tests.support.shop import Shop
from tests.support.stripe import BASIL, OLD
from tokens.models import Token

pytestmark = pytest.mark.django_db
DAY = timedelta(days=1)
VERSIONS = pytest.mark.parametrize("version", [OLD, BASIL])


def open_cases(shop: Shop) -> int:
    return Case.objects.filter(merchant=shop.merchant, status="OPEN").count()


# --- failures -----------------------------------------------------------------------------------------------------


@VERSIONS
def test_a_failed_charge_told_by_four_events_is_one_attempt(shop: Shop, version: str) -> None:
    bill = shop.bill(version=version, subscription="sub_1")
    shop.fail(bill, code="insufficient_funds")
    (attempt,) = shop.attempts(bill)
    assert (attempt.origin, attempt.status, attempt.raw_code) == ("PROVIDER", "DECLINED", "insufficient_funds")
    assert attempt.provider_id == f"ch_{bill.key}_1"
    assert attempt.category == "INSUFFICIENT_FUNDS"
    assert attempt.token == shop.token(bill)
    invoice = shop.invoice(bill)
    assert (invoice.status, invoice.amount_minor, invoice.currency) == ("PROCESSING", 2500, "USD")
    assert (invoice.number, invoice.subscription_id) == (f"N-{bill.key}", "sub_1")
    case, job = shop.case(bill), shop.job(bill)
    assert (case.status, case.next_step, case.next_step_at) == ("OPEN", "booked", bill.at + DAY)
    assert (job.status, job.due_at, job.token) == ("SCHEDULED", bill.at + DAY, shop.token(bill))
    assert [charge.status for charge in invoice.transactions.all()] == ["RETRYING"]
    assert Invoice.objects.filter(merchant=shop.merchant).count() == 1
    assert_chain(invoice)


@VERSIONS
def test_what_the_biller_says_first_is_taken_over_though_our_clock_is_ahead(shop: Shop, version: str) -> None:
    """Events are processed after they happened; the first description must not count as newer than they are."""
    bill = shop.bill(version=version, subscription="sub_7")
    tried = bill.attempt()
    shop.wait(minutes=5)
    at = bill.at + 3 * DAY
    shop.tell(tried.charge_failed(), tried.invoice_failed(next_payment_attempt=int(at.timestamp())))
    invoice = shop.invoice(bill)
    assert (invoice.provider_retry_at, invoice.provider_attempt_count) == (at, 1)
    assert (invoice.subscription_id, invoice.number) == ("sub_7", f"N-{bill.key}")


@VERSIONS
def test_an_older_description_told_later_changes_nothing(shop: Shop, version: str) -> None:
    bill = shop.bill(version=version)
    tried = bill.attempt()
    older, newer = bill.updated(bill.at + timedelta(hours=1), number="old"), bill.updated(bill.at + DAY, number="new")
    shop.wait(days=2)
    shop.tell(*tried.failed(), newer, older)
    assert shop.invoice(bill).number == "new"


def test_two_failed_tries_of_the_provider_are_two_attempts(shop: Shop) -> None:
    bill = shop.bill()
    shop.fail(bill)
    shop.wait(days=3)
    shop.fail(bill, code="do_not_honor")
    assert [attempt.raw_code for attempt in shop.attempts(bill)] == ["insufficient_funds", "do_not_honor"]
    assert open_cases(shop) == 1
    assert shop.case(bill).code == "do_not_honor"


@VERSIONS
def test_the_biller_alone_tells_two_failed_tries_in_any_order(shop: Shop, version: str) -> None:
    """Without charge events the biller's own count tells its tries apart."""
    for order in ([0, 1], [1, 0], [0, 1, 0, 1], [1, 1, 0, 0]):
        bill = shop.bill(version=version)
        tries = [bill.attempt(), bill.attempt(bill.at + 3 * DAY)]
        bill_at, shop.at = shop.at, bill.at + 4 * DAY
        for index in order:
            shop.tell(tries[index].invoice_failed().again())
        assert len(shop.attempts(bill)) == 2, order
        shop.at = bill_at


@VERSIONS
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2), (1, 2, 0)])
def test_a_failure_flagged_as_fraud_is_given_up_in_every_order(
    shop: Shop, version: str, order: tuple[int, ...]
) -> None:
    bill = shop.bill(version=version)
    events = bill.attempt(code="fraudulent").failed()[:3]
    shop.tell(*(events[index] for index in order))
    shop.tell(*(event.again() for event in events))
    (attempt,) = shop.attempts(bill)
    assert attempt.category == "FRAUD_FLAGGED"
    assert [(case.status, case.next_step) for case in Case.objects.filter(merchant=shop.merchant)] == [("LOST", "none")]
    assert shop.invoice(bill).status == "PROCESS_FAILED"
    assert shop.reviews(bill) == ["fraud"]
    assert not RetryJob.objects.filter(merchant=shop.merchant, status__in=("SCHEDULED", "QUEUED", "RUNNING")).exists()
    assert shop.token(bill).status == "declined"


@pytest.mark.parametrize("first", ["charge", "intent"])
def test_the_networks_advice_counts_whichever_event_brings_it(shop: Shop, first: str) -> None:
    """A payment intent of an old version carries only the code, its charge the advice of the network."""
    bill = shop.bill(network="mastercard")
    tried = bill.attempt(code="do_not_honor", network_code="79", advice_code="03")
    events = [tried.charge_failed(), tried.intent_failed(), tried.invoice_failed()]
    shop.tell(*(events if first == "charge" else [events[1], events[0], events[2]]))
    card, token = shop.card(bill), shop.token(bill)
    assert card.stopped_at is not None
    assert (card.stop_code, card.stop_revivable, token.status) == ("03", False, "declined")
    (attempt,) = shop.attempts(bill)
    assert (attempt.network_code, attempt.advice_code, attempt.category) == ("79", "03", "HARD_DECLINE")
    assert shop.case(bill).next_step == "customer"
    assert_chain(shop.invoice(bill))


@pytest.mark.parametrize("first", ["charge", "intent"])
def test_a_hard_decline_marks_its_token_whichever_event_names_it(shop: Shop, first: str) -> None:
    bill = shop.bill()
    tried = bill.attempt(code="lost_card")
    events = [tried.charge_failed(), tried.intent_failed(with_method=False)]
    shop.tell(*(events if first == "charge" else events[::-1]))
    (attempt,) = shop.attempts(bill)
    assert attempt.token == shop.token(bill)
    assert shop.token(bill).status == "declined"
    assert (shop.case(bill).next_step, open_cases(shop)) == ("customer", 1)


def test_an_attempt_belongs_to_the_token_that_was_charged_not_to_the_invoices_default(shop: Shop) -> None:
    """The invoice names its default method; the charge tells which one it really took."""
    bill, default = shop.bill(), shop.bill()
    tried = bill.attempt(code="lost_card")
    shop.tell(tried.invoice_failed(default_payment_method=default.token), tried.charge_failed())
    (attempt,) = shop.attempts(bill)
    assert attempt.token is not None
    assert attempt.token.provider_token == bill.token
    assert attempt.card == shop.card(bill)
    assert shop.token(bill).status == "declined"
    assert Token.objects.get(connection=shop.connection, provider_token=default.token).status == "live"


def test_a_failure_without_a_customer_is_ignored_with_a_reason(shop: Shop) -> None:
    bill = shop.bill(customer="")
    bill.customer = ""
    counts = shop.tell(bill.attempt().charge_failed())
    assert (counts.processed, counts.ignored) == (0, 1)
    assert not Invoice.objects.filter(merchant=shop.merchant).exists()


def test_a_payment_of_zero_writes_nothing(shop: Shop) -> None:
    bill = shop.bill(amount=0)
    assert shop.tell(bill.attempt().charge_succeeded()).ignored == 1
    assert not Invoice.objects.filter(merchant=shop.merchant).exists()


def test_a_token_that_another_customer_has_does_no_harm(shop: Shop) -> None:
    """The provider may move a method between customers, with another card behind it by then."""
    first = shop.failed_bill()
    second = shop.bill(first.token, fingerprint="fp_other")
    shop.fail(second)
    assert shop.token(first).customer == shop.customer(first)
    assert shop.attempts(second)[0].status == "DECLINED"
    assert shop.case(second).next_step in ("customer", "booked")


# --- payments -----------------------------------------------------------------------------------------------------


@VERSIONS
def test_a_first_try_that_succeeds_needs_no_case(shop: Shop, version: str) -> None:
    bill = shop.bill(version=version)
    shop.tell(*bill.attempt().succeeded())
    assert shop.outcome(bill) == {
        "invoice": "SETTLED",
        "amount": (2500, "USD"),
        "paid": 2500,
        "refunded": 0,
        "attempts": [("CHARGE", "PROVIDER", "SUCCEEDED", "")],
        "transactions": [("CHARGE", "DONE", 2500, "USD")],
        "cases": [],
        "disputes": [],
        "booked": 0,
        "invoices": 1,
    }


@VERSIONS
def test_a_payment_by_the_provider_ends_what_we_had_booked(shop: Shop, version: str) -> None:
    bill = shop.bill(version=version)
    shop.fail(bill)
    assert shop.job(bill).status == "SCHEDULED"
    shop.wait(hours=2)
    shop.tell(*bill.attempt(shop.at).succeeded())
    invoice, case = shop.invoice(bill), shop.case(bill)
    assert (invoice.status, invoice.paid_minor) == ("SETTLED", 2500)
    assert (case.status, case.recovered_by, case.recovered_minor) == ("RECOVERED", "provider", 2500)
    assert shop.job(bill).status == "CANCELED"
    assert sorted(shop.invoice(bill).transactions.values_list("status", flat=True)) == ["DONE"]


@VERSIONS
def test_a_failure_told_after_the_payment_is_still_an_attempt_and_a_recovered_case(shop: Shop, version: str) -> None:
    bill = shop.bill(version=version)
    failed, paid = bill.attempt(), bill.attempt(bill.at + 2 * DAY)
    shop.wait(days=3)
    shop.tell(*paid.succeeded(), *failed.failed()[:3])
    assert [attempt.status for attempt in shop.attempts(bill)] == ["SUCCEEDED", "DECLINED"]
    case = shop.case(bill)
    assert (case.status, case.amount_minor, case.recovered_minor) == ("RECOVERED", 2500, 2500)
    assert (case.opened_at, case.first_category) == (bill.at, "INSUFFICIENT_FUNDS")
    assert shop.invoice(bill).status == "SETTLED"
    assert_next_steps(shop)
    assert_chain(shop.invoice(bill))


@VERSIONS
def test_a_failure_that_only_the_biller_tells_counts_after_the_payment_too(shop: Shop, version: str) -> None:
    bill = shop.bill(version=version)
    failed, paid = bill.attempt(), bill.attempt(bill.at + 2 * DAY)
    shop.wait(days=3)
    shop.tell(paid.invoice_paid(), failed.invoice_failed(), failed.invoice_failed().again())
    assert sorted(attempt.status for attempt in shop.attempts(bill)) == ["DECLINED", "SUCCEEDED"]
    assert shop.case(bill).status == "RECOVERED"


@VERSIONS
def test_a_decline_after_the_payment_opens_no_case(shop: Shop, version: str) -> None:
    bill = shop.bill(version=version)
    paid, late = bill.attempt(), bill.attempt(bill.at + DAY)
    shop.wait(days=2)
    shop.tell(*paid.succeeded(), late.charge_failed(), late.intent_failed())
    assert [attempt.status for attempt in shop.attempts(bill)] == ["SUCCEEDED", "DECLINED"]
    assert not Case.objects.filter(merchant=shop.merchant).exists()
    assert shop.invoice(bill).status == "SETTLED"


@VERSIONS
def test_the_invoice_told_as_paid_again_after_a_lost_dispute_does_not_pay_it(shop: Shop, version: str) -> None:
    bill = shop.bill(version=version)
    paid = bill.attempt()
    shop.tell(*paid.succeeded(), paid.dispute("lost", bill.at + DAY))
    assert shop.invoice(bill).status == "PROCESS_FAILED"
    again = (paid.invoice_paid().again(), paid.charge_succeeded().again())
    shop.tell(again[0], paid.invoice_paid("invoice.payment_succeeded"), again[1])
    assert (shop.invoice(bill).status, shop.invoice(bill).paid_minor) == ("PROCESS_FAILED", 0)
    assert len(shop.attempts(bill)) == 1


def test_a_payment_that_waits_for_its_bank_is_awaited_then_settled(shop: Shop) -> None:
    bill = shop.failed_bill()
    pending = bill.attempt(shop.wait(hours=1))
    shop.tell(pending.charge_pending())
    case = shop.case(bill)
    assert (case.next_step, shop.job(bill).status) == ("awaiting", "CANCELED")
    assert_next_steps(shop)
    shop.tell(pending.charge_succeeded())
    assert (shop.invoice(bill).status, shop.case(bill).status) == ("SETTLED", "RECOVERED")
    assert [attempt.status for attempt in shop.attempts(bill)] == ["DECLINED", "SUCCEEDED"]


def test_a_payment_that_its_bank_refuses_later_resumes_the_plan(shop: Shop) -> None:
    bill = shop.failed_bill()
    pending = bill.attempt(shop.wait(hours=1), code="do_not_honor")
    shop.tell(pending.charge_pending(), *pending.failed()[:3])
    assert [attempt.status for attempt in shop.attempts(bill)] == ["DECLINED", "DECLINED"]
    assert shop.case(bill).next_step == "booked"
    assert_slots(shop)


def test_a_partial_capture_leaves_the_rest_owed_and_planned(shop: Shop) -> None:
    bill = shop.failed_bill()
    part = bill.attempt(shop.wait(hours=1), captured=1000)
    shop.tell(part.charge_succeeded(), part.intent_succeeded())
    invoice = shop.invoice(bill)
    assert (invoice.status, invoice.paid_minor, invoice.due_minor) == ("PROCESSING", 1000, 1500)
    assert shop.case(bill).next_step == "booked"
    assert shop.job(bill).transaction.amount_minor == 1500
    assert sorted(invoice.transactions.values_list("status", "amount_minor")) == [("DONE", 2500), ("INIT", 1500)]
    assert_totals(shop)


def test_a_partial_capture_at_the_first_try_has_a_next_step_too(shop: Shop) -> None:
    bill = shop.bill()
    part = bill.attempt(captured=1000)
    shop.tell(part.charge_succeeded())
    assert (shop.invoice(bill).status, shop.invoice(bill).due_minor) == ("PROCESSING", 1500)
    assert open_cases(shop) == 1
    assert_next_steps(shop)


def test_the_rest_of_a_partial_capture_that_was_paid_elsewhere_is_not_charged_again(shop: Shop) -> None:
    """The biller's word that all is paid, twenty minutes after our part of it, names no charge."""
    bill = shop.failed_bill()
    part = bill.attempt(shop.wait(hours=1), captured=1000)
    shop.tell(part.charge_succeeded(), part.intent_succeeded())
    assert shop.invoice(bill).due_minor == 1500
    shop.tell(bill.event("invoice.paid", bill.invoice(status="paid", paid=bill.amount), shop.wait(minutes=20)))
    invoice = shop.invoice(bill)
    assert (invoice.status, invoice.paid_minor, invoice.due_minor) == ("SETTLED", 2500, 0)
    assert (shop.case(bill).status, RetryJob.objects.filter(invoice=invoice, status__in=JOB_OPEN).count()) == (
        "RECOVERED",
        0,
    )
    assert_totals(shop)


# --- ends ---------------------------------------------------------------------------------------------------------


@VERSIONS
def test_an_invoice_voided_before_its_failure_is_told_is_never_charged(shop: Shop, version: str) -> None:
    bill = shop.bill(version=version)
    shop.wait(hours=3)
    shop.tell(bill.voided(bill.at + timedelta(hours=1)), *bill.attempt().failed()[:3])
    assert shop.invoice(bill).status == "CANCELED"
    assert not RetryJob.objects.filter(merchant=shop.merchant).exclude(status="CANCELED").exists()
    assert [(case.status, case.next_step) for case in Case.objects.filter(merchant=shop.merchant)] == [
        ("CANCELED", "none")
    ]


def test_the_end_of_a_subscription_cancels_only_its_own_open_invoices(shop: Shop) -> None:
    mine = shop.failed_bill(subscription="sub_a")
    other = shop.failed_bill(subscription="sub_b", customer=mine.customer)
    paid = shop.bill(subscription="sub_a", customer=mine.customer)
    shop.tell(*paid.attempt().succeeded(), mine.subscription_deleted(shop.wait(hours=1)))
    assert [shop.invoice(bill).status for bill in (mine, other, paid)] == ["CANCELED", "PROCESSING", "SETTLED"]
    assert shop.case(mine).status == "CANCELED"
    assert (shop.case(other).next_step, shop.job(other).status) == ("booked", "SCHEDULED")
    assert_slots(shop)


def test_cancelling_one_invoice_touches_no_charge_of_anybody_else(shop: Shop, new_shop: Callable[..., Shop]) -> None:
    """billy's cancel had no invoice filter: it cancelled every running charge of every tenant."""
    other_shop = new_shop()
    mine, neighbour, foreign = shop.failed_bill(), shop.failed_bill(), other_shop.failed_bill()
    shop.tell(mine.voided(shop.wait(hours=1)))
    assert shop.job(mine).status == "CANCELED"
    assert (shop.job(neighbour).status, other_shop.job(foreign).status) == ("SCHEDULED", "SCHEDULED")
    assert shop.job(neighbour).transaction.status == "RETRYING"
    assert other_shop.job(foreign).transaction.status == "RETRYING"


def test_a_credit_that_leaves_nothing_due_settles_and_stops(shop: Shop) -> None:
    """The invoice shrinks to what was already paid: there is nothing to charge, and nothing to stumble over."""
    bill = shop.failed_bill()
    shop.tell(bill.attempt(shop.wait(hours=1), captured=1000).charge_succeeded())
    bill.amount = 1000
    shop.tell(bill.updated(shop.wait(hours=1)))
    invoice = shop.invoice(bill)
    assert (invoice.status, invoice.due_minor) == ("SETTLED", 0)
    assert shop.case(bill).status == "RECOVERED"
    assert not RetryJob.objects.filter(invoice=invoice, status__in=("SCHEDULED", "QUEUED", "RUNNING")).exists()


def test_an_invoice_credited_to_zero_is_not_charged(shop: Shop) -> None:
    bill = shop.failed_bill()
    bill.amount = 0
    shop.tell(bill.updated(shop.wait(hours=1)))
    assert shop.invoice(bill).due_minor == 0
    assert not RetryJob.objects.filter(merchant=shop.merchant, status__in=("SCHEDULED", "QUEUED", "RUNNING")).exists()
    assert_next_steps(shop)


def test_an_amount_that_changes_changes_the_next_charge(shop: Shop) -> None:
    bill = shop.failed_bill()
    bill.amount = 1999
    shop.tell(bill.updated(shop.wait(hours=1)))
    assert shop.job(bill).transaction.amount_minor == 1999
    assert sorted(shop.invoice(bill).transactions.values_list("status", "amount_minor")) == [
        ("CANCELED", 2500),
        ("INIT", 1999),
    ]
    assert_slots(shop)


# --- joining the halves that basil sends apart --------------------------------------------------------------------


def test_two_equal_invoices_of_one_customer_are_not_charged_four_times(shop: Shop) -> None:
    """Two subscriptions of one price renew together: which payment is whose tells only `invoice_payment`."""
    first = shop.bill(version=BASIL)
    second = shop.bill(version=BASIL, customer=first.customer)
    tries = [first.attempt(), second.attempt()]
    shop.tell(*(tried.charge_failed() for tried in tries), *(tried.invoice_failed() for tried in tries))
    shop.tell(*(tried.linked() for tried in tries))
    to_charge = Invoice.objects.filter(merchant=shop.merchant, status="PROCESSING")
    assert sorted(invoice.provider_invoice_id or "" for invoice in to_charge) == sorted([first.id, second.id])
    assert open_cases(shop) == 2
    assert_slots(shop)
    assert_next_steps(shop)


def test_a_payment_is_joined_to_its_invoice_by_the_link_alone(shop: Shop) -> None:
    """Nothing but the link says that they belong together: the amounts differ."""
    bill = shop.bill(version=BASIL)
    tried = bill.attempt(amount=2400)
    shop.tell(tried.charge_failed(), tried.linked())
    assert shop.invoice(bill).provider_invoice_id == bill.id
    shop.tell(tried.invoice_failed())
    assert Invoice.objects.filter(merchant=shop.merchant).count() == 1
    assert ProviderPayment.objects.get(connection=shop.connection).invoice == shop.invoice(bill)


def test_a_link_that_comes_before_both_halves_waits_for_them(shop: Shop) -> None:
    bill = shop.bill(version=BASIL)
    tried = bill.attempt()
    shop.tell(tried.linked())
    assert shop.waiting() == ["invoice_payment.paid"]
    shop.tell(tried.invoice_failed())
    shop.wait(minutes=1)
    shop.process()
    assert shop.waiting() == []
    shop.tell(tried.charge_failed())
    assert Invoice.objects.filter(merchant=shop.merchant).count() == 1
    assert len(shop.attempts(bill)) == 1


def test_a_payment_that_no_invoice_claims_is_charged_only_after_a_while(shop: Shop) -> None:
    bill = shop.bill(version=BASIL)
    tried = bill.attempt(code="processing_error")
    shop.tell(tried.charge_failed())
    case = Case.objects.get(merchant=shop.merchant)
    assert case.next_step_at == bill.at + timedelta(minutes=10)
    shop.tell(tried.invoice_failed())
    assert Case.objects.get(merchant=shop.merchant).next_step_at == bill.at + timedelta(minutes=1)


# --- disputes and returns -----------------------------------------------------------------------------------------


def test_a_lost_dispute_reopens_the_invoice_but_no_machine_charges_it(shop: Shop) -> None:
    bill = shop.bill()
    paid = bill.attempt()
    shop.tell(*paid.succeeded(), paid.dispute("needs_response", bill.at + DAY))
    assert (shop.invoice(bill).status, "disputed" in shop.alerts(bill)) == ("SETTLED", True)
    shop.tell(paid.dispute("lost", bill.at + 30 * DAY))
    invoice, case = shop.invoice(bill), shop.case(bill)
    assert (invoice.status, invoice.paid_minor, invoice.due_minor) == ("PROCESS_FAILED", 0, 2500)
    assert (case.status, case.next_step, case.automatic_barred) == ("OPEN", "customer", True)
    assert shop.reviews(bill) == ["disputed"]
    assert not RetryJob.objects.filter(invoice=invoice).exists()


def test_a_card_update_does_not_charge_after_a_lost_dispute(shop: Shop) -> None:
    bill = shop.bill()
    paid = bill.attempt()
    shop.tell(*paid.succeeded(), paid.dispute("lost", bill.at + DAY))
    fresh = shop.bill(customer=bill.customer)
    shop.tell(fresh.method_attached(shop.wait(days=2)))
    assert shop.case(bill).next_step == "customer"
    assert not RetryJob.objects.filter(merchant=shop.merchant).exists()


def test_a_dispute_lost_and_then_won_pays_the_invoice_again(shop: Shop) -> None:
    """The bank gave the money back: nothing is owed, so nobody may be charged."""
    bill = shop.bill()
    paid = bill.attempt()
    shop.tell(*paid.succeeded(), paid.dispute("lost", bill.at + DAY))
    shop.tell(paid.dispute("won", bill.at + 40 * DAY, kind="charge.dispute.funds_reinstated"))
    invoice = shop.invoice(bill)
    assert (invoice.status, invoice.paid_minor, invoice.due_minor) == ("SETTLED", 2500, 0)
    assert [case.status for case in invoice.cases.all()] == ["RECOVERED"]
    assert_totals(shop)
    assert_chain(invoice)


def test_a_dispute_lost_while_a_refund_is_open_is_applied_when_it_has_failed(shop: Shop) -> None:
    bill = shop.bill()
    paid = bill.attempt()
    shop.tell(*paid.succeeded(), paid.refund("a", 1000, bill.at + DAY, "pending"))
    assert shop.invoice(bill).status == "REFUNDING"
    shop.tell(paid.dispute("lost", bill.at + 2 * DAY))
    assert (shop.invoice(bill).status, shop.invoice(bill).disputes.get().applied_at) == ("REFUNDING", None)
    shop.tell(paid.refund("a", 1000, bill.at + 3 * DAY, "failed", "refund.failed"))
    invoice = shop.invoice(bill)
    assert (invoice.status, invoice.paid_minor) == ("PROCESS_FAILED", 0)
    assert invoice.disputes.get().applied_at is not None
    assert shop.case(bill).automatic_barred is True
    assert_totals(shop)


def test_a_dispute_takes_back_no_more_than_was_paid(shop: Shop) -> None:
    """A return and a dispute of one payment, or one that includes the bank's fee, must not raise what is owed."""
    bill = shop.bill()
    paid = bill.attempt()
    shop.tell(*paid.succeeded(), paid.dispute("lost", bill.at + DAY, amount=4000))
    shop.tell(paid.dispute("lost", bill.at + 2 * DAY, name="2"))
    invoice = shop.invoice(bill)
    assert (invoice.paid_minor, invoice.due_minor) == (0, 2500)


def test_a_dispute_lost_for_fraud_is_given_up_and_put_before_staff(shop: Shop) -> None:
    bill = shop.bill()
    paid = bill.attempt()
    shop.tell(*paid.succeeded(), paid.dispute("lost", bill.at + DAY, reason="fraudulent"))
    assert (shop.invoice(bill).status, shop.case(bill).status) == ("PROCESS_FAILED", "LOST")
    assert shop.reviews(bill) == ["disputed", "fraud"]
    shop.tell(shop.bill(customer=bill.customer).method_attached(shop.wait(days=2)))
    assert not RetryJob.objects.filter(merchant=shop.merchant).exists()


def test_a_return_that_may_be_presented_again_is_charged_again(shop: Shop) -> None:
    bill = shop.bill()
    paid = bill.attempt()
    returned = paid.dispute(
        "lost",
        bill.at + 3 * DAY,
        reason="insufficient_funds",
        network_reason_code="R01",
        payment_method_details={"type": "us_bank_account", "us_bank_account": {}},
    )
    shop.wait(days=3)
    shop.tell(*paid.succeeded(), returned)
    case, (attempt,) = shop.case(bill), shop.attempts(bill)
    assert (case.automatic_barred, case.next_step) == (False, "booked")
    assert (attempt.status, attempt.returned_at is not None) == ("SUCCEEDED", True)
    assert shop.reviews(bill) == []


def test_a_dispute_of_an_unknown_payment_waits_for_it(shop: Shop) -> None:
    bill = shop.bill()
    paid = bill.attempt()
    shop.tell(paid.dispute("lost", bill.at + DAY))
    assert shop.waiting() == ["charge.dispute.closed"]
    shop.tell(*paid.succeeded())
    shop.wait(minutes=1)
    shop.process()
    assert (shop.waiting(), shop.invoice(bill).status) == ([], "PROCESS_FAILED")


# --- refunds that the provider reports ----------------------------------------------------------------------------


def test_a_refund_told_before_its_payment_waits_for_it(shop: Shop) -> None:
    bill = shop.bill()
    paid = bill.attempt()
    shop.tell(paid.refund("a", 2500, bill.at + DAY))
    assert shop.waiting() == ["refund.created"]
    shop.tell(*paid.succeeded())
    shop.wait(minutes=1)
    shop.process()
    assert (shop.invoice(bill).status, shop.invoice(bill).refunded_minor) == ("REFUNDED", 2500)


def test_a_total_told_twice_under_two_event_ids_is_one_refund(shop: Shop) -> None:
    bill = shop.bill()
    paid = bill.attempt()
    shop.tell(*paid.succeeded())
    later = paid.charge_refunded(1500, 1000, bill.at + 2 * DAY)
    shop.tell(later, later.again(), paid.charge_refunded(1000, 0, bill.at + DAY))
    assert shop.invoice(bill).refunded_minor == 1500
    shop.tell(paid.refund("a", 1000, bill.at + DAY), paid.refund("b", 500, bill.at + 2 * DAY))
    assert (shop.invoice(bill).refunded_minor, shop.invoice(bill).status) == (1500, "SETTLED")


def test_a_refund_that_is_taken_back_settles_the_invoice_again(shop: Shop) -> None:
    bill = shop.bill()
    paid = bill.attempt()
    shop.tell(*paid.succeeded(), paid.refund("a", 2500, bill.at + DAY))
    assert shop.invoice(bill).status == "REFUNDED"
    reason = "expired_or_canceled_card"
    failed = paid.refund("a", 2500, bill.at + 5 * DAY, "failed", "refund.failed", failure_reason=reason)
    shop.tell(failed, failed.again())
    assert (shop.invoice(bill).status, shop.invoice(bill).refunded_minor) == ("SETTLED", 0)
    assert shop.alerts(bill) == ["refund_failed"]


def test_refunds_of_a_canceled_invoice_do_not_change_its_state(shop: Shop) -> None:
    bill = shop.failed_bill()
    shop.cancel(bill)
    late = bill.attempt(shop.wait(hours=1))
    shop.tell(late.charge_succeeded())
    assert (shop.invoice(bill).status, shop.reviews(bill)) == ("CANCELED", ["paid_after_cancel"])
    shop.tell(late.refund("a", 2500, shop.wait(hours=1)))
    assert (shop.invoice(bill).status, shop.invoice(bill).refunded_minor) == ("CANCELED", 2500)


# --- who may charge -----------------------------------------------------------------------------------------------


def test_an_invoice_of_an_observed_account_is_left_to_its_provider(new_shop: Callable[..., Shop]) -> None:
    shop = new_shop(mode="observe")
    bill = shop.bill()
    at = bill.at + 3 * DAY
    shop.tell(bill.attempt().charge_failed(), bill.attempt().invoice_failed(next_payment_attempt=int(at.timestamp())))
    case = shop.case(bill)
    assert (case.next_step, case.next_step_at) == ("provider", at)
    assert not RetryJob.objects.filter(merchant=shop.merchant).exists()


@pytest.mark.parametrize("config", [{"mode": "observe"}, {"take_over": "never"}])
def test_a_new_card_books_nothing_where_we_do_not_charge(new_shop: Callable[..., Shop], config: dict[str, str]) -> None:
    shop = new_shop(**config)
    bill = shop.failed_bill(code="expired_card")
    assert shop.case(bill).next_step == "customer"
    shop.tell(shop.bill(customer=bill.customer).method_attached(shop.wait(hours=1)))
    assert not RetryJob.objects.filter(merchant=shop.merchant).exists()
    assert shop.case(bill).next_step == "customer"


@pytest.mark.parametrize(("tries", "step"), [(1, "provider"), (2, "provider"), (3, "booked")])
def test_we_take_over_after_the_number_of_provider_retries_that_was_set(
    new_shop: Callable[..., Shop], tries: int, step: str
) -> None:
    """`take_over: 2` waits for the first charge and two retries of the biller."""
    shop = new_shop(take_over=2)
    bill = shop.bill()
    for _ in range(tries):
        tried = bill.attempt(shop.at)
        retry_at = int((shop.at + 3 * DAY).timestamp())
        shop.tell(tried.charge_failed(), tried.invoice_failed(next_payment_attempt=retry_at))
        shop.wait(days=1)
    assert Attempt.objects.filter(merchant=shop.merchant).count() == tries
    assert shop.case(bill).next_step == step


# --- payment methods ----------------------------------------------------------------------------------------------


def test_a_new_card_resumes_what_waited_for_the_customer(shop: Shop) -> None:
    bill = shop.failed_bill(code="expired_card")
    assert (shop.case(bill).next_step, shop.invoice(bill).status) == ("customer", "PROCESS_FAILED")
    fresh = shop.bill(customer=bill.customer)
    shop.tell(fresh.method_attached(shop.wait(hours=2)))
    job = shop.job(bill)
    assert (job.status, job.trigger, job.due_at, job.token) == ("SCHEDULED", "card_update", shop.at, shop.token(fresh))
    assert (shop.invoice(bill).status, shop.case(bill).next_step) == ("PROCESSING", "booked")


def test_a_removed_card_is_not_charged_any_more(shop: Shop) -> None:
    bill = shop.failed_bill()
    shop.tell(bill.method_detached(shop.wait(hours=1)))
    assert (shop.token(bill).status, shop.case(bill).next_step) == ("removed", "customer")
    assert not RetryJob.objects.filter(merchant=shop.merchant, status__in=("SCHEDULED", "QUEUED")).exists()


def test_a_removed_card_leaves_the_job_to_the_other_card(shop: Shop) -> None:
    bill = shop.failed_bill()
    spare = shop.bill(customer=bill.customer)
    shop.tell(spare.method_attached(shop.at), bill.method_detached(shop.wait(hours=1)))
    assert (shop.job(bill).status, shop.job(bill).token) == ("SCHEDULED", shop.token(spare))
