"""Roads by which a limit could be exceeded or a dead token charged: late news, lookalikes, replacements, answers."""

from datetime import timedelta

import pytest
from django.db.models.functions import Now

from invoices.models import Attempt, Invoice
from invoices.services.parties import connection_create
from providers.base import CardFacts, CustomerFacts, DeclineFacts, EventKind, InvoiceFacts, MethodFacts, PaymentFacts
from recovery_site.common.errors import InvalidInput
from retries.models import RetryJob
from retries.services.manual import attempt_resolve
from tests.console.world import World, method
from tests.tokens.history import both
from tokens.card_budgets import card_budget
from tokens.mirror import Answer
from tokens.models import Card, Token
from tokens.services import cards_link, cards_lock, cards_stop

pytestmark = pytest.mark.django_db
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


@pytest.fixture
def world(redis_client: object, monkeypatch: pytest.MonkeyPatch) -> World:
    made = World()
    monkeypatch.setattr("recovery_site.common.clock.now", lambda: made.at)
    monkeypatch.setattr("tokens.mirror.selection._limits", {})
    return made


def describe(world: World, token: str, expiry: tuple[int, int], *, told: timedelta = timedelta(), **more: str) -> None:
    """The provider's word on a token, dated `told` ago; `fingerprint` and `network` as given."""
    facts = {"fingerprint": "fp_tok_ok", "network": "visa", "last4": "4242", **more}
    card = CardFacts(exp_month=expiry[0], exp_year=expiry[1], **facts)  # type: ignore[arg-type]
    world.tell(
        EventKind.METHOD_UPDATED,
        occurred_at=world.at - told,
        customer=CustomerFacts(id="cus_ann"),
        method=MethodFacts(token=token, card=card),
    )


def status(token: str = "tok_ok") -> str:
    return Token.objects.get(provider_token=token).status


def used(world: World, token: str = "tok_ok") -> int:
    card = Card.objects.get(tokens__provider_token=token)
    return max(use.used for use in card_budget(card, world.at).uses)


# --- a dead token ---------------------------------------------------------------------------------------------------


def charge_succeeded(world: World, invoice: Invoice, at: object) -> None:
    world.tell(
        EventKind.PAYMENT_SUCCEEDED,
        occurred_at=at,
        customer=CustomerFacts(id="cus_ann"),
        payment=PaymentFacts(
            charge_id="ch_late",
            payment_id="pi_late",
            amount_minor=4_990,
            currency="USD",
            invoice_id=invoice.provider_invoice_id or "",
            method=method("tok_ok"),
        ),
    )


@pytest.mark.parametrize(("paid_before", "left"), [(HOUR, "declined"), (-HOUR, "live")])
def test_a_success_told_late_revives_no_token_refused_after_it(world: World, paid_before: timedelta, left: str):
    other = world.fail()
    refused_at = world.at
    world.fail(code="expired_card")
    assert status() == "declined"
    world.wait(hours=2)
    charge_succeeded(world, other, refused_at - paid_before)
    assert status() == left


def test_a_decline_told_late_kills_no_token_that_has_paid_since(world: World):
    invoice = world.fail()
    world.wait(hours=2)
    world.pay(invoice)
    charge_succeeded(world, world.fail(), world.at)
    world.tell(
        EventKind.PAYMENT_FAILED,
        occurred_at=world.at - HOUR,
        customer=CustomerFacts(id="cus_ann"),
        payment=PaymentFacts(
            charge_id="ch_earlier",
            payment_id="pi_earlier",
            amount_minor=4_990,
            currency="USD",
            invoice_id="in_earlier",
            method=method("tok_ok"),
            decline=DeclineFacts(raw_code="expired_card"),
        ),
    )
    assert status() == "live"
    assert used(world) == 3, "it counts all the same"


