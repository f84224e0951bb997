"""Cards and tokens as providers tell of them: learned once, stopped by networks, revived only by what may revive."""

from datetime import timedelta

import pytest
from django.db import IntegrityError, connection, transaction
from django.test.utils import CaptureQueriesContext

from invoices.services.parties import customer_lock
from providers.base import CardFacts, MethodFacts
from recovery_site.common.errors import InvalidInput
from tests.support.shop import Shop
from tests.support.stripe import Bill
from tokens.models import Card, Token
from tokens.services import cards_lock, cards_stop, method_ensure

pytestmark = pytest.mark.django_db
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def redated(shop: Shop, bill: Bill, expiry: tuple[int, int] = (12, 2034)) -> None:
    """The account updater brings a later expiry of the same card."""
    before = {"card": {"exp_month": bill.expiry[0], "exp_year": bill.expiry[1]}}
    bill.expiry = expiry
    shop.tell(bill.method_updated(shop.wait(hours=1), before))


def replaced(shop: Shop, bill: Bill) -> None:
    """The account updater brings another card under the same token."""
    before = {"card": {"fingerprint": bill.fingerprint or f"fp_{bill.token}"}}
    bill.fingerprint = f"fp_new_{bill.key}"
    shop.tell(bill.method_updated(shop.wait(hours=1), before))


# --- learning -----------------------------------------------------------------------------------------------------


def test_a_method_is_learned_once(shop: Shop) -> None:
    bill = shop.failed_bill()
    token, card = shop.token(bill), shop.card(bill)
    assert (token.status, token.customer, card.network, card.last4) == ("live", shop.customer(bill), "visa", "4242")
    assert (card.exp_month, card.exp_year, card.funding) == (12, 2030, "credit")
    shop.tell(bill.method_attached(shop.wait(hours=1)), *bill.attempt(shop.at).failed())
    assert Token.objects.filter(connection=shop.connection).count() == 1
    assert Card.objects.filter(connection=shop.connection).count() == 1


def test_a_token_without_a_fingerprint_has_a_card_of_its_own(shop: Shop) -> None:
    bill = shop.bill()
    shop.tell(bill.attempt().invoice_failed(default_payment_method=bill.token))
    card = shop.card(bill)
    assert (card.network, card.last4) == ("unknown", "")
    shop.tell(bill.attempt(shop.wait(days=1)).charge_failed())
    assert (shop.card(bill).network, shop.card(bill).last4) == ("visa", "4242")
    assert shop.card(bill).budget_group == card.budget_group


@pytest.mark.parametrize("token", ["", "x" * 201])
def test_an_impossible_token_is_refused(shop: Shop, token: str) -> None:
    customer = shop.customer(shop.failed_bill())
    with pytest.raises(InvalidInput, match="1 to 200 characters"):
        method_ensure(customer=customer, method=MethodFacts(token=token), now=shop.at)


def test_details_are_cut_to_what_may_be_kept(shop: Shop) -> None:
    """A provider that sends a whole number where the last four belong must not bring it into the database."""
    customer = shop.customer(shop.failed_bill())
    facts = CardFacts(fingerprint="fp_odd", network="visa", last4="4242424242424242", country="deu")
    keys = method_ensure(customer=customer, method=MethodFacts(token="tok_odd", card=facts), now=shop.at)
    card = Card.objects.get(pk=keys.card_pk)
    assert (card.last4, card.country) == ("4242", "DE")


def test_a_customer_has_one_default_at_most(shop: Shop) -> None:
    bill = shop.failed_bill()
    spare = shop.bill(customer=bill.customer)
    shop.tell(spare.method_attached(shop.at))
    Token.objects.filter(pk=shop.token(bill).pk).update(is_default=True)
    with pytest.raises(IntegrityError, match="token_one_default_per_customer"), transaction.atomic():
        Token.objects.filter(pk=shop.token(spare).pk).update(is_default=True)


def test_another_customers_token_is_left_as_it_is(shop: Shop) -> None:
    first = shop.failed_bill(code="lost_card")
    second = shop.bill(first.token, fingerprint="fp_other")
    shop.fail(second, code="insufficient_funds")
    token = shop.token(first)
    assert (token.customer, token.status) == (shop.customer(first), "declined")
    assert token.card.fingerprint == f"fp_{first.token}"


# --- locks --------------------------------------------------------------------------------------------------------


def locked_cards() -> set[str]:
    """Fingerprints of the cards that somebody else has locked just now."""
    with connection.copy().cursor() as other:
        other.execute("SELECT id FROM tokens_card FOR NO KEY UPDATE SKIP LOCKED")
        free = [pk for (pk,) in other.fetchall()]
        other.connection.close()
    return set(Card.objects.exclude(pk__in=free).values_list("fingerprint", flat=True))


