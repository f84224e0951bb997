"""Connecting an account in the browser: the form, the test of its credentials, the webhooks, the first event."""

from collections.abc import Callable, Iterator

import pytest
from django.test import Client, override_settings
from django.urls import reverse

from accounts.models import User
from invoices.models import Connection
from invoices.selectors.parties import connection_config
from invoices.services.parties import connection_create
from providers import registry
from recovery_site.console.connecting import offers
from tests.console.world import World
from tests.contract.wire.hyperswitch import Hyperswitch
from tests.contract.wire.server import SECRET
from webhooks.models import InboxEvent, WebhookEndpoint
from webhooks.services import endpoint_ensure, endpoint_rotate

pytestmark = pytest.mark.django_db
LogIn = Callable[[User], Client]
KEY = "snd_wrong_and_secret"


@pytest.fixture(scope="module")
def wire() -> Iterator[Hyperswitch]:
    with Hyperswitch() as server:
        assert isinstance(server, Hyperswitch)
        yield server


@pytest.fixture
def manager(world: World, log_in: LogIn) -> Client:
    return log_in(world.person("manager"))


def new(provider: str) -> str:
    return reverse("console:connection-new", args=[provider])


def page(connection: Connection, view: str = "connection") -> str:
    return reverse(f"console:{view}", args=[connection.public_id])


def mine(world: World) -> list[Connection]:
    return list(Connection.objects.filter(merchant=world.merchant).exclude(pk=world.connection.pk))


def arrive(endpoint: WebhookEndpoint, world: World, number: int) -> None:
    InboxEvent.objects.create(
        merchant=world.merchant,
        endpoint=endpoint,
        provider_event_id=f"evt_{number}",
        event_type=f"payment_failed_{number}",
        body="{}",
        body_hash="0" * 64,
        received_at=world.at,
    )


def test_every_provider_on_offer_has_a_form(manager: Client) -> None:
    names = [offer.name for offer in offers()]
    assert set(registry.PROVIDERS) - set(names) == {"simulator"}
    for name in names:
        shown = manager.get(new(name)).content.decode()
        for setting in registry.guide(name).settings:
            assert f'name="{setting.name}"' in shown, (name, setting.name)
    listed = manager.get(reverse("console:connections")).content.decode()
    assert all(new(name) in listed for name in names)


def test_a_file_of_this_machine_is_nobodys_to_choose(manager: Client) -> None:
    assert manager.get(new("simulator")).status_code == 404
    assert manager.post(new("simulator"), {"ledger": "/etc/passwd"}).status_code == 404
    with override_settings(PRODUCTION=True):
        assert manager.get(new("sandbox")).status_code == 404


def test_an_account_is_tested_then_kept_and_its_webhooks_are_shown(
    manager: Client, world: World, wire: Hyperswitch
) -> None:
    wire.reset()
    values = {"mode": "charge", "api_key": SECRET, "base_url": wire.url, "max_per_second": "2.5", "take_over": "3"}
    answer = manager.post(new("hyperswitch"), values, follow=True)
    (made,) = mine(world)
    assert answer.redirect_chain == [(page(made), 302)]
    assert connection_config(made) == {"api_key": SECRET, "base_url": wire.url}
    assert (made.mode, made.take_over_after, made.settings) == ("charge", 3, {"max_per_second": 2.5})
    assert [(seen.method, seen.path) for seen in wire.seen] == [("GET", "/payments/list")]
    text = answer.content.decode()
    endpoint = WebhookEndpoint.objects.get(connection=made)
    assert f"/webhooks/hyperswitch/{endpoint.uuid}/" in text
    assert "Hyperswitch answers." in text
    assert "mandate_revoked" in text
    assert SECRET not in text


def test_wrong_credentials_are_not_kept_unless_somebody_insists(
    manager: Client, world: World, wire: Hyperswitch, caplog: pytest.LogCaptureFixture
) -> None:
    values = {"mode": "charge", "api_key": KEY, "base_url": wire.url}
    refused = manager.post(new("hyperswitch"), values)
    text = refused.content.decode()
    assert (refused.status_code, mine(world)) == (400, [])
    assert "Connect it although the test failed" in text
    assert KEY not in text + caplog.text
    assert wire.url in text, "what is no secret need not be typed again"
    assert manager.post(new("hyperswitch"), {**values, "anyway": "on"}).status_code == 302
    (made,) = mine(world)
    tested = manager.post(page(made, "connection-check"), follow=True).content.decode()
    assert "refuses the credentials" in tested
    Connection.objects.filter(pk=made.pk).update(paused_reason="The provider refuses this configuration.")
    still = manager.post(page(made, "connection-credentials"), {"api_key": f"{KEY}-2"}, follow=True).content.decode()
    assert "Nothing was replaced." in still
    better = manager.post(
        page(made, "connection-credentials"), {"api_key": SECRET, "base_url": "http://x"}, follow=True
    )
    assert "The credentials are replaced. Hyperswitch answers." in better.content.decode()
    made.refresh_from_db()
    assert (connection_config(made)["api_key"], made.base_url, made.paused_reason) == (SECRET, wire.url, "")
    assert KEY not in tested + still + better.content.decode() + caplog.text


