from collections.abc import Callable

import pytest
from django.test import Client

from accounts.models import User
from accounts.states import Role
from invoices.models import Event
from notifications.models import Alert
from notifications.services.alerts import alert_wanted, alert_write
from tests.console.world import World

LogIn = Callable[[User], Client]


@pytest.fixture
def alerted(world: World) -> World:
    """Two invoices paid twice: an alert each, at least, handed over as the outbox does once a transaction is over."""
    for name in ("ann", "ben"):
        invoice = world.fail(customer=f"cus_{name}", token=f"tok_{name}", number=f"INV-{name}")
        world.pay(invoice)
        world.pay(invoice)
    for event in Event.objects.order_by("id"):
        if alert_wanted(event.kind):
            alert_write(event)
    return world


def unread(world: World) -> int:
    return Alert.objects.filter(merchant=world.merchant, acknowledged_at__isnull=True).count()


def test_unread_alerts_are_listed_newest_first_with_their_invoices(alerted: World, as_user: LogIn) -> None:
    page = as_user(alerted.person()).get("/dashboard/alerts/").content.decode()
    assert unread(alerted) >= 2
    assert page.count('class="alert-line"') == unread(alerted)
    assert page.index("INV-ben") < page.index("INV-ann")
    assert "Paid twice: a person has to decide." in page
    assert f'href="/console/invoices/{alerted.merchant.pk and Alert.objects.latest("pk").invoice.public_id}/"' in page


def test_acknowledging_one_leaves_the_others_and_names_the_reader(alerted: World, as_user: LogIn) -> None:
    user = alerted.person(Role.SUPPORT, username="sofia")
    before, alert = unread(alerted), Alert.objects.latest("pk")
    response = as_user(user).post("/dashboard/alerts/seen/", {"alert": alert.pk, "back": "/dashboard/alerts/?show=all"})
    assert response["Location"] == "/dashboard/alerts/?show=all"
    alert.refresh_from_db()
    assert (alert.acknowledged_by, alert.acknowledged_at) == ("sofia", alerted.at)
    assert unread(alerted) == before - 1


def test_first_reader_stays(alerted: World, client: Client) -> None:
    alert = Alert.objects.latest("pk")
    for name in ("first", "second"):
        client.force_login(alerted.person(username=name))
        client.post("/dashboard/alerts/seen/", {"alert": alert.pk})
    alert.refresh_from_db()
    assert alert.acknowledged_by == "first"


def test_viewers_may_read_but_not_acknowledge(alerted: World, as_user: LogIn) -> None:
    client = as_user(alerted.person(Role.VIEWER))
    before = unread(alerted)
    assert client.get("/dashboard/alerts/").status_code == 200
    response = client.post("/dashboard/alerts/seen/", {"alert": Alert.objects.latest("pk").pk})
    assert response.status_code == 403
    assert "Viewers cannot acknowledge alerts" in response.content.decode()
    assert unread(alerted) == before


def test_another_merchants_alert_cannot_be_acknowledged(alerted: World, as_user: LogIn) -> None:
    other = World(name="Other", at=alerted.at)
    response = as_user(other.person(Role.OWNER)).post(
        "/dashboard/alerts/seen/", {"alert": [str(pk) for pk in Alert.objects.values_list("pk", flat=True)]}
    )
    assert response.status_code == 302
    assert unread(alerted) == Alert.objects.count()


def test_acknowledging_is_never_a_plain_link(alerted: World, as_user: LogIn) -> None:
    assert as_user(alerted.person()).get("/dashboard/alerts/seen/").status_code == 405


@pytest.mark.parametrize("back", ["https://evil.example/", "//evil.example/", "javascript:alert(1)", ""])
def test_way_back_never_leaves_the_site(alerted: World, as_user: LogIn, back: str) -> None:
    response = as_user(alerted.person()).post("/dashboard/alerts/seen/", {"alert": "1", "back": back})
    assert response["Location"] == "/dashboard/alerts/"


def test_senseless_numbers_are_ignored(alerted: World, as_user: LogIn) -> None:
    before = unread(alerted)
    response = as_user(alerted.person()).post("/dashboard/alerts/seen/", {"alert": ["x", "-1", "", "9" * 30]})
    assert response.status_code == 302
    assert unread(alerted) == before


def test_pages_continue_where_the_last_ended(alerted: World, as_user: LogIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("analytics.selectors.alerts.alert_page.__kwdefaults__", {"size": 1})
    client = as_user(alerted.person())
    newest, *_ = Alert.objects.order_by("-pk").values_list("pk", flat=True)
    first = client.get("/dashboard/alerts/").content.decode()
    assert f'href="/dashboard/alerts/?&amp;before={newest}"' in first
    second = client.get(f"/dashboard/alerts/?before={newest}").content.decode()
    assert first.count('class="alert-line"') == second.count('class="alert-line"') == 1
    assert f'value="{newest}"' not in second


def test_navigation_counts_what_waits(alerted: World, as_user: LogIn) -> None:
    client = as_user(alerted.person())
    page = client.get("/dashboard/invoices/").content.decode()
    assert f'>{unread(alerted)}<span class="visually-hidden"> unread</span>' in page
    assert '>2<span class="visually-hidden"> waiting</span>' in page
    Alert.objects.update(acknowledged_at=alerted.at)
    assert "unread</span>" not in client.get("/dashboard/invoices/").content.decode()


def test_no_alerts_say_so(world: World, as_user: LogIn) -> None:
    client = as_user(world.person())
    assert "No unread alerts" in client.get("/dashboard/alerts/").content.decode()
    assert "No alerts yet" in client.get("/dashboard/alerts/?show=all").content.decode()