@pytest.mark.django_db(transaction=True)
def test_all_cards_of_all_groups_are_locked_in_one_query_by_primary_key(shop: Shop) -> None:
    mine = shop.failed_bill(fingerprint="fp_shared")
    theirs = shop.failed_bill(fingerprint="fp_shared")
    spare = shop.bill(customer=mine.customer)
    foreign = shop.failed_bill()
    shop.tell(spare.method_attached(shop.at))
    replaced(shop, theirs)
    with transaction.atomic():
        customer = customer_lock(shop.customer(mine).pk)
        with CaptureQueriesContext(connection) as queries:
            cards = cards_lock(customer)
        locked = locked_cards()
    assert [card.pk for card in cards] == sorted(card.pk for card in cards)
    assert {card.fingerprint for card in cards} == {"fp_shared", f"fp_new_{theirs.key}", f"fp_{spare.token}"}
    assert shop.card(foreign).pk not in [card.pk for card in cards]
    assert locked == {card.fingerprint for card in cards}
    assert len(queries) == 1


def test_a_card_nobody_has_is_locked_beside_the_customers_own(shop: Shop) -> None:
    mine, foreign = shop.failed_bill(), shop.failed_bill()
    with transaction.atomic():
        cards = cards_lock(customer_lock(shop.customer(mine).pk), also=[shop.card(foreign).pk])
    assert {card.pk for card in cards} == {shop.card(mine).pk, shop.card(foreign).pk}


# --- hard declines ------------------------------------------------------------------------------------------------


def test_a_hard_decline_stops_the_token_and_a_stop_the_card(shop: Shop) -> None:
    expired, lost = shop.failed_bill(code="expired_card"), shop.failed_bill(code="lost_card")
    assert (shop.token(expired).status, shop.card(expired).stopped_at) == ("declined", None)
    assert (shop.token(lost).status, shop.card(lost).stopped_at) == ("declined", lost.at)
    assert shop.token(expired).decline_code == "expired_card"


def test_a_stop_holds_for_every_token_of_the_card(shop: Shop) -> None:
    bill = shop.failed_bill(fingerprint="fp_shared")
    other = shop.failed_bill(fingerprint="fp_shared")
    shop.tell(bill.attempt(shop.wait(hours=1), code="lost_card").charge_failed())
    assert shop.token(other).status == "live"
    shop.tell(other.attempt(shop.wait(hours=1), code="do_not_honor").charge_failed())
    assert shop.case(other).next_step == "customer"
    assert "stopped by its network" in shop.case(other).why


def test_a_hard_decline_of_one_token_leaves_another_card_alone(shop: Shop) -> None:
    bill = shop.failed_bill(code="expired_card")
    spare = shop.bill(customer=bill.customer)
    shop.tell(spare.method_attached(shop.at))
    assert (shop.token(bill).status, shop.token(spare).status) == ("declined", "live")


def test_a_success_proves_a_declined_token_alive(shop: Shop) -> None:
    bill = shop.failed_bill(code="expired_card")
    shop.tell(*bill.attempt(shop.wait(hours=1)).succeeded())
    token = shop.token(bill)
    assert (token.status, token.decline_code, token.last_success_at) == ("live", "", shop.at)


# --- revival ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", ["expired_card", "lost_card", "incorrect_number"])
@pytest.mark.parametrize("news", [redated, replaced])
def test_a_new_expiry_or_card_revives_and_resumes(shop: Shop, code: str, news: object) -> None:
    bill = shop.failed_bill(code=code)
    assert (shop.token(bill).status, shop.case(bill).next_step) == ("declined", "customer")
    news(shop, bill)  # type: ignore[operator]
    assert (shop.token(bill).status, shop.token(bill).decline_code, shop.card(bill).stopped_at) == ("live", "", None)
    job = shop.job(bill)
    assert (job.status, job.trigger, job.due_at) == ("SCHEDULED", "card_update", shop.at)


@pytest.mark.parametrize(
    ("network", "code", "network_code", "advice"),
    [
        ("mastercard", "do_not_honor", "79", "03"),
        ("mastercard", "do_not_honor", "79", "21"),
        ("mastercard", "do_not_honor", "", "3 : do not try again"),
        ("visa", "do_not_honor", "R0", ""),
        ("visa", "do_not_honor", "R1", ""),
        ("visa", "do_not_honor", "R3", ""),
        ("visa", "stop_payment_order", "", ""),
        ("visa", "revocation_of_authorization", "", ""),
    ],
)
@pytest.mark.parametrize("news", [redated, replaced])
def test_what_the_cardholder_stopped_no_update_revives(
    shop: Shop, network: str, code: str, network_code: str, advice: str, news: object
) -> None:
    bill = shop.bill(network=network)
    shop.fail(bill, code=code, network_code=network_code, advice_code=advice)
    assert (shop.token(bill).status, shop.card(bill).stop_revivable) == ("declined", False)
    news(shop, bill)  # type: ignore[operator]
    assert (shop.token(bill).status, shop.case(bill).next_step) == ("declined", "customer")
    assert (shop.card(bill).stopped_at is not None, shop.card(bill).stop_revivable) == (True, False)


