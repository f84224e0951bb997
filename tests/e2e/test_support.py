"""A support person's morning in a real browser, against a real server and the sandbox provider: find a customer by
e-mail or last digits, understand the case, retry, pause, give money back.
"""

from collections.abc import Callable
from datetime import UTC, datetime

import pytest
import requests
from playwright.sync_api import Page, expect

from accounts.models import User
from accounts.services import membership_set
from invoices.models import Customer
from tests.e2e.conftest import BrowserPage
from tests.support.fixtures import new_shop as new_shop
from tests.support.fixtures import sandbox as sandbox
from tests.support.shop import Shop
from tests.support.stripe import Bill
from tokens.models import Card

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def shop(new_shop: Callable[..., Shop]) -> Shop:
    """A shop of the present: the pages run on the real clock."""
    made = new_shop()
    made.at = datetime.now(UTC).replace(microsecond=0)
    return made


def find(page: Page, text: str) -> None:
    page.get_by_role("searchbox").fill(text)
    page.get_by_role("searchbox").press("Enter")


def ask(page: Page, button: str, why: str, confirm: str) -> None:
    page.locator("#actions summary", has_text=button).click()
    page.locator("details.dialog[open] textarea[name=reason]").fill(why)
    page.locator("details.dialog[open]").get_by_role("button", name=confirm).click()


def work(shop: Shop) -> int:
    """What the worker does meanwhile; how much money moved, in calls."""
    shop.at = datetime.now(UTC)
    return shop.drain().succeeded


def given_back(shop: Shop, bill: Bill) -> int:
    """Minor units that the sandbox has paid back to the bill's customer."""
    ledger = requests.get(f"{shop.sandbox.url}/ledger", timeout=10).json()
    mine = {charge["id"] for charge in ledger["charges"] if charge["customer"] == bill.customer}
    done = (one for one in ledger["refunds"] if one["charge"] in mine and one["status"] == "succeeded")
    return sum(one["amount"] for one in done)


def test_a_morning_at_the_support_desk(shop: Shop, browser_page: BrowserPage) -> None:
    maria, otto = shop.failed_bill(), shop.failed_bill(code="insufficient_funds")
    Customer.objects.filter(pk=shop.customer(maria).pk).update(email="maria@example.com", name="Maria Silva")
    Card.objects.filter(pk=shop.card(otto).pk).update(last4="7731")
    ann = User.objects.create_user(f"ann-{shop.merchant.pk}", first_name="Ann", last_name="Lee")
    membership_set(user=ann, merchant=shop.merchant, role="support")
    window = browser_page(ann)
    page = window.open("/console/work/")

    find(page, "Maria@Example.com")
    page.locator("tbody a").first.click()
    expect(page.locator("#next-step")).to_contain_text("Retry booked")
    expect(page.locator("#attempts")).to_contain_text("Insufficient funds")
    page.get_by_label("Write a note").fill("She has paid money in; try again now.")
    page.get_by_role("button", name="Keep the note").click()
    expect(page.locator("#notes")).to_contain_text("She has paid money in; try again now.")
    page.get_by_label("Assigned to").select_option(label="Ann Lee (me)")
    page.get_by_role("button", name="Assign", exact=True).click()
    expect(page.locator("#assignee")).to_have_text("Ann Lee")

    ask(page, "Retry now", "She called.", "Book the retry")
    expect(page.get_by_role("status")).to_contain_text("leaves within moments")
    assert work(shop) == 1
    expect(page.locator("#status")).to_contain_text("Settled", timeout=20_000)
    assert shop.charged(maria) == shop.invoice(maria).amount_minor

    ask(page, "Refund", "She had paid by transfer, too.", "Book the refund")
    expect(page.get_by_role("status")).to_contain_text("The refund of")
    assert work(shop) == 1
    expect(page.locator("#status")).to_contain_text("Refunded", timeout=20_000)
    assert given_back(shop, maria) == shop.invoice(maria).refunded_minor == shop.charged(maria)

    page = window.open("/dashboard/invoices/")
    find(page, "7731")
    page.locator("tbody a").first.click()
    ask(page, "Pause", "He asked for a week.", "Pause")
    expect(page.get_by_role("status")).to_contain_text("Automatic retries are paused.")
    expect(page.locator("#next-step")).to_contain_text("Paused")
    shop.wait(days=2)
    assert shop.drain().claimed == 0
    assert shop.charged(otto) == 0
    assert window.complaints == []
    assert window.violations() == []
