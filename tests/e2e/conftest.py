"""The system's Chromium against a live server. Nothing is ever downloaded: without a browser these tests are skipped.

REQUIRE_BROWSER=1 (as in CI) makes a missing browser a failure. Playwright keeps an event loop in its thread, so it
lives only as long as a module of browser tests, and Django is told meanwhile that its calls beside the loop are meant.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.test import Client
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright
from pytest_django.live_server_helper import LiveServer

from accounts.models import User
from tests.console.world import World

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_ARGUMENTS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
_COLLECT_VIOLATIONS = """
window.cspViolations = [];
document.addEventListener("securitypolicyviolation", (event) =>
  window.cspViolations.push(`${event.violatedDirective} ${event.blockedURI} ${event.sourceFile}`));
"""


def _chromium() -> str:
    found = next((path for name in _NAMES if (path := shutil.which(name))), None)
    if found:
        return found
    if os.environ.get("REQUIRE_BROWSER") == "1":
        pytest.fail("REQUIRE_BROWSER=1, but there is no Chromium: apt-get install chromium.", pytrace=False)
    pytest.skip("NO BROWSER TESTS WERE RUN: there is no Chromium here (apt-get install chromium).")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = _chromium()
    patch = pytest.MonkeyPatch()
    patch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "true")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path, args=_ARGUMENTS)
        yield running
        running.close()
    patch.undo()


@dataclass
class Window:
    """A page that writes down everything a careful reader of the console would object to."""

    page: Page
    server: str
    complaints: list[str] = field(default_factory=list)

    def open(self, path: str) -> Page:
        self.page.goto(self.server + path, wait_until="load")
        return self.page

    def violations(self) -> list[str]:
        """Refusals by the content security policy on the page in view."""
        return list(self.page.evaluate("window.cspViolations"))

    def overflow(self) -> list[str]:
        """What sticks out to the right, if the page can be scrolled sideways."""
        return list(
            self.page.evaluate(
                """() => document.documentElement.scrollWidth <= window.innerWidth ? [] :
                [...document.querySelectorAll("body *")]
                  .filter((one) => one.getBoundingClientRect().right > window.innerWidth + 1)
                  .map((one) => `${one.tagName}.${one.className.baseVal ?? one.className}`).slice(0, 8)"""
            )
        )


BrowserPage = Callable[..., Window]


@pytest.fixture
def browser_page(browser: Browser, live_server: LiveServer) -> Iterator[BrowserPage]:
    """`browser_page(user, width=…, theme="light"|"dark", script=True)`: a fresh window, logged in as `user`."""
    contexts: list[BrowserContext] = []

    def make(user: User | None = None, *, width: int = 1280, theme: Any = "light", script: bool = True) -> Window:
        context = browser.new_context(
            viewport={"width": width, "height": 900},
            color_scheme=theme,
            java_script_enabled=script,
            reduced_motion="reduce",
        )
        contexts.append(context)
        if user is not None:
            client = Client()
            client.force_login(user)
            session = client.cookies[settings.SESSION_COOKIE_NAME].value
            context.add_cookies([{"name": settings.SESSION_COOKIE_NAME, "value": session, "url": live_server.url}])
        context.add_init_script(_COLLECT_VIOLATIONS)
        window = Window(context.new_page(), live_server.url)
        window.page.on("console", lambda message: _note(window, message.type, message.text))
        window.page.on("pageerror", lambda error: window.complaints.append(str(error)))
        window.page.on("request", lambda request: _stay_home(window, request.url))
        return window

    yield make
    for context in contexts:
        context.close()


def _note(window: Window, kind: str, text: str) -> None:
    if kind in ("error", "warning"):
        window.complaints.append(f"{kind}: {text}")


def _stay_home(window: Window, url: str) -> None:
    if not url.startswith(window.server):
        window.complaints.append(f"asked another host: {url}")


@pytest.fixture
def shots(request: pytest.FixtureRequest) -> Path | None:
    """Where screenshots go: the directory SHOTS names, or nowhere."""
    wanted = os.environ.get("SHOTS")
    if not wanted:
        return None
    Path(wanted).mkdir(parents=True, exist_ok=True)
    return Path(wanted)


@pytest.fixture
def shop(transactional_db: None) -> World:
    """A merchant of the present, without any history yet."""
    return World(name="Northwind Cloud", at=datetime.now(UTC))
