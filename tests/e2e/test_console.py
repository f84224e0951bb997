"""The console in a real browser: a support person's morning, pages that follow the ledger, life without script."""

from datetime import timedelta
from pathlib import Path

import pytest
from django.db import transaction
from playwright.sync_api import Locator, Page, expect

from accounts.models import User
from invoices.models import Attempt, Invoice
from invoices.services.reviews import review_open
from invoices.states import ReviewKind
from retries.locking import scope_lock
from tests.console.world import World
from tests.e2e.conftest import BrowserPage, Window

pytestmark = pytest.mark.browser


@pytest.fixture
def failed(shop: World) -> Invoice:
    """Yesterday's decline with a second card on file; its retry is booked for later today."""
    shop.at -= timedelta(hours=20)
    invoice = shop.fail(customer="cus_maria", number="INV-2041")
    shop.add_token(invoice, "tok_spare", network="mastercard", last4="4444", fingerprint="fp_spare")
    shop.wait(hours=19)
    return shop.again(invoice)


@pytest.fixture
def unknown(shop: World) -> Invoice:
    """A charge that nobody knows the result of, before staff."""
    shop.at -= timedelta(days=2)
    invoice = shop.fail(customer="cus_otto", token="tok_otto", last4="1881", number="INV-2077")
    shop.wait(hours=25)
    attempt = shop.charge("lost")
    shop.wait(hours=20)
    with transaction.atomic():
        scope = scope_lock(customer_pk=invoice.customer_id, invoice_pk=invoice.pk)
        review_open(
            invoice=scope.invoice,
            kind=ReviewKind.UNKNOWN_ATTEMPT,
            subject_type="attempt",
            subject_id=attempt.public_id,
            facts={"provider": "simulator"},
            choices=["charged", "not_charged"],
            stamp=shop.stamp(),
        )
    return shop.again(invoice)


def address(invoice: Invoice) -> str:
    return f"/console/invoices/{invoice.public_id}/"


def sound(window: Window, name: str) -> None:
    assert window.complaints == [], name
    assert window.violations() == [], name
    assert window.overflow() == [], name


def ask(page: Page, button: str) -> None:
    page.locator("#actions summary", has_text=button).click()


def reason(page: Page) -> Locator:
    """The reason of the question that stands open."""
    return page.locator("details.dialog[open] textarea[name=reason]")


def test_pages_hold_up_in_both_themes_on_desk_and_phone(
    shop: World, failed: Invoice, unknown: Invoice, browser_page: BrowserPage, shots: Path | None
) -> None:
    ann = shop.person("support", first_name="Ann", last_name="Lee", is_staff=True)
    for theme in ("light", "dark"):
        for width in (1280, 360):
            window = browser_page(ann, width=width, theme=theme)
            for name, path in (("case", address(failed)), ("unknown", address(unknown)), ("queue", "/console/queue/")):
                page = window.open(path)
                sound(window, f"{name} {theme} {width}")
                if shots is not None:
                    page.screenshot(path=shots / f"console-{name}-{theme}-{width}.png", full_page=True)
                if name == "case":
                    ask(page, "Retry now")
                    sound(window, f"dialog {theme} {width}")


