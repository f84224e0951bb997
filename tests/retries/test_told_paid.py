"""The biller books an invoice as paid, without saying by which payment, while nobody knows what became of ours."""

import pytest

from invoices.models import Attempt
from retries.services.manual import attempt_resolve
from tests.retries.refunding import assert_clean, assert_ledger, shown
from tests.retries.refunding import sandbox as sandbox
from tests.support.books import assert_next_steps
from tests.support.shop import Shop
from tests.support.stripe import BASIL, Bill

pytestmark = pytest.mark.django_db(transaction=True)


def in_doubt(shop: Shop, step: str) -> Bill:
    bill = shop.failed_bill(version=BASIL)
    shop.sandbox.script(bill.token, step, "ok")
    shop.retry(bill)
    assert shop.attempt(bill).status == ("AWAITING" if step == "pending" else "UNKNOWN")
    shop.expire_leases()
    return bill


def tell_paid(shop: Shop, bill: Bill) -> None:
    """Twice: the word is kept once."""
    paid = bill.attempt(shop.wait(minutes=1)).invoice_paid()
    shop.tell(paid, paid.again())
    assert shop.invoice(bill).events.filter(kind="attempt.told_paid").count() <= 1


def facts(shop: Shop, bill: Bill) -> tuple[str, int, list[str], list[str]]:
    """(status, paid, our attempts, questions)."""
    ours = Attempt.objects.filter(invoice=shop.invoice(bill), origin="OURS", kind="CHARGE").order_by("id")
    invoice = shop.invoice(bill)
    return invoice.status, invoice.paid_minor, list(ours.values_list("status", flat=True)), shop.reviews(bill)


@pytest.mark.parametrize("paid_first", [True, False])
@pytest.mark.parametrize("step", ["timeout_after_charge", "pending"])
def test_ours_was_the_payment(shop: Shop, step: str, paid_first: bool) -> None:
    bill = in_doubt(shop, step)
    if paid_first:
        tell_paid(shop, bill)
        assert facts(shop, bill)[:2] == ("PROCESSING", 0)
        assert shop.case(bill).next_step == ("awaiting" if step == "pending" else "resolving")
    (charge,) = shop.sandbox.charges(bill.customer)
    if step == "pending":
        shop.sandbox.settle(charge["id"])
    shop.wait(days=6 if step == "pending" else 0, minutes=31)
    assert shop.reconcile().charges["adopted"] == 1
    assert shown(shop, "charge", charge["id"])["status"] == "succeeded"
    if not paid_first:
        tell_paid(shop, bill)
    assert facts(shop, bill) == ("SETTLED", 2500, ["SUCCEEDED"], [])
    assert (shop.case(bill).status, shop.case(bill).recovered_by) == ("RECOVERED", "retry")
    assert_clean(shop)


@pytest.mark.parametrize("paid_first", [True, False])
def test_another_payment_it_was(shop: Shop, paid_first: bool) -> None:
    """Ours never arrived, and it must not be sent again now that the invoice is paid."""
    bill = in_doubt(shop, "timeout_before")
    if paid_first:
        tell_paid(shop, bill)
        shop.wait(hours=1)
        assert shop.reconcile().charges["resent"] == 0
        assert facts(shop, bill)[:2] == ("PROCESSING", 0)
        shop.wait(hours=12)
        assert shop.reconcile().charges["absent"] == 1
    else:
        attempt_resolve(attempt_pk=shop.attempt(bill).pk, charged=False, stamp=shop.staff(), note="not there")
        tell_paid(shop, bill)
    assert facts(shop, bill) == ("SETTLED", 2500, ["ERRORED"], [])
    assert (shop.case(bill).status, shop.case(bill).recovered_by) == ("RECOVERED", "provider")
    shop.wait(days=3)
    assert (shop.drain().claimed, shop.sandbox.charges(bill.customer)) == (0, [])
    assert_ledger(shop)


def test_ours_turns_out_to_have_failed_when_the_other_payment_is_gone_again(shop: Shop) -> None:
    """Its failure belongs to the case that the other payment ended, and the one that is open now has its next step."""
    bill = in_doubt(shop, "timeout_before")
    ours = shop.attempt(bill)
    paid = bill.attempt(shop.wait(minutes=1))
    shop.tell(paid.charge_succeeded(), paid.invoice_paid())
    shop.tell(paid.dispute("lost", shop.wait(days=2)))
    assert shop.case(bill).next_step == "resolving"
    attempt_resolve(attempt_pk=ours.pk, charged=False, stamp=shop.staff(), note="not there")
    assert shop.case(bill).next_step != "resolving"
    assert_next_steps(shop)
