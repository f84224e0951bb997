"""Staff alerts: raised once while open, sent along the merchant's routes, tried again, given up."""

from datetime import UTC, datetime, timedelta

import pytest
from django.core import mail
from django.test import Client

from accounts.models import Merchant
from accounts.services import merchant_create
from accounts.states import Role
from notifications.models import Alert, AlertDelivery, AlertRoute
from notifications.services.alert_delivery import BACK_OFF, alert_deliveries_drain, alert_route_set
from notifications.services.alerts import alert_acknowledge, alert_raise, alert_write
from notifications.states import AlertChannel
from recovery_site.common.crypto import decrypt_json
from tests.console.world import World
from tests.support.listener import listening

NOW = datetime(2026, 3, 2, 9, tzinfo=UTC)
pytestmark = pytest.mark.django_db


@pytest.fixture
def merchant() -> Merchant:
    return merchant_create(name="Alpenglow").merchant


def spike(merchant: Merchant, *, minutes: int = 0, text: str = "Declines doubled.") -> Alert:
    return alert_raise(
        merchant_pk=merchant.pk,
        kind="decline_spike",
        key="visa",
        text=text,
        link="/dashboard/",
        now=NOW + timedelta(minutes=minutes),
    )


def mail_route(merchant: Merchant, address: str = "ops@example.com", **more: object) -> AlertRoute:
    return alert_route_set(
        merchant=merchant, name=address, channel=AlertChannel.MAIL, target=address, actor="user:1", **more
    )


def drain(minutes: float = 0) -> tuple[int, int, int]:
    counts = alert_deliveries_drain(now=NOW + timedelta(minutes=minutes))
    return counts.sent, counts.retried, counts.failed


def test_same_alert_counts_up_while_it_is_open_and_is_told_once(merchant: Merchant) -> None:
    mail_route(merchant)
    first = spike(merchant)
    again = spike(merchant, minutes=5, text="Declines tripled.")
    assert again.pk == first.pk
    alert = Alert.objects.get()
    assert (alert.repeats, alert.text) == (1, "Declines tripled.")
    assert (alert.raised_at, alert.repeated_at) == (NOW, NOW + timedelta(minutes=5))
    assert (drain(), drain(60)) == ((1, 0, 0), (0, 0, 0))
    assert len(mail.outbox) == 1
    alert_acknowledge(merchant_pk=merchant.pk, alert_pks=[alert.pk], by="ann", now=NOW)
    assert spike(merchant, minutes=90).pk != first.pk  # it is news again
    assert drain(90) == (1, 0, 0)


def test_routes_hear_of_their_kinds_and_of_their_merchant_only(merchant: Merchant) -> None:
    stranger = merchant_create(name="Northwind").merchant
    mail_route(merchant, "all@example.com")
    mail_route(merchant, "fraud@example.com", kinds=["fraud"])
    mail_route(merchant, "off@example.com", enabled=False)
    mail_route(stranger, "stranger@example.com")
    spike(merchant)
    assert drain() == (1, 0, 0)
    (told,) = mail.outbox
    assert told.to == ["all@example.com"]
    assert told.subject == "[Alpenglow] Declines doubled."
    assert "http://127.0.0.1:8000/dashboard/" in told.body


def test_slack_webhook_gets_text_and_is_tried_again_until_it_answers(merchant: Merchant) -> None:
    with listening() as place:
        route = alert_route_set(
            merchant=merchant, name="#billing", channel=AlertChannel.SLACK, target=place.url, actor="user:1"
        )
        assert (route.address, decrypt_json(route.secret_encrypted)) == ("", {"url": place.url})
        place.statuses[:] = [500, 200]
        spike(merchant, text="5 < 6 & more")
        assert drain() == (0, 1, 0)
        assert drain(0.5) == (0, 0, 0)  # waits for its time
        assert drain(1) == (1, 0, 0)
    assert place.bodies == [{"text": "*Alpenglow*: 5 &lt; 6 &amp; more <http://127.0.0.1:8000/dashboard/|Open>"}] * 2
    delivery = AlertDelivery.objects.get()
    assert (delivery.status, delivery.tries, delivery.last_error) == ("SENT", 2, "")


def test_place_that_never_answers_is_given_up(merchant: Merchant) -> None:
    alert_route_set(
        merchant=merchant, name="gone", channel=AlertChannel.SLACK, target="http://127.0.0.1:9/x", actor="user:1"
    )
    spike(merchant)
    at = 0.0
    for pause in BACK_OFF:
        assert drain(at) == (0, 1, 0)
        at += pause.total_seconds() / 60
    assert drain(at) == (0, 0, 1)
    delivery = AlertDelivery.objects.get()
    assert (delivery.status, delivery.tries) == ("FAILED", len(BACK_OFF) + 1)
    assert delivery.last_error == "Undelivered: The receiver could not be reached (ConnectionRefusedError)."


def test_ledger_alerts_of_one_invoice_count_up_however_often_they_are_handed_over() -> None:
    world = World()
    invoice = world.fail()
    mail_route(world.merchant)
    world.pay(invoice)
    world.pay(invoice)
    world.pay(invoice)  # paid three times: two alerts of one kind
    events = list(invoice.events.filter(kind="alert.paid_twice").order_by("seq"))
    assert len(events) == 2
    for event in (*events, *events):
        alert_write(event)
    alert = Alert.objects.get(kind="paid_twice")
    assert (alert.invoice_id, alert.event_id, alert.repeats) == (invoice.pk, events[-1].pk, 1)
    counts = alert_deliveries_drain(now=world.at)
    assert counts.sent == 1
    assert f"/console/invoices/{invoice.public_id}/" in mail.outbox[-1].body


def test_managers_keep_routes_in_the_admin_and_secrets_stay_hidden(client: Client) -> None:
    world = World()
    manager = world.person(Role.MANAGER)
    manager.is_staff = True
    manager.save()
    client.force_login(manager)
    values = {"merchant": world.merchant.pk, "name": "#billing", "channel": "slack", "enabled": "on"}
    page = "/admin/notifications/alertroute/add/"
    refused = client.post(page, {**values, "target": "ftp://x", "kinds": ""})
    assert "Give an https address" in refused.content.decode()
    assert AlertRoute.objects.count() == 0
    url = "https://hooks.example.com/services/T0/secret"
    done = client.post(page, {**values, "target": url, "kinds": "fraud, paid_twice"})
    assert done.status_code == 302, done.content.decode()
    route = AlertRoute.objects.get()
    assert (route.kinds, route.created_by) == (["fraud", "paid_twice"], f"user:{manager.pk}")
    change = f"/admin/notifications/alertroute/{route.pk}/change/"
    assert "secret" not in client.get(change).content.decode().split("stored encrypted")[0]
    done = client.post(change, {"channel": "slack", "target": "", "kinds": ""})
    assert done.status_code == 302, done.content.decode()
    route = AlertRoute.objects.get()
    assert (route.kinds, route.enabled, decrypt_json(route.secret_encrypted)["url"]) == ([], False, url)
    support = world.person(Role.SUPPORT, username="sofia")
    support.is_staff = True
    support.save()
    client.force_login(support)
    assert client.get(page).status_code == 403


def test_alerts_page_shows_alerts_without_an_invoice(client: Client) -> None:
    world = World()
    spike(world.merchant)
    spike(world.merchant, minutes=1)
    client.force_login(world.person())
    page = client.get("/dashboard/alerts/").content.decode()
    assert "Declines doubled." in page
    assert '<a href="/dashboard/">Look into it</a>' in page
    assert "1 more time, last" in page
