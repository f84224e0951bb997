"""A payer's road in a real browser, from the mail to the recovered invoice: on a phone, without script."""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from django.core import mail
from playwright.sync_api import Page, expect

from accounts.services import membership_set
from invoices.models import Customer, Event
from notifications.models import CaseAttribution, Message
from notifications.services.attributing import closing_follow
from notifications.services.planning import messages_follow, planning_wanted
from notifications.services.work import messages_drain
from tests.console.world import World
from tests.e2e.conftest import BrowserPage, Window
from tests.support.fixtures import new_shop as new_shop
from tests.support.fixtures import sandbox as sandbox
from tests.support.shop import Shop
from tests.support.stripe import Bill

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]
_LINK = re.compile(r"^http://127\.0\.0\.1:8000(/pay/\S+)$", re.MULTILINE)


@pytest.fixture
def shop(new_shop: Callable[..., Shop]) -> Shop:
    """A shop of the present: the pages run on the real clock."""
    made = new_shop()
    made.at = datetime.now(UTC).replace(microsecond=0)
    type(made.merchant).objects.filter(pk=made.merchant.pk).update(name=f"Alpenglow {made.name[-4:]}")
    return made


def noon(now: datetime) -> str:
    """A time zone in which it is about noon, whenever the test runs: nobody is written to at night."""
    offset = 12 - now.hour
    return f"Etc/GMT{'-' if offset > 0 else '+'}{abs(offset)}"


def written(shop: Shop, bill: Bill, locale: str) -> str:
    """Send what is due for the bill; the path of the link in the mail."""
    customer = Customer.objects.filter(pk=shop.customer(bill).pk)
    customer.update(email="lena@example.com", name="Lena Weber", locale=locale, timezone=noon(shop.at))
    mail.outbox.clear()
    for event in Event.objects.filter(invoice=shop.invoice(bill)).order_by("seq"):
        if planning_wanted(event.kind):
            messages_follow(event)
    shop.at = datetime.now(UTC)
    assert messages_drain(now=shop.at)["sent"] == 1
    (told,) = mail.outbox
    found = _LINK.search(str(told.body))
    assert found is not None, told.body
    return found[1]


def work(shop: Shop) -> None:
    """What the worker does meanwhile."""
    shop.at = datetime.now(UTC)
    shop.drain()


def sound(window: Window) -> None:
    assert window.complaints == []
    assert window.violations() == []
    assert window.overflow() == []


def barriers(page: Page) -> list[str]:
    """What axe finds against WCAG 2 A and AA, contrast included."""
    found = Axe().run(page, options={"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]})
    return [f"{one['id']}: {[node['html'] for node in one['nodes']]}" for one in found.response["violations"]]


def shot(page: Page, shots: Path | None, name: str) -> None:
    if shots is not None:
        page.screenshot(path=shots / f"{name}.png", full_page=True)


def test_payer_mends_a_dead_card_on_a_phone_without_script(
    shop: Shop, browser_page: BrowserPage, shots: Path | None
) -> None:
    bill = shop.failed_bill(code="expired_card")
    path = written(shop, bill, "en-GB")
    window = browser_page(None, width=390, script=False)
    page = window.page
    page.goto(window.server + path)
    expect(page.get_by_role("heading", level=1)).to_contain_text("Payment to Alpenglow")
    expect(page.get_by_text("The card has expired.")).to_be_visible()
    expect(page.get_by_role("button", name="Pay $49.00 now")).to_have_count(0)
    shot(page, shots, "payer")
    page.get_by_label("A card without enough money").check()
    page.get_by_role("button", name="Save and pay").click()
    expect(page.get_by_role("heading", name="Your payment is being processed")).to_be_visible()
    shot(page, shots, "payer-working")
    work(shop)
    page.get_by_role("link", name="Check again").click()
    expect(page.get_by_role("alert")).to_contain_text("There was not enough money available")
    assert "insufficient" not in page.content()
    page.get_by_label("A card that works").check()
    page.get_by_role("button", name="Save and pay").click()
    expect(page.get_by_role("heading", name="Your payment is being processed")).to_be_visible()
    work(shop)
    page.get_by_role("link", name="Check again").click()
    expect(page.get_by_role("heading", name="All paid, thank you")).to_be_visible()
    shot(page, shots, "payer-paid")
    invoice = shop.invoice(bill)
    assert invoice.status == "SETTLED"
    assert shop.charged(bill) == invoice.amount_minor
    assert shop.case(bill).recovered_by == "card_update"
    closing_follow(invoice.events.get(kind="case.closed"))
    assert CaseAttribution.objects.get(case=shop.case(bill)).source == "message"
    assert page.context.cookies() == []


def test_payer_confirms_with_the_bank_in_german(shop: Shop, browser_page: BrowserPage, shots: Path | None) -> None:
    bill = shop.failed_bill("tok_decline_authentication_required", code="authentication_required")
    path = written(shop, bill, "de-DE")
    window = browser_page(None, theme="dark")
    page = window.page
    page.goto(window.server + path)
    expect(page.get_by_role("heading", level=1)).to_contain_text("Zahlung an Alpenglow")
    assert barriers(page) == []
    shot(page, shots, "payer-confirm-dark")
    page.get_by_role("button", name="Bei meiner Bank bestätigen").click()
    expect(page.get_by_role("heading", name="Testbank")).to_be_visible()
    assert barriers(page) == []
    shot(page, shots, "payer-bank-dark")
    page.get_by_role("button", name="Ja, das bin ich").click()
    expect(page.get_by_role("heading", name="Ihre Zahlung wird ausgeführt")).to_be_visible()
    assert barriers(page) == []
    work(shop)
    # With script the page looks for news by itself.
    expect(page.get_by_role("heading", name="Alles bezahlt, vielen Dank")).to_be_visible(timeout=30_000)
    sound(window)
    assert (shop.attempt(bill).trigger, shop.invoice(bill).status) == ("customer", "SETTLED")
    page.goto(window.server + path[:-2] + "x/")
    expect(page.get_by_role("heading", name="This link does not work")).to_be_visible()
    assert "Alpenglow" not in page.content()


def test_staff_see_the_mail_as_it_was_sent(shop: Shop, browser_page: BrowserPage, shots: Path | None) -> None:
    bill = shop.failed_bill(code="expired_card")
    written(shop, bill, "fr-FR")
    user = World(name=f"other {shop.name}").person(None)
    membership_set(user=user, merchant=shop.merchant, role="support")
    message = Message.objects.get(invoice=shop.invoice(bill), status="SENT")
    for name, width, theme in (("wide", 1280, "light"), ("phone", 390, "dark")):
        window = browser_page(user, width=width, theme=theme)
        page = window.page
        page.goto(f"{window.server}/dashboard/messages/")
        expect(page.get_by_role("heading", name="Outbox")).to_be_visible()
        shot(page, shots, f"messages-{name}")
        sound(window)
        page.get_by_role("link", name="Veuillez mettre à jour").first.click()
        frame = page.frame_locator("iframe")
        expect(frame.get_by_text("La carte a expiré.").last).to_be_visible()
        shot(page, shots, f"message-{name}")
        sound(window)
        assert page.get_by_role("link", name="Open the payer's page").get_attribute("href")
    assert message.sent_at is not None
