"""Texts, settings, the outbox and suppressions in the admin: for the right roles, of one's own merchants."""

import pytest
from django.test import Client

from accounts.models import User
from accounts.states import Role
from notifications.models import MessageSettings, MessageTemplate, PaymentLink, Suppression
from notifications.services.attributing import closing_follow
from tests.notifications.post import Post

pytestmark = pytest.mark.django_db
TEXTS = "/admin/notifications/messagetemplate/"


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Post:
    made = Post()
    monkeypatch.setattr("recovery_site.common.clock.now", lambda: made.at)
    return made


def staff(world: Post, role: Role, name: str) -> User:
    user = world.person(role, username=name)
    User.objects.filter(pk=user.pk).update(is_staff=True)
    return User.objects.get(pk=user.pk)


def test_manager_writes_a_text_and_sees_it_with_real_data(world: Post, client: Client) -> None:
    invoice = world.fail(code="expired_card", number="INV-7")
    world.know(invoice, name="Ann Lee", locale="de")
    client.force_login(staff(world, Role.MANAGER, "mia"))
    form = client.get(f"{TEXTS}add/?name=update_card&locale=de").content.decode()
    assert "Bitte aktualisieren Sie Ihr Zahlungsmittel" in form  # starts from the shipped text
    values = {
        "merchant": world.merchant.pk,
        "name": "update_card",
        "locale": "de",
        "segment": "",
        "category": "HARD_DECLINE",
        "subject": "Neue Karte für {merchant}",
        "body": "Hallo {name}, {amount}. {reason}\n\nGruß",
        "button": "Los",
        "enabled": "on",
    }
    refused = client.post(f"{TEXTS}add/", {**values, "body": "{name.__class__}", "button": "{"})
    assert "There is no placeholder {name.__class__}" in refused.content.decode()
    assert "A curly bracket is not closed" in refused.content.decode()
    done = client.post(f"{TEXTS}add/", values)
    assert done.status_code == 302, done.content.decode()
    row = MessageTemplate.objects.get()
    assert (row.changed_by, row.category) == (f"user:{User.objects.get(username='mia').pk}", "HARD_DECLINE")
    preview = client.get(f"{TEXTS}{row.pk}/preview/")
    page = preview.content.decode()
    assert "Neue Karte für Acme" in page
    assert "Hallo Ann Lee, 49,90\N{NO-BREAK SPACE}$. Die Karte ist abgelaufen." in page
    assert "frame-src 'self'" in preview["Content-Security-Policy"]
    assert "frame-src 'none'" not in preview["Content-Security-Policy"]
    frame = client.get(f"{TEXTS}{row.pk}/preview/html/?invoice=INV-7")
    assert "Hallo Ann Lee" in frame.content.decode()
    assert "There is no recovery case" in client.get(f"{TEXTS}{row.pk}/preview/?invoice=INV-8").content.decode()
    assert not PaymentLink.objects.exists()
    client.post(f"{TEXTS}{row.pk}/change/", {"subject": "Neu", "body": "B", "button": "Los", "enabled": "on"})
    assert MessageTemplate.objects.get().subject == "Neu"


def test_pages_are_for_the_merchants_own_people(world: Post, client: Client) -> None:
    world.fail(code="expired_card")
    own = world.template()
    client.force_login(staff(world, Role.SUPPORT, "sofia"))
    assert client.get(f"{TEXTS}add/").status_code == 403
    assert client.get(f"{TEXTS}{own.pk}/preview/").status_code == 200
    other = Post(name="Northwind")
    client.force_login(staff(other, Role.OWNER, "olga"))
    assert client.get(f"{TEXTS}{own.pk}/preview/").status_code == 404
    assert client.get(f"{TEXTS}{own.pk}/preview/html/").status_code == 404
    assert "update_card" not in client.get(TEXTS).content.decode().partition('id="changelist"')[2]


def test_settings_are_changed_by_managers(world: Post, client: Client) -> None:
    client.force_login(staff(world, Role.MANAGER, "mia"))
    page = "/admin/notifications/messagesettings/add/"
    values = {
        "merchant": world.merchant.pk,
        "sender": "merchant",
        "default_locale": "fr",
        "cap_count": 2,
        "cap_days": 7,
        "gap_hours": 24,
        "link_days": 14,
        "expiry_days": 21,
        "renewal_days": 5,
    }
    done = client.post(page, values)
    assert done.status_code == 302, done.content.decode()
    row = MessageSettings.objects.get()
    assert (row.sender, row.cap_count, row.card_notes) == ("merchant", 2, False)
    assert row.changed_by.startswith("user:")


def test_outbox_shows_the_mail_and_support_closes_links_and_lifts_suppressions(world: Post, client: Client) -> None:
    invoice = world.fail(code="expired_card")
    world.know(invoice, timezone="Europe/Berlin")
    world.drain()
    message = world.message(invoice, "update_card")
    client.force_login(staff(world, Role.SUPPORT, "sofia"))
    outbox = "/admin/notifications/message/"
    assert "cus_ann@example.com" in client.get(outbox).content.decode()
    page = client.get(f"{outbox}{message.pk}/change/").content.decode()
    assert f"{outbox}{message.pk}/html/" in page
    assert "/pay/" in page
    assert "Please give us another payment method" in client.get(f"{outbox}{message.pk}/html/").content.decode()
    post = {"action": "revoke", "_selected_action": [message.pk]}
    assert "closes at once" in client.post(outbox, post).content.decode()
    client.post(outbox, {**post, "confirmed": "yes", "reason": "wrong person"})
    assert PaymentLink.objects.get().revoked_by.startswith("user:")
    row = Suppression.objects.create(merchant=world.merchant, address="a@example.com", reason="opt_out", since=world.at)
    lift = {"action": "lift", "_selected_action": [row.pk], "confirmed": "yes", "reason": "she asked"}
    client.post("/admin/notifications/suppression/", lift)
    assert Suppression.objects.get().lifted_by.startswith("user:")
    client.force_login(staff(world, Role.VIEWER, "vera"))
    assert "/pay/" not in client.get(f"{outbox}{message.pk}/change/").content.decode()


def test_dashboard_shows_the_funnel_and_what_recoveries_are_put_down_to(
    world: Post, client: Client, django_assert_max_num_queries: object
) -> None:
    invoice = world.fail(code="expired_card", number="INV-7")
    world.know(invoice, timezone="Europe/Berlin")
    world.drain()
    retried = world.fail(code="insufficient_funds", customer="cus_bob", token="tok_bob", number="INV-8")
    world.wait(hours=25)
    world.charge("ok")
    closing_follow(retried.events.get(kind="case.closed"))
    client.force_login(world.person(Role.VIEWER))
    with django_assert_max_num_queries(20):  # type: ignore[operator]
        page = client.get("/dashboard/messages/").content.decode()
    assert "Please update your payment method for Acme" in page
    row = page.partition('<th scope="row" class="nowrap">update_card</th>')[2].partition("</tr>")[0]
    assert row.count('<td class="num">1</td>') == 2  # sent and delivered, nothing further
    sources = page.partition('<th scope="row">Automatic retry</th>')[2].partition("</tr>")[0]
    assert '<td class="num">1</td>' in sources
    assert "$49.90" in sources
    assert "each put down to one source" in page
    assert "Please update" not in client.get("/dashboard/messages/?status=BOUNCED").content.decode()
