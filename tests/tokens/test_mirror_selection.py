"""The script's answers against PostgreSQL's, one situation at a time."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
import redis

from invoices.models import Customer, Invoice
from tests.console.world import NOW, World
from tokens.mirror import Answer, Selection, mirror_customer, selection_read, tokens_select
from tokens.mirror.keys import CustomerKeys, customer_keys
from tokens.models import Card, Token
from tokens.services import retry_limit_set


@pytest.fixture
def world(db: None, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> World:
    made = World()
    monkeypatch.setattr("recovery_site.common.clock.now", lambda: made.at)
    return made


def customer_of(invoice: Invoice) -> Customer:
    return Customer.objects.select_related("connection").get(pk=invoice.customer_id)


def keys_of(invoice: Invoice) -> CustomerKeys:
    customer = customer_of(invoice)
    return customer_keys(customer.connection.public_id, customer.connector_customer_id)


def owner_of(invoice: Invoice) -> str:
    return invoice.transactions.get(status="RETRYING").public_id


def ask(
    function: Callable[..., Selection], invoice: Invoice, at: datetime, *, owner: str = "", amount: int | None = None
) -> Selection:
    return function(
        customer=customer_of(invoice),
        owner=owner or owner_of(invoice),
        invoice_pk=invoice.pk,
        amount_minor=invoice.amount_minor if amount is None else amount,
        currency=invoice.currency,
        not_before=at,
    )


def both(invoice: Invoice, at: datetime, *, owner: str = "", amount: int | None = None) -> Selection:
    """Redis's answer, which must be PostgreSQL's."""
    assert mirror_customer(invoice.customer_id)
    warm = ask(tokens_select, invoice, at, owner=owner, amount=amount)
    quiet = ask(selection_read, invoice, at, owner=owner, amount=amount)
    assert warm.warm
    assert not quiet.warm
    assert (warm.answer, warm.tokens, warm.locked_by) == (quiet.answer, quiet.tokens, quiet.locked_by)
    return warm


def test_a_token_with_room_may_be_charged_at_once(world: World):
    invoice = world.fail()
    answer = both(invoice, world.at)
    assert answer.answer is Answer.RANKED
    assert [one.allowed_at for one in answer.tokens] == [world.at]


@pytest.mark.parametrize("network", ["visa", "mastercard", "amex", "elo", "maestro", "unknown", "martian"])
@pytest.mark.parametrize("tries", [1, 9, 10, 14, 15, 16, 35, 36, 70])
def test_limits_release_at_the_same_microsecond(world: World, network: str, tries: int):
    invoice = world.fail(network=network)
    for _ in range(tries - 1):
        world.wait(minutes=7, microseconds=13)
        world.fail(invoice="in_other", network=network, charge="", code="insufficient_funds")
    for ahead in (timedelta(), timedelta(hours=23), timedelta(days=29, hours=23), timedelta(days=31)):
        both(invoice, world.at + ahead)
    both(invoice, world.at, amount=1)
    assert both(invoice, world.at + timedelta(days=62)).tokens[0].allowed_at == world.at + timedelta(days=62)
