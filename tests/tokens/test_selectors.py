"""Promise 2 in PostgreSQL: rolling windows exact to the instant, counted from real attempts of whoever made them."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

import pgtrigger
import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from invoices.models import Attempt
from invoices.services.parties import customer_lock
from recovery_site.common.errors import Conflict
from tests.support.books import assert_promises, assert_rules_kept
from tests.support.shop import Shop
from tests.support.stripe import Bill
from tokens.models import Card, Token
from tokens.selectors import TokenOption, token_options
from tokens.services import cards_lock

plain = pytest.mark.django_db
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
TICK = timedelta(microseconds=1)


def options(shop: Shop, bill: Bill, at: datetime, *, amount: int = 2500, currency: str = "USD") -> list[TokenOption]:
    with transaction.atomic():
        customer = customer_lock(shop.customer(bill).pk)
        return token_options(
            customer=customer,
            cards=cards_lock(customer),
            invoice_pk=shop.invoice(bill).pk,
            amount_minor=amount,
            currency=currency,
            not_before=at,
        )


def option(shop: Shop, bill: Bill, at: datetime, **known: object) -> TokenOption:
    (found,) = options(shop, bill, at, **known)
    return found


def decline(shop: Shop, bill: Bill, times: Sequence[datetime], **known: object) -> None:
    """The provider's own tries of this bill, declined at these times."""
    shop.at = max([shop.at, *times])
    shop.tell(*(bill.attempt(at, **known).charge_failed() for at in times))


def from_start(bill: Bill, gap: timedelta, number: int) -> list[datetime]:
    return [bill.at + gap * index for index in range(number)]


# --- Visa: 15 declines per 30 days of one card, amount and currency -----------------------------------------------


@plain
@pytest.mark.parametrize(("number", "waits_for"), [(14, None), (15, 0), (16, 1)])
def test_visa_allows_fifteen_declines_in_thirty_days(shop: Shop, number: int, waits_for: int | None) -> None:
    bill = shop.bill()
    times = from_start(bill, MINUTE, number)
    decline(shop, bill, times)
    now = times[-1] + HOUR
    found = option(shop, bill, now)
    assert found.remaining == max(0, 15 - number)
    if waits_for is None:
        assert (found.allowed_at, found.limit_text) == (now, "")
        return
    release = times[waits_for] + 30 * DAY
    assert found.allowed_at == release
    assert found.limit_text == "visa max_retry_count_for_thirty_day: 15 per 30 days and card_amount"
    assert option(shop, bill, release - TICK).allowed_at == release
    assert option(shop, bill, release).allowed_at == release
    assert option(shop, bill, release + TICK).allowed_at == release + TICK


@plain
def test_visa_counts_each_amount_and_currency_apart(shop: Shop) -> None:
    bill = shop.bill()
    times = from_start(bill, MINUTE, 15)
    decline(shop, bill, times)
    now = times[-1] + HOUR
    assert option(shop, bill, now).remaining == 0
    assert option(shop, bill, now, amount=2400).remaining == 15
    assert option(shop, bill, now, currency="EUR").remaining == 15


@plain
def test_visas_own_limit_can_be_chosen(shop: Shop, settings: object) -> None:
    bill = shop.bill()
    times = from_start(bill, MINUTE, 19)
    decline(shop, bill, times)
    settings.VISA_RETRY_LIMIT = 20  # type: ignore[attr-defined]
    assert option(shop, bill, times[-1]).remaining == 1
    settings.VISA_RETRY_LIMIT = 15  # type: ignore[attr-defined]
    assert option(shop, bill, times[-1]).allowed_at == times[4] + 30 * DAY


# --- Mastercard: 10 per 24 hours and 35 per 30 days, whatever the amount ------------------------------------------


