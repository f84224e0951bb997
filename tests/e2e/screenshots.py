"""`make screenshots`: pictures of the demo's pages for docs/screenshots and the README, never drawn by a test run.

Uses the history of `make run` (and fills it if it is missing), serves it from its last moment on, then tells of one
disturbed hour at the provider so that there is an incident to show, and opens every page in the system's Chromium.
"""

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

import django

from tests.support.ports import free_port

if TYPE_CHECKING:
    from playwright.sync_api import Browser

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / "docs" / "screenshots"
README_IMAGES = {"dashboard-light": "dashboard", "case": "case", "policy-editor": "policy-editor"}
_CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
MERCHANT = "Alpenglow Software"
WIDE, PHONE = 1280, 390
# Path, width and theme.
Picture = tuple[str, int, Literal["light", "dark"]]


def disturb(now: datetime) -> None:
    """Sixteen payments that a provider in trouble failed within the hour before `now`, reported like any other."""
    from accounts.models import Merchant
    from analytics.rollups.advance import rollups_advance
    from analytics.spikes.sweep import spikes_sweep
    from invoices.models import Connection
    from providers.base import (
        CardFacts,
        CustomerFacts,
        DeclineFacts,
        EventKind,
        InvoiceFacts,
        MethodFacts,
        PaymentEvent,
        PaymentFacts,
    )
    from retries.handler import event_handle

    merchant = Merchant.objects.get(name=MERCHANT)
    account = Connection.objects.filter(merchant=merchant).earliest("pk")
    names = ("Lena Vogel", "Paul Brandt", "Mia Schuster", "Jonas Keller", "Emil Hartung", "Clara Winter", "Noah Busch")
    for number in range(16):
        at = now - timedelta(minutes=75 - 4 * number)
        key = f"disturbed{now:%Y%m%d}{number}"
        name = names[number % len(names)]
        event = PaymentEvent(
            kind=EventKind.PAYMENT_FAILED,
            provider=account.provider,
            event_id=f"evt_{key}",
            event_type="payment.failed",
            occurred_at=at,
            customer=CustomerFacts(id=f"cus_{key}", name=name, email=f"{name.split()[0].lower()}{number}@example.com"),
            invoice=InvoiceFacts(
                id=f"in_{key}", amount_minor=4_900, currency="EUR", number=f"D-{number + 101}", issued_at=at
            ),
            payment=PaymentFacts(
                charge_id=f"ch_{key}",
                amount_minor=4_900,
                currency="EUR",
                invoice_id=f"in_{key}",
                method=MethodFacts(
                    token=f"tok_ok__{key}",
                    card=CardFacts(fingerprint=f"fp_{key}", network="visa", country="DE", last4=f"{4000 + number}"),
                ),
                decline=DeclineFacts(raw_code="processing_error"),
            ),
        )
        event_handle(event=event, connection=account, cause=f"event:{event.event_id}", now=at)
    rollups_advance()
    spikes_sweep(now=now)


@contextmanager
def served(now: datetime) -> Iterator[tuple[str, str]]:
    """Web server and worker from `now` on; the address and the password of the user `demo`."""
    from recovery_site.demo.cast import cast_ensure, onlooker_admit
    from recovery_site.demo.stage import HOST, Stop, take_down, wait_until_ready, web_part, worker_part

    port = free_port(run=2)
    base_url = f"http://{HOST}:{port}"
    password = onlooker_admit(cast_ensure())
    anchor = f"{datetime.now(UTC).isoformat()}/{now.isoformat()}"
    environment = {**os.environ, "PUBLIC_URL": base_url, "CLOCK_SPEED": "1", "CLOCK_ANCHOR": anchor}
    with tempfile.TemporaryDirectory() as logs:
        parts = [worker_part(environment, Path(logs)), web_part(port, environment, Path(logs))]
        for part in parts:
            part.start()
        try:
            wait_until_ready(parts[1], base_url, Stop())
            time.sleep(20)  # for what is due to be worked off
            yield base_url, password
        finally:
            take_down(parts)


