"""The books can fail: a check that never does proves nothing."""

import pytest

from tests.support.books import assert_no_charge_after_a_hard_decline
from tests.support.fixtures import new_shop as new_shop
from tests.support.fixtures import sandbox as sandbox
from tests.support.fixtures import shop as shop
from tests.support.shop import Shop
from tests.support.stripe import Bill
from tokens.models import Card, Token

pytestmark = pytest.mark.django_db(transaction=True)


def two_bills(shop: Shop, *steps: str) -> tuple[Bill, Bill]:
    """Of one customer and one card; the first is due an hour before the second."""
    first = shop.failed_bill()
    shop.wait(minutes=59)
    second = shop.failed_bill(first.token, customer=first.customer)
    shop.sandbox.script(first.token, *steps)
    return first, second


def test_a_charge_after_the_refusal_was_known_is_seen(shop: Shop) -> None:
    first, second = two_bills(shop, "decline:lost_card", "ok")
    assert shop.retry(first).declined == 1
    assert_no_charge_after_a_hard_decline(shop)
    Token.objects.filter(connection=shop.connection).update(status="live")
    Card.objects.filter(tokens__connection=shop.connection).update(stopped_at=None)
    shop.wait_for(second)
    assert shop.drain().succeeded == 1
    with pytest.raises(AssertionError, match="refused for good"):
        assert_no_charge_after_a_hard_decline(shop)


def test_a_charge_before_the_refusal_was_known_is_none_of_that(shop: Shop) -> None:
    """An UNKNOWN charge blocks only its own invoice; that it was a refusal is found out after the other one left."""
    first, second = two_bills(shop, "timeout_before", "decline:insufficient_funds", "decline:lost_card")
    assert shop.retry(first).unknown == 1
    shop.wait_for(second)
    assert shop.drain().declined == 1
    shop.expire_leases()
    shop.wait(hours=1)
    shop.reconcile()
    assert (shop.attempt(first).status, shop.attempt(first).category) == ("DECLINED", "HARD_DECLINE")
    assert_no_charge_after_a_hard_decline(shop)