@plain
@pytest.mark.parametrize(("number", "waits_for"), [(9, None), (10, 0), (11, 1)])
def test_mastercard_allows_ten_declines_in_twenty_four_hours(shop: Shop, number: int, waits_for: int | None) -> None:
    bill = shop.bill(network="mastercard")
    times = from_start(bill, 10 * MINUTE, number)
    decline(shop, bill, times)
    now = times[-1] + HOUR
    found = option(shop, bill, now, amount=999)
    assert found.remaining == max(0, 10 - number)
    if waits_for is None:
        assert found.allowed_at == now
        return
    release = times[waits_for] + 24 * HOUR
    assert found.allowed_at == release
    assert option(shop, bill, release - TICK).allowed_at == release
    assert option(shop, bill, release).allowed_at == release


@plain
def test_the_day_is_rolling_not_of_the_calendar(shop: Shop) -> None:
    """Ten before midnight leave nothing after it; floored hours and calendar days would let another ten through."""
    shop.at = shop.at.replace(hour=23, minute=30)
    bill = shop.bill(network="mastercard")
    times = from_start(bill, 2 * MINUTE, 10)
    decline(shop, bill, times)
    past_midnight = times[-1].replace(hour=0, minute=5) + DAY
    assert option(shop, bill, past_midnight).allowed_at == times[0] + 24 * HOUR


@plain
@pytest.mark.parametrize(("number", "waits_for"), [(34, None), (35, 0), (36, 1)])
def test_mastercard_allows_thirty_five_declines_in_thirty_days(shop: Shop, number: int, waits_for: int | None) -> None:
    bill = shop.bill(network="mastercard")
    times = from_start(bill, 12 * HOUR, number)
    decline(shop, bill, times)
    now = times[-1] + DAY
    found = option(shop, bill, now)
    assert found.remaining == max(0, 35 - number)
    assert found.allowed_at == (now if waits_for is None else times[waits_for] + 30 * DAY)


@plain
def test_other_networks_get_one_try_a_day_by_our_own_caution(shop: Shop) -> None:
    bill = shop.bill(network="amex")
    decline(shop, bill, [bill.at])
    assert option(shop, bill, bill.at + HOUR).allowed_at == bill.at + 24 * HOUR


# --- what counts --------------------------------------------------------------------------------------------------


@plain
def test_a_success_neither_counts_nor_empties_the_window(shop: Shop) -> None:
    """Some systems forget a card's declines at its first success; the networks do not."""
    bill = shop.bill(network="mastercard")
    decline(shop, bill, from_start(bill, MINUTE, 9))
    shop.tell(*bill.attempt(shop.wait(minutes=1)).succeeded())
    assert option(shop, bill, shop.at).remaining == 1


@plain
def test_a_bank_return_makes_its_payment_count(shop: Shop) -> None:
    bill = shop.bill(network="mastercard")
    decline(shop, bill, from_start(bill, MINUTE, 9))
    paid = bill.attempt(shop.wait(minutes=1))
    shop.tell(*paid.succeeded())
    Attempt.objects.filter(provider_id=paid.charge).update(returned_at=shop.at)
    assert option(shop, bill, shop.at).remaining == 0


@plain
def test_a_failure_without_a_code_counts_too(shop: Shop) -> None:
    bill = shop.bill(network="mastercard")
    decline(shop, bill, from_start(bill, MINUTE, 10), code="")
    assert option(shop, bill, shop.at).remaining == 0


@plain
@pytest.mark.parametrize("status", ["SENDING", "UNKNOWN", "AWAITING"])
def test_what_is_not_known_yet_counts_as_declined(shop: Shop, status: str) -> None:
    bill = shop.bill(network="mastercard")
    decline(shop, bill, from_start(bill, MINUTE, 9))
    pending = bill.attempt(shop.wait(minutes=1))
    shop.tell(pending.charge_pending())
    assert shop.attempts(bill)[-1].status == "AWAITING"
    if status != "AWAITING":
        with pgtrigger.ignore("invoices.Attempt:attempt_moves"):
            Attempt.objects.filter(provider_id=pending.charge).update(status=status)
    assert option(shop, bill, shop.at).remaining == 0