def test_a_support_persons_morning(shop: World, failed: Invoice, browser_page: BrowserPage) -> None:
    """Understand, retry with another card, and watch it come in without loading the page again."""
    ann = shop.person("support", first_name="Ann", last_name="Lee")
    window = browser_page(ann)
    page = window.open(address(failed))
    expect(page.locator("#next-step")).to_contain_text("Mastercard •••• 4444")
    expect(page.locator("#timeline")).to_contain_text("Attempt 1 on Visa •••• 4242 was declined")
    ask(page, "Retry now")
    page.locator("select[name=token]").select_option(label="Mastercard •••• 4444: 10 left")
    reason(page).fill("She called: use the other card.")
    page.get_by_role("button", name="Book the retry").click()
    expect(page.get_by_role("status")).to_contain_text("The retry with Mastercard •••• 4444 is booked")
    page.evaluate("window.stillTheSamePage = true")
    shop.wait(hours=2)
    shop.charge("ok")
    expect(page.locator("#status")).to_contain_text("Settled", timeout=20_000)
    expect(page.locator("#timeline")).to_contain_text("The money was recovered by staff.")
    expect(page.locator("#timeline")).to_contain_text("A retry was asked for.")
    expect(page.locator("#timeline")).to_contain_text("Ann Lee")
    expect(page.locator("#actions summary")).to_have_text(["Refund"])
    assert page.evaluate("window.stillTheSamePage") is True
    assert window.complaints == []
    assert window.violations() == []


def test_a_half_written_reason_survives_news(shop: World, failed: Invoice, browser_page: BrowserPage) -> None:
    """Another try is declined while somebody types: attempts and timeline move on, the open question stays."""
    window = browser_page(shop.person("support"))
    page = window.open(address(failed))
    ask(page, "Pause")
    reason(page).fill("half a sent")
    shop.fail(invoice=failed.provider_invoice_id or "", customer="cus_maria", code="processing_error")
    expect(page.locator("#attempts")).to_contain_text("Processing error", timeout=20_000)
    expect(reason(page)).to_have_value("half a sent")


def test_an_unknown_charge_is_answered_on_the_page(shop: World, unknown: Invoice, browser_page: BrowserPage) -> None:
    window = browser_page(shop.person("support"))
    page = window.open(address(unknown))
    page.locator("#questions summary", has_text="It was charged").click()
    reason(page).fill("Found it in the provider's list.")
    page.locator("details[open]").get_by_role("button", name="It was charged").click()
    expect(page.locator("#status")).to_contain_text("Settled")
    assert Attempt.objects.get(invoice=unknown, origin="OURS").status == "SUCCEEDED"
    sound(window, "answered")


def test_everything_works_without_script(shop: World, failed: Invoice, browser_page: BrowserPage) -> None:
    window = browser_page(shop.person("support"), script=False)
    page = window.open(address(failed))
    ask(page, "Cancel invoice")
    reason(page).fill("ordered by mistake")
    page.get_by_role("button", name="Cancel the invoice").click()
    expect(page.get_by_role("status")).to_contain_text("The invoice is canceled.")
    assert Invoice.objects.get(pk=failed.pk).status == "CANCELED"


def test_the_keyboard_is_enough(shop: World, failed: Invoice, browser_page: BrowserPage) -> None:
    window = browser_page(shop.person("support"))
    page = window.open(address(failed))
    page.locator("#actions summary", has_text="Pause").focus()
    page.keyboard.press("Enter")
    expect(reason(page)).to_be_focused()
    page.keyboard.press("Escape")
    expect(reason(page)).to_have_count(0)
    page.keyboard.press("Enter")
    expect(reason(page)).to_be_focused()
    page.keyboard.type("by keyboard")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_contain_text("Automatic retries are paused.")


def test_a_bulk_action_is_previewed_and_carried_out_in_the_admin(
    shop: World, failed: Invoice, browser_page: BrowserPage
) -> None:
    window = browser_page(shop.person("support", is_staff=True))
    page = window.open("/admin/invoices/invoice/")
    page.locator("input.action-select").first.check()
    page.locator("select[name=action]").select_option("pause")
    page.get_by_role("button", name="Go").click()
    expect(page.locator("#content")).to_contain_text("Automatic retries stop until somebody resumes them.")
    assert window.overflow() == []
    page.get_by_label("Reason").fill("public holiday")
    page.get_by_role("button", name="Pause").click()
    expect(page.locator(".messagelist")).to_contain_text("Done for one of the selected rows.")
    assert window.complaints == []
    assert window.violations() == []
    assert User.objects.get().is_staff
