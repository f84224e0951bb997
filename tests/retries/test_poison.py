"""What can never be prepared is pushed out of the way a few times, and then put before people with its error."""

from typing import Any

import pytest

from retries.engine import drain
from retries.engine import prepare as charging
from retries.engine.poison import PUSHES
from tests.retries.refunding import ask, assert_clean, collected, question, refunds
from tests.retries.refunding import sandbox as sandbox
from tests.retries.test_answers import answer
from tests.support.shop import Shop
from tests.support.stripe import Bill

pytestmark = pytest.mark.django_db(transaction=True)
# An error may quote a row; no card number is kept with it.
ERROR = "RuntimeError: no such thing as [filtered]"


def fails(
    shop: Shop, bill: Bill, monkeypatch: pytest.MonkeyPatch, module: Any = charging, step: str = "_prepare"
) -> None:
    """Drained until staff are asked."""
    prepare = getattr(module, step)

    def prepare_or_raise(claim: Any, *given: Any, **known: Any) -> Any:
        if claim.invoice_pk == shop.invoice(bill).pk:
            raise RuntimeError("no such thing as 4111111111111111")
        return prepare(claim, *given, **known)

    monkeypatch.setattr(module, step, prepare_or_raise)
    for push in range(PUSHES):
        assert shop.drain().rescheduled == 1
        assert (shop.job(bill).failures, shop.reviews(bill)) == (push + 1, [])
        assert shop.job(bill).last_error == ERROR
        shop.wait_for(bill)
    shop.drain()
    monkeypatch.undo()


@pytest.mark.parametrize("choice", ["again", "cancel", "by_hand"])
def test_charge_that_can_never_be_prepared_needs_a_person(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, choice: str
) -> None:
    bill = shop.failed_bill()
    waiting = shop.failed_bill(customer=bill.customer)
    shop.wait_for(bill)
    fails(shop, bill, monkeypatch)
    job, item = shop.job(bill), question(shop, bill)
    assert (job.status, job.claim_token, job.last_error) == ("NEEDS_REVIEW", None, ERROR)
    assert (item.kind, item.subject_id, item.choices) == (
        "no_plan",
        job.public_id,
        ["again", "paid", "cancel", "write_off"],
    )
    assert item.facts == {
        "why": "The retry could not be prepared 6 times in a row.",
        "error": ERROR,
    }
    assert shop.case(bill).next_step == "staff"
    # It has given the slot back: the other invoice of the customer was charged meanwhile.
    assert shop.invoice(waiting).status == "SETTLED"
    assert shop.reconcile().steps_repaired == 0
    assert_clean(shop)
    if choice == "by_hand":
        shop.retry_now(bill)
        item.refresh_from_db()
        assert item.resolution == "answered_by_events"
    else:
        answer(shop, item, choice)
    assert (shop.reviews(bill), shop.job(bill).failures if choice != "cancel" else 0) == ([], 0)
    assert shop.drain().succeeded == (0 if choice == "cancel" else 1)
    assert shop.invoice(bill).status == ("CANCELED" if choice == "cancel" else "SETTLED")
    assert_clean(shop)


@pytest.mark.parametrize("choice", ["again", "give_up"])
def test_refund_that_can_never_be_prepared_needs_a_person(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, choice: str
) -> None:
    bill = collected(shop)
    ask(shop, bill)
    fails(shop, bill, monkeypatch, drain, "refund_prepare")
    item = question(shop, bill)
    assert (shop.job(bill).status, item.choices) == ("NEEDS_REVIEW", ["again", "give_up"])
    assert (shop.reconcile().refunds["failed"], refunds(shop, bill)) == (0, [("INIT", 2500)])
    answer(shop, item, choice)
    shop.drain()
    assert refunds(shop, bill) == [("DONE" if choice == "again" else "FAILED", 2500)]
    assert shop.invoice(bill).status == ("REFUNDED" if choice == "again" else "SETTLED")
    assert_clean(shop)