@pytest.mark.parametrize(
    ("provider", "values", "sentence"),
    [
        ("stripe", {"mode": "charge"}, "The Stripe connection needs api_key"),
        ("adyen", {"mode": "charge", "api_key": KEY, "environment": "test"}, "needs merchant_account"),
        ("stripe", {"mode": "charge", "api_key": KEY, "timeout_seconds": "soon"}, "must be a number from"),
        ("stripe", {"mode": "charge", "api_key": KEY, "max_per_second": "many"}, "max_per_second must be a number"),
        ("stripe", {"mode": "charge", "api_key": KEY, "base_url": "ftp://x"}, "Give an https address"),
        ("chargebee", {"mode": "charge", "site": "acme", "api_key": KEY}, "use mode collect, or name the gateway"),
        ("paddle", {"mode": "charge"}, "Paddle cannot be used in mode charge"),
        ("braintree", {"mode": "charge", "take_over": "whenever"}, "take_over must be"),
    ],
)
def test_mistakes_are_told_in_one_sentence(
    manager: Client, world: World, provider: str, values: dict[str, str], sentence: str
) -> None:
    answer = manager.post(new(provider), values)
    assert (answer.status_code, mine(world)) == (400, [])
    text = answer.content.decode()
    assert sentence in text
    assert KEY not in text


@override_settings(PRIVATE_TARGETS=[])
def test_no_address_inside_our_own_network_is_asked(manager: Client, world: World, wire: Hyperswitch) -> None:
    wire.reset()
    for address in (wire.url, "http://169.254.169.254/latest"):
        answer = manager.post(
            new("hyperswitch"), {"mode": "charge", "api_key": KEY, "base_url": address, "anyway": "on"}
        )
        assert (answer.status_code, mine(world), wire.seen) == (400, [], [])


def test_the_secret_comes_after_the_address_and_then_the_first_event(manager: Client, world: World) -> None:
    manager.post(new("paddle"), {"mode": "observe"})
    (made,) = mine(world)
    endpoint = WebhookEndpoint.objects.get(connection=made)
    where = reverse("webhook-receive", args=["paddle", endpoint.uuid])
    early = manager.post(where, "{}", content_type="application/json")
    assert (early.status_code, early.json()["error"]) == (400, "signature_invalid")
    assert "Secret missing" in manager.get(page(made)).content.decode()
    kept = manager.post(
        page(made, "connection-webhooks"), {"secret": "pdl_ntfset_hidden"}, follow=True
    ).content.decode()
    assert ("Secret kept" in kept, "pdl_ntfset_hidden" in kept) == (True, False)
    waiting = manager.get(page(made, "connection-live")).content.decode()
    assert ("Waiting" in waiting, "hx-get" in waiting) == (True, True)
    arrive(endpoint, world, 1)
    arrive(endpoint, world, 2)
    there = manager.get(page(made, "connection-live")).content.decode()
    assert ("payment_failed_1" in there, "payment_failed_2" in there, "hx-get" in there) == (True, False, False)


def test_a_busy_endpoint_shows_its_newest_event(manager: Client, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("webhooks.selectors._FEW", 2)
    made = connection_create(merchant=world.merchant, provider="paddle", config={})
    endpoint = endpoint_ensure(made)
    assert endpoint is not None
    for number in (1, 2, 3):
        arrive(endpoint, world, number)
    assert "payment_failed_3" in manager.get(page(made)).content.decode()


def test_a_wrong_secret_is_told_and_the_old_one_stays(manager: Client, world: World) -> None:
    made = connection_create(merchant=world.merchant, provider="chargebee", config={"mode": "observe"})
    manager.post(page(made, "connection-webhooks"), {})
    endpoint = WebhookEndpoint.objects.get(connection=made)
    endpoint_rotate(endpoint_pk=endpoint.pk, secret="user:pass-word")
    before = WebhookEndpoint.objects.get(pk=endpoint.pk).secrets_encrypted
    answer = manager.post(page(made, "connection-webhooks"), {"secret": '{"colour": "hidden-red"}'}, follow=True)
    assert "parts must be among" in answer.content.decode()
    assert "hidden-red" not in answer.content.decode()
    assert WebhookEndpoint.objects.get(pk=endpoint.pk).secrets_encrypted == before


@pytest.mark.parametrize("role", ["viewer", "support"])
def test_others_look_and_change_nothing(world: World, log_in: LogIn, role: str) -> None:
    made = connection_create(merchant=world.merchant, provider="paddle", config={})
    client = log_in(world.person(role))
    assert client.get(reverse("console:connections")).status_code == 200
    assert "Make the webhook address" not in client.get(page(made)).content.decode()
    assert client.get(new("stripe")).status_code == 403
    assert client.post(new("stripe"), {"mode": "observe"}).status_code == 403
    assert client.post(page(made, "connection-check")).status_code == 403
    assert client.post(page(made, "connection-credentials"), {"api_key": "x"}).status_code == 403
    assert client.post(page(made, "connection-webhooks"), {"secret": "pdl_ntfset_x"}).status_code == 403
    assert not WebhookEndpoint.objects.filter(connection=made).exists()


def test_foreign_connections_do_not_exist(world: World, log_in: LogIn) -> None:
    other = World(name="Zebra")
    client = log_in(world.person("owner"))
    for view in ("connection", "connection-live"):
        assert client.get(page(other.connection, view)).status_code == 404
    for view in ("connection-check", "connection-webhooks", "connection-credentials"):
        assert client.post(page(other.connection, view), {"secret": "x"}).status_code == 404
    assert "Zebra" not in client.get(reverse("console:connections")).content.decode()
