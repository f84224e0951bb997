"""The API's reference in a browser: drawn under the strict policy, from this server only."""

import pytest
from playwright.sync_api import expect

from tests.console.world import World
from tests.e2e.conftest import BrowserPage

pytestmark = pytest.mark.browser


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