def pictures() -> dict[str, Picture]:
    from django.urls import reverse

    from accounts.models import Merchant
    from retries.models import Case

    merchant = Merchant.objects.get(name=MERCHANT)
    cases = Case.objects.filter(merchant=merchant, status="OPEN", next_step="booked", invoice__attempts__number__gte=2)
    case = cases.select_related("invoice").order_by("-amount_minor")[:1].get()
    dashboard = f"{reverse('dashboard')}?days=30"
    page, queues = reverse("console:invoice", args=[case.invoice.public_id]), reverse("console:work")
    return {
        "dashboard-light": (dashboard, WIDE, "light"),
        "dashboard-dark": (dashboard, WIDE, "dark"),
        "dashboard-phone": (dashboard, PHONE, "light"),
        "failures": (f"{reverse('dashboard-report', args=['failures'])}?days=30", WIDE, "light"),
        "queues": (queues, WIDE, "light"),
        "queues-phone": (queues, PHONE, "dark"),
        "case": (page, WIDE, "light"),
        "case-phone": (page, PHONE, "light"),
        "policy-editor": (reverse("admin:retries_policy_edit", args=[merchant.public_id]), WIDE, "light"),
        "admin": (reverse("admin:invoices_invoice_changelist"), WIDE, "light"),
    }


def incident_pictures() -> dict[str, Picture]:
    from django.urls import reverse

    from analytics.models import Incident

    path = reverse("dashboard-incident", args=[Incident.objects.latest("pk").public_id])
    return {
        "incident": (path, WIDE, "light"),
        "incident-dark": (path, WIDE, "dark"),
        "incident-phone": (path, PHONE, "light"),
        "incidents": (reverse("dashboard-incidents"), WIDE, "light"),
    }


def take(browser: "Browser", base_url: str, password: str, wanted: dict[str, Picture]) -> None:
    """Log in anew for every picture and write it; phones and the README show what fits on the screen."""
    from accounts.models import Merchant

    merchant = Merchant.objects.get(name=MERCHANT).public_id
    for name, (path, width, theme) in wanted.items():
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=theme, reduced_motion="reduce"
        )
        page = context.new_page()
        page.goto(base_url)
        page.get_by_label("User name").fill("demo")
        page.get_by_label("Password").fill(password)
        page.keyboard.press("Enter")
        page.wait_for_url(lambda address: "login" not in address)
        page.goto(f"{base_url}{path}{'&' if '?' in path else '?'}merchant={merchant}")
        page.wait_for_load_state("networkidle")
        whole = width == WIDE and name not in ("dashboard-light", "policy-editor", "admin")
        page.screenshot(path=OUT / f"{name}.png", full_page=whole)
        context.close()
        sys.stdout.write(f"{name}.png\n")


def take_payer(browser: "Browser", base_url: str, now: datetime) -> None:
    """What a customer finds behind the link of a message, on a phone."""
    from notifications.links import link_url
    from notifications.services.links import link_issue
    from retries.models import Case

    waiting = Case.objects.filter(merchant__name=MERCHANT, status="OPEN", category="INSUFFICIENT_FUNDS")
    case = waiting.select_related("invoice").latest("opened_at")
    link = link_issue(invoice=case.invoice, issued_by="screenshots", now=now)
    page = browser.new_page(viewport={"width": PHONE, "height": 900}, color_scheme="light")
    page.goto(base_url + urlsplit(link_url(link.public_id)).path)
    page.screenshot(path=ROOT / "docs" / "images" / "payer.png", full_page=True)
    page.close()


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "recovery_site.settings")
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "true"
    django.setup()
    from django.core.management import call_command
    from playwright.sync_api import sync_playwright

    from analytics.models import Incident
    from invoices.models import Event
    from recovery_site.demo.cast import cast_ensure
    from recovery_site.demo.history import newest_instant

    chromium = next((path for name in _CHROMIUM if (path := shutil.which(name))), None)
    if chromium is None:
        sys.exit("There is no Chromium here: apt-get install chromium.")
    if not Event.objects.exists():
        call_command("run_demo", "--fill-only")
    now = newest_instant(cast_ensure()) + timedelta(minutes=1)
    OUT.mkdir(parents=True, exist_ok=True)
    with served(now) as (base_url, password), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--headless=new", "--no-sandbox"])
        take(browser, base_url, password, pictures())
        if not Incident.objects.exists():
            disturb(now)
        take(browser, base_url, password, incident_pictures())
        take_payer(browser, base_url, now)
        browser.close()
    for name, image in README_IMAGES.items():
        shutil.copyfile(OUT / f"{name}.png", ROOT / "docs" / "images" / f"{image}.png")


if __name__ == "__main__":
    main()
