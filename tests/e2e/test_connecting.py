"""A manager connects an account in the browser, from the choice of a provider to the first event that arrives."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from invoices.models import Connection
from tests.console.world import World
from tests.contract.wire.hyperswitch import Hyperswitch
from tests.contract.wire.server import SECRET
from tests.e2e.conftest import BrowserPage, Window
from webhooks.models import InboxEvent, WebhookEndpoint

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def wire() -> Iterator[Hyperswitch]:
    with Hyperswitch() as server:
        assert isinstance(server, Hyperswitch)
        yield server


def sound(window: Window, name: str) -> None:
    assert window.complaints == [], name
    assert window.violations() == [], name
    assert window.overflow() == [], name


def keep(page: Page, shots: Path | None, name: str) -> None:
    if shots is not None:
        page.screenshot(path=shots / f"{name}.png", full_page=True)


def arrive(shop: World, connection: Connection) -> None:
    InboxEvent.objects.create(
        merchant=shop.merchant,
        endpoint=WebhookEndpoint.objects.get(connection=connection),
        provider_event_id="evt_1",
        event_type="payment_failed",
        body="{}",
        body_hash="0" * 64,
        received_at=shop.at,
    )


def test_an_account_is_connected_and_its_first_event_shows_by_itself(
    shop: World, wire: Hyperswitch, browser_page: BrowserPage
) -> None:
    window = browser_page(shop.person("manager", first_name="Mia", last_name="Ode"))
    page = window.open("/")
    page.locator(".user-menu summary").click()
    page.get_by_role("link", name="Connections").click()
    page.get_by_role("link", name="Connect Hyperswitch").click()
    page.get_by_label("API key").fill("snd_wrong")
    page.get_by_text("More settings").click()
    page.get_by_label("Address of the API").fill(wire.url)
    page.get_by_role("button", name="Test and connect").click()
    expect(page.get_by_role("alert")).to_contain_text("refuses the credentials")
    assert page.get_by_label("API key").input_value() == ""
    page.get_by_label("API key").fill(SECRET)
    page.get_by_role("button", name="Test and connect").click()
    expect(page.get_by_text("Hyperswitch answers.")).to_be_visible()
    connection = Connection.objects.get(provider="hyperswitch")
    expect(page.locator(".address")).to_have_text(re.compile(r"/webhooks/hyperswitch/[-0-9a-f]{36}/$"))
    page.locator("input[name=secret]").fill("response-hash-key")
    page.get_by_role("button", name="Keep the secret").click()
    expect(page.get_by_text("Secret kept")).to_be_visible()
    expect(page.locator("#first-event")).to_contain_text("Waiting")
    arrive(shop, connection)
    expect(page.locator("#first-event")).to_contain_text("payment_failed", timeout=15_000)
    page.get_by_role("button", name="Test the credentials").click()
    expect(page.get_by_text("Hyperswitch answers.")).to_be_visible()
    # The refused form is a 400, which browsers mention.
    window.complaints = [one for one in window.complaints if "400" not in one]
    sound(window, "the whole way")


def test_pages_hold_up_in_both_themes_on_desk_and_phone(
    shop: World, wire: Hyperswitch, browser_page: BrowserPage, shots: Path | None
) -> None:
    mia = shop.person("manager", first_name="Mia", last_name="Ode")
    for theme in ("light", "dark"):
        for width in (1280, 360):
            window = browser_page(mia, width=width, theme=theme)
            page = window.open("/console/connections/")
            sound(window, f"list {theme} {width}")
            keep(page, shots, f"connections-{theme}-{width}")
            page = window.open("/console/connections/new/chargebee/")
            page.get_by_text("More settings").click()
            sound(window, f"form {theme} {width}")
            keep(page, shots, f"connect-{theme}-{width}")
            page.get_by_role("button", name="Test and connect").click()
            expect(page.get_by_role("alert")).to_contain_text("needs site")
            keep(page, shots, f"connect-refused-{theme}-{width}")
            page = window.open("/console/connections/new/hyperswitch/")
            page.get_by_label("API key").fill(SECRET)
            page.get_by_label("Name", exact=False).last.fill(f"Hyperswitch {theme} {width}")
            page.get_by_text("More settings").click()
            page.get_by_label("Address of the API").fill(wire.url)
            page.get_by_role("button", name="Test and connect").click()
            page.get_by_text(re.compile("Enable these")).click()
            window.complaints = [one for one in window.complaints if "400" not in one]
            sound(window, f"account {theme} {width}")
            keep(page, shots, f"account-{theme}-{width}")
            arrive(shop, Connection.objects.latest("id"))
            expect(page.locator("#first-event")).to_contain_text("payment_failed", timeout=15_000)
            keep(page, shots, f"account-arrived-{theme}-{width}")
            page.get_by_text("Replace the credentials", exact=True).click()
            keep(page, shots, f"account-replace-{theme}-{width}")
            sound(window, f"account with its first event {theme} {width}")