def test_the_old_month_told_again_and_again_makes_the_true_one_no_news(world: World):
    """Two tokens of one card, made before and after it was renewed."""
    describe(world, "tok_ok", (12, 2030))
    invoice = world.fail(code="lost_card")
    assert Card.objects.get().stopped_at is not None
    for _ in range(2):
        world.wait(hours=1)
        describe(world, "tok_before_it_was_renewed", (11, 2027))
        world.wait(hours=1)
        describe(world, "tok_ok", (12, 2030))
    card = Card.objects.get()
    assert (card.exp_month, card.exp_year, card.stopped_at is not None) == (12, 2030, True)
    assert (status(), RetryJob.objects.filter(invoice=invoice).exists()) == ("declined", False)
    describe(world, "tok_ok", (1, 2031))
    assert (status(), Card.objects.get().stopped_at) == ("live", None)


@pytest.mark.parametrize(("told", "left"), [(3 * HOUR, "declined"), (HOUR, "live")])
def test_news_from_before_the_refusal_revive_nothing(world: World, told: timedelta, left: str):
    """The card was renewed, refused for good, and only then its renewal is told."""
    world.fail()
    world.wait(days=1)
    Token.objects.update(described_at=world.at - 2 * DAY)
    (attempt,) = world.send()
    world.answer(attempt, "lost_card")
    world.wait(hours=2)
    describe(world, "tok_ok", (12, 2033), told=told)
    assert status() == left


# --- one budget for what is one account -----------------------------------------------------------------------------


def test_a_replacement_waits_as_long_as_the_card_it_replaces(world: World):
    world.fail(network="mastercard")
    until = world.at + 8 * DAY
    Card.objects.update(wait_until=until)
    world.wait(hours=1)
    describe(world, "tok_ok", (1, 2032), fingerprint="fp_new", network="mastercard")
    assert set(Card.objects.values_list("fingerprint", "wait_until")) == {("fp_tok_ok", until), ("fp_new", until)}


def test_a_stop_for_good_reaches_every_card_of_the_joined_group(world: World):
    """A cardholder's stop of one card; then its token moves to a card that has a token of its own already."""
    world.fail(network="mastercard")
    invoice = world.fail(token="tok_second", fingerprint="fp_second", network="mastercard", last4="1111")
    Card.objects.filter(fingerprint="fp_second").update(stopped_at=world.at, stop_code="21", stop_revivable=False)
    world.wait(hours=1)
    describe(world, "tok_ok", (1, 2032), fingerprint="fp_second", network="mastercard")
    assert set(Card.objects.values_list("stop_code", "stop_revivable")) == {("21", False)}
    for _ in range(3):  # each refusal hands the slot to the other invoice
        world.at = max(RetryJob.objects.values_list("due_at", flat=True))
        assert world.send() == []
    assert world.case(invoice).next_step == "customer"


def test_cards_linked_across_connections_share_budget_locks_stops_and_waits(world: World):
    other = World(name="Second account", at=world.at)
    other.connection = connection_create(merchant=world.merchant, provider="simulator", config={})
    here = world.fail(network="amex", fingerprint="fp_here")
    world.wait(hours=30)
    other.at = world.at
    there = other.fail(network="amex", fingerprint="fp_there")
    first, second = Card.objects.order_by("pk")
    until = world.at + 2 * HOUR
    Card.objects.filter(pk=second.pk).update(wait_until=until)
    owner = here.transactions.get().public_id
    assert both(here, world.at, owner=owner).tokens[0].allowed_at == world.at
    cards_link(card=first, other=second, actor="test", reason="one plastic card")
    assert both(here, world.at, owner=owner).tokens[0].allowed_at == world.at + DAY
    assert set(Card.objects.values_list("budget_group", "wait_until")) == {(first.budget_group, until)}
    assert {card.pk for card in cards_lock(here.customer)} == {first.pk, second.pk}
    cards_stop(cards=cards_lock(there.customer), code="R0", revivable=False, now=world.at)
    assert both(here, world.at, owner=owner).answer is Answer.DEAD
    stranger = World(name="Stranger", at=world.at)
    stranger.fail()
    with pytest.raises(InvalidInput, match="belong to two merchants"):
        cards_link(card=first, other=Card.objects.latest("pk"), actor="test", reason="")


# --- what counts ----------------------------------------------------------------------------------------------------