@plain
def test_what_never_reached_the_network_does_not_count(shop: Shop) -> None:
    bill = shop.bill(network="mastercard")
    decline(shop, bill, from_start(bill, MINUTE, 10))
    Attempt.objects.filter(invoice=shop.invoice(bill), number=1).update(counts=False)
    assert option(shop, bill, shop.at).remaining == 1


@plain
def test_refunds_do_not_count(shop: Shop) -> None:
    bill = shop.bill(network="mastercard")
    decline(shop, bill, from_start(bill, MINUTE, 9))
    paid = bill.attempt(shop.wait(minutes=1))
    shop.tell(*paid.succeeded(), paid.refund("a", 1000, shop.wait(minutes=1)))
    assert option(shop, bill, shop.at).remaining == 1


# --- whose budget -------------------------------------------------------------------------------------------------


@plain
def test_a_card_has_one_budget_under_all_its_tokens_and_invoices(shop: Shop) -> None:
    first = shop.bill(network="mastercard", fingerprint="fp_shared")
    second = shop.bill(network="mastercard", fingerprint="fp_shared", customer=first.customer)
    other_customer = shop.bill(network="mastercard", fingerprint="fp_shared")
    decline(shop, first, from_start(first, MINUTE, 4))
    decline(shop, second, [shop.at + MINUTE * index for index in range(1, 4)], amount=100)
    decline(shop, other_customer, [shop.at + MINUTE * index for index in range(1, 3)])
    assert Card.objects.filter(connection=shop.connection).count() == 1
    assert [found.remaining for found in options(shop, first, shop.at)] == [1, 1]
    assert option(shop, other_customer, shop.at).remaining == 1


@plain
def test_the_same_card_at_another_account_has_its_own_budget(shop: Shop, new_shop: Callable[..., Shop]) -> None:
    other = new_shop()
    first = shop.bill(network="mastercard", fingerprint="fp_shared")
    second = other.bill(network="mastercard", fingerprint="fp_shared")
    decline(shop, first, from_start(first, MINUTE, 10))
    decline(other, second, [second.at])
    assert (option(shop, first, shop.at).remaining, option(other, second, shop.at).remaining) == (0, 9)


@plain
def test_a_card_that_replaces_another_joins_its_budget(shop: Shop) -> None:
    """The account updater changed the number behind the token: the network still sees the same cardholder."""
    bill = shop.bill(network="mastercard", fingerprint="fp_old")
    decline(shop, bill, from_start(bill, MINUTE, 6))
    bill.fingerprint = "fp_new"
    shop.tell(bill.method_updated(shop.wait(minutes=1), {"card": {"fingerprint": "fp_old"}}))
    old, new = Card.objects.filter(connection=shop.connection).order_by("id")
    assert old.budget_group == new.budget_group
    assert shop.token(bill).card == new
    assert option(shop, bill, shop.at).remaining == 4
    decline(shop, bill, [shop.wait(minutes=1) + MINUTE * index for index in range(4)])
    found = option(shop, bill, shop.at)
    assert (found.remaining, found.allowed_at) == (0, bill.at + 24 * HOUR)


@plain
def test_three_replacements_in_a_row_are_still_one_budget(shop: Shop) -> None:
    bill = shop.bill(network="mastercard", fingerprint="fp_0")
    for number in range(1, 4):
        decline(shop, bill, [shop.wait(minutes=1), shop.wait(minutes=1)])
        bill.fingerprint = f"fp_{number}"
        shop.tell(bill.method_updated(shop.wait(minutes=1), {"card": {"fingerprint": f"fp_{number - 1}"}}))
    assert Card.objects.filter(connection=shop.connection).values("budget_group").distinct().count() == 1
    assert option(shop, bill, shop.at).remaining == 4


# --- waits and ranks ----------------------------------------------------------------------------------------------


