"""Cards, customers' cards and limits in the admin: what is shown, who may set a limit or take a slot."""

from datetime import timedelta

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from invoices.models import Event
from retries.models import RetryJob
from tests.console.world import World
from tests.tokens.history import Book
from tokens.models import Card, RetryLimit

DAY = timedelta(days=1)


@pytest.fixture
def world(transactional_db: None, redis_client: object, monkeypatch: pytest.MonkeyPatch) -> World:
    made = World()
    monkeypatch.setattr("recovery_site.common.clock.now", lambda: made.at)
    return made


def member(world: World, role: str) -> Client:
    user = world.person(role)
    user.is_staff = True
    user.save()
    client = Client()
    client.force_login(user)
    return client


def page(client: Client, name: str, *arguments: int) -> str:
    response = client.get(reverse(f"admin:{name}", args=arguments))
    assert response.status_code == 200
    return response.content.decode()


def test_a_card_shows_its_rules_and_a_customer_all_cards_with_waits_and_slot(world: World):
    invoice = world.fail(network="amex")
    token = invoice.attempts.get().token
    assert token is not None
    world.add_token(invoice, "tok_waits", network="mastercard", last4="1111")
    Card.objects.filter(last4="1111").update(wait_until=world.at + 3 * DAY)
    client = member(world, "viewer")
    card = page(client, "tokens_card_change", token.card_id)
    assert "Used up: amex max_retries_per_day: 1 per 24 hours and card." in card
    assert "1 of 1" in card
    assert "14 left" in card
    customer = page(client, "invoices_customer_change", invoice.customer_id)
    for text in (
        "American Express •••• 4242",
        "Mastercard •••• 1111",
        "The network asked to wait.",
        "10 left",
        "Held by",
    ):
        assert text in customer, text
    assert invoice.transactions.get().public_id in customer
    stranger = World(name="Stranger")
    other = stranger.fail()
    for name, pk in (("invoices_customer", other.customer_id), ("tokens_card", other.attempts.get().card_id)):
        assert client.get(reverse(f"admin:{name}_change", args=[pk])).status_code == 302, name


def test_many_cards_cost_no_more_queries_than_one(world: World):
    invoice = world.fail()
    client, customer = member(world, "viewer"), invoice.customer_id
    page(client, "invoices_customer_change", customer)

    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            page(client, "invoices_customer_change", customer)
        return len(captured)

    one = queries()
    book = Book(merchant=world.merchant)
    book.connection = world.connection
    for _ in range(8):
        book.token(invoice.customer)
    assert queries() == one


def test_a_manager_sets_and_lifts_a_stricter_limit_and_no_looser_one(world: World):
    world.fail(network="mastercard")
    client, add = member(world, "manager"), reverse("admin:tokens_retrylimit_add")
    values = {"merchant": world.merchant.pk, "network": "mastercard", "name": "max_retries_per_day"}
    refused = client.post(add, {**values, "limit": 11})
    assert "looser than the network&#x27;s 10; give 10 or less" in refused.content.decode()
    assert "has no rule" in client.post(add, {**values, "name": "max_entries_per_invoice", "limit": 1}).content.decode()
    assert client.post(add, {**values, "limit": 4}).status_code == 302
    limit = RetryLimit.objects.get()
    assert (limit.limit, limit.changed_by.startswith("user:")) == (4, True)
    change = reverse("admin:tokens_retrylimit_change", args=[limit.pk])
    assert "looser than" in client.post(change, {"limit": 12}).content.decode()
    assert client.post(change, {"limit": 3}).status_code == 302
    assert RetryLimit.objects.get().limit == 3
    assert client.post(add, {**values, "network": "*", "limit": 7}).status_code == 302
    listed = page(client, "tokens_retrylimit_changelist")
    for text in ("Mastercard Transaction Processing Excellence", "not chosen", "in force"):
        assert text in listed, text
    assert client.post(reverse("admin:tokens_retrylimit_delete", args=[limit.pk]), {"post": "yes"}).status_code == 302
    assert RetryLimit.objects.get().network == "*"


def test_a_limit_is_set_only_for_ones_own_merchant_and_only_by_managers(world: World):
    other = World(name="Other")
    values = {"network": "visa", "name": "max_retries_per_day", "limit": 1}
    add = reverse("admin:tokens_retrylimit_add")
    assert member(world, "support").post(add, {**values, "merchant": world.merchant.pk}).status_code == 403
    refused = member(world, "manager").post(add, {**values, "merchant": other.merchant.pk})
    assert "Select a valid choice" in refused.content.decode()
    assert RetryLimit.objects.count() == 0


def test_a_manager_takes_a_slot_with_a_reason(world: World):
    first, second = world.fail(amount=5_000), world.fail(amount=100)
    form = {"action": "unlock", "_selected_action": [str(first.customer_id)]}
    url = reverse("admin:invoices_customer_changelist")
    member(world, "support").post(url, {**form, "confirmed": "yes", "reason": "stuck"})
    assert not Event.objects.filter(kind="staff.unlock").exists()
    client = member(world, "manager")
    assert "goes from" in client.post(url, form).content.decode()
    told = client.post(url, {**form, "confirmed": "yes", "reason": "stuck"}, follow=True).content.decode()
    assert f"The slot went from invoice {first} to invoice {second}." in told
    event = Event.objects.get(kind="staff.unlock")
    assert (event.data["reason"], event.actor.startswith("user:")) == ("stuck", True)
    assert RetryJob.objects.get(invoice=second).status == "SCHEDULED"
    world.at = RetryJob.objects.get(invoice=second).due_at
    world.send()
    told = client.post(url, {**form, "confirmed": "yes", "reason": "again"}, follow=True).content.decode()
    assert "A charge of this customer is being sent" in told