def test_a_milder_stop_after_a_lasting_one_does_not_soften_it(shop: Shop) -> None:
    bill = shop.bill(network="mastercard")
    shop.fail(bill, code="do_not_honor", network_code="79", advice_code="03")
    shop.tell(bill.attempt(shop.wait(hours=1), code="lost_card").charge_failed())
    card = shop.card(bill)
    assert (card.stop_code, card.stop_revivable) == ("03", False)
    redated(shop, bill)
    assert (shop.token(bill).status, shop.card(bill).stopped_at is not None) == ("declined", True)


def test_a_lasting_stop_hardens_a_milder_one(shop: Shop) -> None:
    bill = shop.failed_bill(code="lost_card")
    cards_stop(cards=[shop.card(bill)], code="R0", revivable=False, now=shop.at)
    assert (shop.card(bill).stop_code, shop.card(bill).stop_revivable) == ("R0", False)


def test_a_live_token_of_a_stopped_card_is_revived_with_it(shop: Shop) -> None:
    """The stop came over the card's other token; this one was never declined itself."""
    bill = shop.failed_bill(fingerprint="fp_shared")
    other = shop.failed_bill(fingerprint="fp_shared", code="do_not_honor")
    shop.tell(bill.attempt(shop.wait(hours=1), code="lost_card").charge_failed())
    assert shop.card(other).stopped_at is not None
    redated(shop, other)
    assert (shop.token(other).status, shop.card(other).stopped_at) == ("live", None)
    assert shop.job(other).status in ("SCHEDULED", "QUEUED")


@pytest.mark.parametrize("expiry", [(12, 2030), (11, 2030), (12, 2029)])
def test_an_expiry_that_is_not_later_revives_nothing(shop: Shop, expiry: tuple[int, int]) -> None:
    bill = shop.failed_bill(code="expired_card")
    bill.expiry = expiry
    shop.tell(bill.method_attached(shop.wait(hours=1)))
    assert shop.token(bill).status == "declined"


def test_the_first_description_of_a_card_is_no_new_card(shop: Shop) -> None:
    """A refusal for good told without the card, then once more with it: that revives nothing."""
    bill = shop.bill()
    tried = bill.attempt(code="lost_card")
    shop.tell(tried.invoice_failed(default_payment_method=bill.token))
    Token.objects.filter(pk=shop.token(bill).pk).update(status="declined", decline_code="lost_card")
    shop.tell(tried.charge_failed())
    assert shop.token(bill).status == "declined"


def test_a_removed_token_stays_removed(shop: Shop) -> None:
    bill = shop.failed_bill()
    shop.tell(bill.method_detached(shop.wait(hours=1)))
    redated(shop, bill)
    shop.tell(*bill.attempt(shop.wait(hours=1)).succeeded())
    assert (shop.token(bill).status, shop.token(bill).is_default) == ("removed", False)


# --- waits --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("advice", "hours"),
    [("02", 72), ("24", 1), ("25", 24), ("26", 48), ("27", 96), ("28", 144), ("29", 192), ("30", 240)],
)
def test_mastercards_advice_to_wait_is_obeyed_to_the_hour(shop: Shop, advice: str, hours: int) -> None:
    bill = shop.bill(network="mastercard")
    shop.fail(bill, code="insufficient_funds", network_code="51", advice_code=advice)
    card = shop.card(bill)
    assert (card.wait_until, card.stopped_at, shop.token(bill).status) == (bill.at + hours * HOUR, None, "live")
    assert shop.job(bill).due_at == bill.at + max(hours * HOUR, DAY)


def test_the_wait_binds_the_cards_other_tokens_and_invoices(shop: Shop) -> None:
    bill = shop.bill(network="mastercard", fingerprint="fp_shared")
    other = shop.failed_bill(network="mastercard", fingerprint="fp_shared", code="processing_error")
    assert shop.job(other).due_at == other.at + timedelta(minutes=1)
    shop.fail(bill, code="insufficient_funds", advice_code="02")
    shop.tell(other.attempt(shop.wait(minutes=30), code="processing_error").charge_failed())
    assert shop.job(other).due_at == bill.at + 72 * HOUR


def test_a_later_word_never_shortens_a_wait(shop: Shop) -> None:
    bill = shop.bill(network="mastercard")
    shop.fail(bill, code="insufficient_funds", advice_code="30")
    shop.tell(bill.attempt(shop.wait(hours=1), code="insufficient_funds", advice_code="24").charge_failed())
    assert shop.card(bill).wait_until == bill.at + 240 * HOUR


def test_a_visa_card_has_no_merchant_advice(shop: Shop) -> None:
    bill = shop.bill(network="visa")
    shop.fail(bill, code="insufficient_funds", advice_code="03")
    assert (shop.card(bill).stopped_at, shop.card(bill).wait_until) == (None, None)