def biller_failed(world: World, number: int) -> None:
    """The biller's own retry as some formats tell it: neither charge nor card."""
    facts = {"amount_minor": 4_990, "currency": "USD", "issued_at": world.at}
    world.tell(
        EventKind.INVOICE_FAILED,
        customer=CustomerFacts(id="cus_ann"),
        invoice=InvoiceFacts(id="in_bare", attempt_count=number, **facts),  # type: ignore[arg-type]
    )


def test_a_try_whose_card_nobody_told_counts_against_every_card_of_the_customer(world: World):
    invoice = world.fail(network="amex")
    world.add_token(invoice, "tok_two", network="amex", last4="1111")
    world.fail(customer="cus_bob", token="tok_bob", network="amex")
    world.wait(days=2)
    biller_failed(world, 1)
    assert Attempt.objects.get(card=None).token_id is None
    for name, number in (("tok_ok", 1), ("tok_two", 1), ("tok_bob", 0)):
        card = Card.objects.get(tokens__provider_token=name)
        uses = {use.rule.name: use.used for use in card_budget(card, world.at).uses}
        assert uses["max_retries_per_day"] == number, name
    answer = both(invoice, world.at, owner=invoice.transactions.get().public_id)
    assert {one.allowed_at for one in answer.tokens} == {world.at + DAY}
    assert [attempt.token.provider_token for attempt in world.send()] == ["tok_bob"]


def test_two_tokens_of_one_card_count_such_a_try_once(world: World):
    invoice = world.fail()
    world.add_token(invoice, "tok_two", fingerprint="fp_tok_ok")
    biller_failed(world, 1)
    assert used(world) == 2
    Card.objects.update(budget_group=Card.objects.first().budget_group)  # type: ignore[union-attr]
    assert used(world) == 2


def sent_and_lost(world: World) -> Attempt:
    invoice = world.fail(network="amex")
    world.at = RetryJob.objects.get(invoice=invoice).due_at
    (attempt,) = world.send()
    return world.answer(attempt, "lost")


def told_not_charged(world: World, attempt: Attempt) -> None:
    """Staff's answer, once nothing that was sent can still arrive."""
    Attempt.objects.filter(pk=attempt.pk).update(lease_until=Now() - timedelta(minutes=1))
    attempt_resolve(attempt_pk=attempt.pk, charged=False, stamp=world.stamp("user:1"), note="not in their list")


def unsent_and_declined_after_all(world: World, attempt: Attempt) -> None:
    """Held for unsent, so it gave its budget back; then the provider tells of its decline."""
    world.tell(
        EventKind.PAYMENT_FAILED,
        customer=CustomerFacts(id="cus_ann"),
        payment=PaymentFacts(
            charge_id="ch_after_all",
            payment_id="pi_after_all",
            amount_minor=attempt.amount_minor,
            currency=attempt.currency,
            reference=attempt.public_id,
            decline=DeclineFacts(raw_code="insufficient_funds"),
        ),
    )


def test_staffs_word_that_no_money_moved_gives_no_budget_back(world: World):
    attempt = sent_and_lost(world)
    told_not_charged(world, attempt)
    attempt = Attempt.objects.get(pk=attempt.pk)
    assert (attempt.status, attempt.counts) == ("ERRORED", True)
    job = RetryJob.objects.get(status="SCHEDULED")
    assert job.due_at == attempt.attempted_at + DAY


def test_a_try_held_for_unsent_that_a_network_declined_uses_up_budget(world: World):
    invoice = world.fail(network="amex")
    world.at = RetryJob.objects.get(invoice=invoice).due_at
    (attempt,) = world.send()
    world.answer(attempt, "unsent")
    job = RetryJob.objects.get(status="SCHEDULED")
    assert job.due_at == world.at, "unsent is tried at once"
    unsent_and_declined_after_all(world, attempt)
    assert both(invoice, world.at, owner=invoice.transactions.get().public_id).tokens[0].allowed_at == world.at + DAY
    assert world.send() == []
    job.refresh_from_db(fields=["due_at"])
    assert job.due_at == attempt.attempted_at + DAY
