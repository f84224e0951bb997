"""What a worker has to survive: a week of silence, switches thrown at the last moment, a provider's own retries."""

import threading
from collections.abc import Callable
from datetime import timedelta

import pytest
from django.db import connection
from django.db.models import Q

from accounts.models import GlobalSwitch, Merchant
from invoices.models import Attempt, Invoice, ReviewItem
from providers.base import ChargeResult
from retries.engine.claim import jobs_claim
from retries.engine.drain import retries_drain
from retries.engine.prepare import Prepared, attempt_prepare
from retries.engine.send import charge_record, charge_send
from retries.models import Case, RetryJob
from retries.services.answers import review_answer
from tests.support.books import assert_promises
from tests.support.shop import Shop
from tests.support.stripe import Bill
from tokens.models import Token

pytestmark = pytest.mark.django_db(transaction=True)
LEASE = timedelta(minutes=5)


def prepared(shop: Shop, bill: Bill) -> Prepared:
    """The charge of this bill, written down and about to be sent."""
    shop.wait_for(bill)
    (claim,) = jobs_claim(now=shop.at, lease=LEASE, limit=10)
    ready = attempt_prepare(claim, now=shop.at, lease=LEASE, timeout=timedelta(seconds=5))
    assert isinstance(ready, Prepared)
    return ready


# --- a week of silence --------------------------------------------------------------------------------------------


def test_after_a_week_each_case_gets_one_attempt_and_no_rule_is_broken(
    shop: Shop, new_shop: Callable[..., Shop]
) -> None:
    """Two workers come back at once. One card may be tried once a day, however many invoices wait for it."""
    other = new_shop()
    crowd = [one.failed_bill("tok_decline_processing_error") for one in (shop, other) for _ in range(4)]
    first = shop.failed_bill("tok_decline_processing_error", network="amex")
    one_card = [first, *(shop.failed_bill(first.token, customer=first.customer, network="amex") for _ in range(3))]
    shop.wait(days=7)

    def work() -> None:
        try:
            retries_drain(now=shop.at, threads=2)
        finally:
            connection.close()

    workers = [threading.Thread(target=work) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    tried = Attempt.objects.filter(origin="OURS").values_list("invoice", flat=True)
    assert len(tried) == len(set(tried)), "a case was tried twice"
    assert Invoice.objects.filter(pk__in=tried).count() == len(crowd) + 1
    assert len(shop.sandbox.charges(first.customer)) == 1
    assert {shop.case(bill).next_step for bill in one_card} == {"booked", "queued"}
    later = RetryJob.objects.filter(Q(status="SCHEDULED") & Q(due_at__lte=shop.at))
    assert not later.exists(), "something is due again at once"
    assert_promises(shop)
    assert_promises(other)


# --- between claim and call ---------------------------------------------------------------------------------------


def switch_merchant_off(shop: Shop, bill: Bill) -> None:
    Merchant.objects.filter(pk=shop.merchant.pk).update(charging_enabled=False)


def switch_everything_off(shop: Shop, bill: Bill) -> None:
    GlobalSwitch.objects.update_or_create(pk=1, defaults={"charging_enabled": False})


def cancel(shop: Shop, bill: Bill) -> None:
    shop.cancel(bill)


def void_at_the_biller(shop: Shop, bill: Bill) -> None:
    shop.tell(bill.voided(shop.at))


@pytest.mark.parametrize(
    "happens",
    [switch_merchant_off, switch_everything_off, cancel, void_at_the_biller],
    ids=lambda happens: happens.__name__,
)
def test_what_happens_between_the_last_transaction_and_the_call_stops_the_call(
    shop: Shop, happens: Callable[[Shop, Bill], None], django_db_serialized_rollback: None
) -> None:
    bill = shop.failed_bill()
    ready = prepared(shop, bill)
    happens(shop, bill)
    answer = charge_send(ready)
    assert isinstance(answer, ChargeResult)
    assert (answer.outcome, answer.error_code) == ("errored", "unsent")
    assert charge_record(ready.attempt_pk, answer, now=shop.at) == "ERRORED"
    assert shop.sandbox.charges(bill.customer) == []
    assert not shop.attempt(bill).counts
    if happens in (cancel, void_at_the_biller):
        assert shop.job(bill).transaction.status in ("FAILED", "CANCELED")
        assert shop.invoice(bill).status == "CANCELED"
    else:
        assert shop.drain().claimed == 0
        assert shop.job(bill).status == "SCHEDULED"


# --- one engine per invoice ---------------------------------------------------------------------------------------


def test_the_providers_own_retry_moves_ours_instead_of_racing_it(shop: Shop) -> None:
    bill = shop.failed_bill(code="processing_error")
    booked = shop.job(bill).due_at
    shop.wait(seconds=30)
    shop.fail(bill, code="insufficient_funds", charge=f"ch_theirs_{bill.key}")
    assert shop.job(bill).due_at == shop.at + timedelta(days=1)
    shop.wait_until(booked)
    assert shop.drain().claimed == 0
    assert [attempt.origin for attempt in shop.attempts(bill)] == ["PROVIDER", "PROVIDER"]
    assert_promises(shop)


# --- configuration ------------------------------------------------------------------------------------------------


def test_a_token_that_our_set_up_cannot_charge_waits_with_all_its_invoices_as_one_question(shop: Shop) -> None:
    first = shop.failed_bill("tok_decline_testmode_decline_then_ok_1")
    second = shop.failed_bill(first.token, customer=first.customer, code="processing_error")
    shop.wait(days=1)
    shop.drain()
    assert shop.token(first).status == "held"
    assert {shop.case(bill).next_step for bill in (first, second)} == {"paused"}
    (item,) = ReviewItem.objects.filter(resolved_at=None)
    assert (item.kind, item.subject_type, item.subject_id) == (
        "configuration",
        "token",
        Token.objects.get(provider_token=first.token).public_id,
    )
    alerts = [*shop.alerts(first), *shop.alerts(second)]
    assert alerts.count("configuration") == 1
    assert shop.drain().claimed == 0
    review_answer(item_pk=item.pk, answer="repaired", stamp=shop.staff(), note="enabled at the provider")
    assert shop.token(first).status == "live"
    assert sorted(shop.case(bill).next_step for bill in (first, second)) == ["booked", "queued"]
    while shop.drain().claimed:
        pass
    assert {shop.invoice(bill).status for bill in (first, second)} == {"SETTLED"}
    assert_promises(shop)


def test_another_token_goes_on_while_one_waits_for_a_repair(shop: Shop) -> None:
    bill = shop.failed_bill("tok_decline_testmode_decline")
    spare = shop.bill(customer=bill.customer)
    shop.tell(spare.method_attached(shop.at))
    shop.retry_now(bill, token_pk=shop.token(bill).pk)
    assert shop.drain().declined == 1
    assert (shop.token(bill).status, shop.case(bill).next_step) == ("held", "booked")
    assert shop.drain().succeeded == 1
    assert not ReviewItem.objects.filter(resolved_at=None).exists()
    assert Case.objects.get(invoice=shop.invoice(bill)).status == "RECOVERED"
