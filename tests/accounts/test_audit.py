"""Who read or changed what stands in the books, on pages as through the API, and goes when its time is over."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from django.core.management import call_command
from django.db.models.functions import Now
from django.test import Client
from django.urls import reverse

from accounts.models import ApiAccess, IdempotencyRecord, User
from tests.api.door import Door
from tests.console.world import World

LogIn = Callable[[User], Client]


@pytest.fixture
def world(db: None, redis_client: object, monkeypatch: pytest.MonkeyPatch) -> World:
    made = World()
    monkeypatch.setattr("recovery_site.common.clock.now", lambda: made.at)
    return made


def staff(world: World, role: str = "owner") -> tuple[User, Client]:
    user = world.person(role)
    user.is_staff = True
    user.save()
    client = Client()
    client.force_login(user)
    return user, client


def books() -> list[tuple[str, str, str, int]]:
    rows = ApiAccess.objects.order_by("pk").values_list("actor", "method", "subject", "status_code")
    return [tuple(row) for row in rows]


def test_pages_and_forms_are_written_down_with_who_and_whose(world: World) -> None:
    invoice, (user, client) = world.fail(), staff(world, "viewer")
    page = reverse("console:invoice", args=[invoice.public_id])
    client.get(page)
    client.get(reverse("console:invoice-live", args=[invoice.public_id]))  # what the page polls by itself
    client.post(f"{page}cancel/", {"reason": "x"})
    client.get(reverse("admin:invoices_customer_change", args=[invoice.customer.pk]))
    Client().get(page)
    actor, row = f"user:{user.pk}", invoice.public_id
    assert books() == [
        (actor, "GET", row, 200),
        (actor, "POST", f"{row}/cancel", 403),
        (actor, "GET", str(invoice.customer.pk), 200),
    ]
    assert set(ApiAccess.objects.values_list("merchant", "credential")) == {(world.merchant.pk, "session")}


def test_a_page_of_one_row_names_its_merchant_a_list_of_all_names_none(world: World) -> None:
    other = World(name="Zebra")
    client = Client()
    client.force_login(User.objects.create_superuser("boss", password="x"))
    for one in (world, other):
        client.get(reverse("admin:invoices_connection_change", args=[one.connection.pk]))
    client.get(reverse("admin:invoices_connection_changelist"))
    told = list(ApiAccess.objects.order_by("pk").values_list("merchant", flat=True))
    assert told == [world.merchant.pk, other.merchant.pk, None]
    _, owner = staff(world)
    assert "boss" not in owner.get(reverse("admin:accounts_apiaccess_changelist")).content.decode()


def test_books_and_kept_answers_go_when_their_time_is_over(world: World) -> None:
    door = Door(merchant=world.merchant)
    body = {"url": "https://example.com/hook"}
    for key in ("old", "new"):
        door.post("/webhook-endpoints/out", body, status=201, idempotency_key=key)
    first = ApiAccess.objects.order_by("pk").first()
    assert first is not None
    ApiAccess.objects.filter(pk=first.pk).update(at=Now() - timedelta(days=401))
    IdempotencyRecord.objects.filter(key="old").update(created_at=Now() - timedelta(days=8))
    call_command("purge", "--once", "--json")
    assert list(IdempotencyRecord.objects.values_list("key", flat=True)) == ["new"]
    assert ApiAccess.objects.count() == 1
    door.post("/webhook-endpoints/out", body, status=201, idempotency_key="old")
    assert IdempotencyRecord.objects.count() == 2
