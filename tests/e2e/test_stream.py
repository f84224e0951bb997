"""The dashboard beside a running stream: news without waiting for the poll, from another origin, under the same CSP."""

from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as django_settings
from playwright.sync_api import expect
from pytest_django.live_server_helper import LiveServer

from analytics import views
from invoices.services.outbox import outbox_drain
from recovery_site.common import clock
from tests.console.world import World
from tests.contract.sandbox_process import eventually
from tests.e2e.conftest import BrowserPage
from tests.support.quiet import quiet
from tests.webhooks.stream_process import streaming

pytestmark = pytest.mark.browser


def test_news_come_by_the_stream(
    shop: World,
    browser_page: BrowserPage,
    live_server: LiveServer,
    process_environment: dict[str, str],
    tmp_path: Path,
    settings: Any,
    monkeypatch: pytest.MonkeyPatch,
    shots: Path | None,
) -> None:
    monkeypatch.setattr(views, "_POLL_SECONDS", 3600)
    with streaming(process_environment, tmp_path, PUBLIC_URL=live_server.url) as served:
        settings.STREAM_URL = served.address.replace("127.0.0.1", "localhost")
        directives = django_settings.CONTENT_SECURITY_POLICY["DIRECTIVES"]
        settings.CONTENT_SECURITY_POLICY = {
            "DIRECTIVES": {**directives, "connect-src": ["'self'", settings.STREAM_URL]}
        }
        window = browser_page(shop.person("viewer"))
        page = window.open("/dashboard/")
        expect(page.locator("[data-stream-news]")).to_be_hidden()
        eventually(lambda: "stream_opened" in served.log(), seconds=60)
        shop.fail(customer="cus_ann", token="tok_ann", number="INV-ann")
        quiet()
        with page.expect_response(lambda answer: "/dashboard/live/" in answer.url, timeout=60_000):
            outbox_drain(now=clock.now())
            expect(page.locator("[data-stream-news]")).to_contain_text("INV-ann: ", timeout=60_000)
        expect(page.locator("#feed")).to_contain_text("INV-ann", timeout=60_000)
        assert window.violations() == []
        asked = f"asked another host: {settings.STREAM_URL}/dashboard/stream/?merchant={shop.merchant.public_id}"
        assert set(window.complaints) == {asked}
        if shots is not None:
            page.screenshot(path=shots / "stream.png")