@plain
def test_the_networks_wait_goes_on_top_of_the_windows(shop: Shop) -> None:
    bill = shop.bill(network="mastercard")
    decline(shop, bill, from_start(bill, MINUTE, 10))
    Card.objects.filter(pk=shop.card(bill).pk).update(wait_until=bill.at + 72 * HOUR)
    found = option(shop, bill, shop.at)
    assert (found.allowed_at, found.limit_text) == (bill.at + 72 * HOUR, "the network asked to wait")


@plain
def test_the_best_token_comes_first(shop: Shop) -> None:
    bill = shop.failed_bill()
    for number in range(4):
        shop.tell(shop.bill(customer=bill.customer, fingerprint=f"fp_{bill.key}_{number}").method_attached(shop.at))
    oldest, dead, waiting, proven, plain_one = Token.objects.filter(customer=shop.customer(bill)).order_by("id")
    Token.objects.filter(pk=dead.pk).update(status="declined", decline_code="lost_card")
    Card.objects.filter(pk=waiting.card_id).update(wait_until=shop.at + HOUR)
    Token.objects.filter(pk=proven.pk).update(last_success_at=shop.at)
    found = options(shop, bill, shop.at)
    assert [one.pk for one in found] == [proven.pk, oldest.pk, plain_one.pk, waiting.pk, dead.pk]
    assert (found[-1].usable, found[-1].obstacle) == (False, "was declined for good (lost_card)")


@plain
def test_the_number_of_queries_does_not_grow_with_the_tokens(shop: Shop) -> None:
    bill = shop.failed_bill()
    with CaptureQueriesContext(connection) as few:
        options(shop, bill, shop.at)
    for number in range(5):
        shop.tell(shop.bill(customer=bill.customer, fingerprint=f"fp_{bill.key}_{number}").method_attached(shop.at))
    with CaptureQueriesContext(connection) as many:
        assert len(options(shop, bill, shop.at)) == 6
    assert len(many) == len(few)


# --- the engine obeys ---------------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_what_the_provider_tries_after_the_booking_counts_when_the_charge_is_due(shop: Shop) -> None:
    """Booked when there was room; by the time it is due the provider has used the day up."""
    bill = shop.failed_bill(network="mastercard", fingerprint="fp_shared")
    other = shop.bill(network="mastercard", fingerprint="fp_shared", customer=bill.customer)
    due = shop.job(bill).due_at
    decline(shop, other, [due - 2 * HOUR + MINUTE * index for index in range(10)])
    shop.wait_until(due)
    counts = shop.drain()
    assert (counts.claimed, counts.rescheduled) == (1, 1)
    assert shop.sandbox.charges(bill.customer) == []
    release = due - 2 * HOUR + 24 * HOUR
    assert shop.job(bill).due_at == release
    assert "10 per 24 hours" in shop.case(bill).why
    shop.wait_until(release - TICK)
    assert shop.drain().claimed == 0
    shop.wait_until(release)
    assert shop.drain().succeeded == 1
    assert_promises(shop)


@pytest.mark.django_db(transaction=True)
def test_our_own_retries_stop_exactly_at_the_limit(shop: Shop) -> None:
    """Staff press the button as often as they like: the eleventh charge within a day is refused."""
    bill = shop.failed_bill("tok_decline_insufficient_funds", network="mastercard")
    for _ in range(9):
        shop.wait(minutes=1)
        shop.retry_now(bill)
        assert shop.drain().declined == 1
    shop.wait(minutes=1)
    with pytest.raises(Conflict, match="may not be charged before 2026-03-03 09:00 UTC"):
        shop.retry_now(bill)
    assert len(shop.sandbox.charges(bill.customer)) == 9
    assert_rules_kept(shop)


@plain
def test_a_limit_that_leaves_no_room_before_the_deadline_asks_the_customer(shop: Shop) -> None:
    bill = shop.bill()
    decline(shop, bill, from_start(bill, MINUTE, 15), code="do_not_honor")
    assert shop.case(bill).next_step == "customer"
    assert "leaves no room before the deadline" in shop.case(bill).why
