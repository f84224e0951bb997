"""The API's reference in a browser: drawn under the strict policy, from this server only."""

from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.console.world import World
from tests.e2e.conftest import BrowserPage, Window

pytestmark = pytest.mark.browser
GROUND = {"light": "rgb(245, 246, 248)", "dark": "rgb(13, 16, 20)"}


def test_the_reference_is_drawn_without_a_refusal(shop: World, browser_page: BrowserPage) -> None:
    window = browser_page(shop.person("viewer", first_name="Vi", last_name="Ew"))
    page = window.open("/api/docs")
    expect(page.get_by_role("heading", name="Revenue Recovery")).to_be_visible()
    operations = page.locator(".opblock")
    expect(operations.first).to_be_visible()
    assert operations.count() >= 60
    operations.first.locator(".opblock-summary-control").click()
    expect(operations.first.locator(".opblock-body")).to_be_visible()
    assert window.complaints == []
    assert window.violations() == []
    window.open("/api/docs/errors#rate_limited")
    assert (window.complaints, window.violations(), window.overflow()) == ([], [], [])


@pytest.mark.parametrize(("theme", "width"), [("light", 1280), ("dark", 390)])
def test_both_pages_are_readable_in_both_themes(
    shop: World, browser_page: BrowserPage, shots: Path | None, theme: str, width: int
) -> None:
    window = browser_page(shop.person("viewer"), theme=theme, width=width)
    page = window.open("/api/docs")
    expect(page.locator(".opblock").first).to_be_visible()
    assert _ground(page) == GROUND[theme]
    for kind in ("get", "patch", "delete"):
        page.locator(f".opblock-{kind} .opblock-summary-control").first.click()
        expect(page.locator(f".opblock-{kind} .opblock-body").first).to_be_visible()
    page.locator(".opblock-post .opblock-summary-control").first.click()
    page.locator(".opblock-post .try-out__btn").click()
    page.locator(".opblock-post").get_by_role("tab", name="Schema").last.click()
    expect(page.locator(".opblock-post .json-schema-2020-12").first).to_be_visible()
    assert (_too_faint(window), window.overflow()) == ([], [])
    page.locator(".authorize").first.click()
    expect(page.locator(".modal-ux")).to_be_visible()
    assert _too_faint(window) == []
    if shots is not None:
        page.screenshot(path=shots / f"api-docs-{theme}-{width}.png")
    window.open("/api/docs/errors")
    assert (_ground(page), _too_faint(window), window.overflow()) == (GROUND[theme], [], [])
    assert (window.complaints, window.violations()) == ([], [])


def test_the_theme_that_a_person_chose_holds_for_the_reference(shop: World, browser_page: BrowserPage) -> None:
    window = browser_page(shop.person("viewer"), theme="dark")
    page = window.open("/api/docs")
    heading = page.locator(".opblock-tag").first
    expect(heading).to_be_visible()
    system = _colour(page)
    page.get_by_role("button", name="Theme: as the system").click()
    page.get_by_role("button", name="Theme: light").wait_for()
    assert (_ground(page), _colour(page) != system) == (GROUND["light"], True)
    window.open("/api/docs/errors")
    assert _ground(page) == GROUND["light"]
    page.get_by_role("button", name="Theme: light").click()
    page.emulate_media(color_scheme="light")
    window.open("/api/docs")
    expect(heading).to_be_visible()
    assert (_ground(page), _colour(page)) == (GROUND["dark"], system)


def _ground(page: Page) -> str:
    return str(page.evaluate("getComputedStyle(document.body).backgroundColor"))


def _colour(page: Page) -> str:
    return str(page.evaluate("getComputedStyle(document.querySelector('.opblock-tag')).color"))


def _too_faint(window: Window) -> list[str]:
    """Texts under WCAG AA."""
    options = {"runOnly": {"type": "rule", "values": ["color-contrast"]}, "preload": False}
    found = Axe().run(window.page, options=options).response["violations"]
    return [f"{node['html'][:150]} {node['any'][0]['data']}" for one in found for node in one["nodes"]]
