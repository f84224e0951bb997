"""The dashboards in a real browser: both themes, desk and phone, keyboard, live parts, and without any script."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from playwright.sync_api import expect

from accounts.models import User
from invoices.models import Event
from notifications.services.alerts import alert_wanted, alert_write
from retries.models import RetryJob
from tests.analytics.history import month
from tests.console.world import World
from tests.e2e.conftest import BrowserPage, Window

pytestmark = pytest.mark.browser

PAGES = {
    "dashboard": "/dashboard/?days=30",
    "week": "/dashboard/?days=7",
    "invoices": "/dashboard/invoices/?case=OPEN&opened=30",
    "alerts": "/dashboard/alerts/?show=all",
}


@pytest.fixture
def busy(shop: World) -> World:
    """Failures of the last two days, one of them recovered, one broken promise among them, and unread alerts."""
    shop.at -= timedelta(days=2)
    for name, code in (("ann", "insufficient_funds"), ("ben", "expired_card"), ("cleo", "do_not_honor")):
        shop.fail(customer=f"cus_{name}", token=f"tok_{name}", code=code, number=f"INV-{name}")
    shop.wait(hours=25)
    for attempt, answer in zip(shop.send(), ("ok", "insufficient_funds"), strict=False):
        shop.answer(attempt, answer)
    broken = shop.fail(customer="cus_dev", token="tok_dev", number="INV-dev")
    RetryJob.objects.filter(invoice=broken).update(status="CANCELED")
    for event in Event.objects.order_by("id"):
        if alert_wanted(event.kind):
            alert_write(event)
    return shop


def inspect(window: Window, name: str, shots: Path | None, look: str) -> None:
    assert window.complaints == [], f"{name} {look}"
    assert window.violations() == [], f"{name} {look}"
    assert window.overflow() == [], f"{name} {look}"
    if shots is not None:
        window.page.screenshot(path=shots / f"{name}-{look}.png", full_page=True)


def test_a_long_address_that_is_remarked_upon_fits_a_phone(
    shop: World, browser_page: BrowserPage, shots: Path | None
) -> None:
    window = browser_page(shop.person(), width=360, theme="dark")
    window.open(f"/dashboard/invoices/?status=PAID&{'y' * 70}={'z' * 70}")
    expect(window.page.locator(".banner[data-tone=warning]")).to_have_count(2)
    inspect(window, "address", shots, "dark-360")


def test_pages_with_data_hold_up_in_both_themes_on_desk_and_phone(
    busy: World, browser_page: BrowserPage, shots: Path | None
) -> None:
    month(busy, until=datetime.now(UTC), days=6, per_day=3)
    user = busy.person("manager", first_name="Sofia", last_name="Reyes", is_staff=True)
    grounds = {}
    for theme in ("light", "dark"):
        for width in (1280, 390, 360):
            window = browser_page(user, width=width, theme=theme)
            for name, path in PAGES.items():
                page = window.open(path)
                expect(page.locator("h1")).to_be_visible()
                inspect(window, name, shots, f"{theme}-{width}")
            grounds[theme] = window.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert grounds == {"light": "rgb(245, 246, 248)", "dark": "rgb(13, 16, 20)"}


def test_pages_without_data_hold_up_too(shop: World, browser_page: BrowserPage, shots: Path | None) -> None:
    user = shop.person("viewer")
    for width in (1280, 390):
        window = browser_page(user, width=width)
        for name, path in PAGES.items():
            window.open(path)
            inspect(window, f"empty-{name}", shots, f"light-{width}")


def test_log_in_by_keyboard_alone(shop: World, browser_page: BrowserPage) -> None:
    user = shop.person("support", username="sofia")
    window = browser_page()
    page = window.open("/dashboard/invoices/")
    expect(page).to_have_title("Log in · Revenue Recovery")
    page.keyboard.type(user.username)  # the field has the focus
    page.keyboard.press("Tab")
    page.keyboard.type("pass-word-1")
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text("Invoices")
    assert window.complaints == []


def test_keyboard_reaches_content_definitions_and_charts_table(busy: World, browser_page: BrowserPage) -> None:
    window = browser_page(busy.person())
    page = window.open("/dashboard/")
    page.keyboard.press("Tab")
    expect(page.locator(".skip-link")).to_be_focused()
    expect(page.locator(".skip-link")).to_be_in_viewport()
    page.keyboard.press("Enter")
    expect(page.locator("#main")).to_be_focused()

    definition = page.locator("#tiles details.def").first
    definition.locator("summary").focus()
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    page.keyboard.press("Enter")
    expect(definition.locator(".def-pop")).to_be_visible()
    expect(definition.locator(".def-pop")).to_contain_text("What is still due now")
    page.keyboard.press("Escape")
    expect(definition.locator(".def-pop")).to_be_hidden()
    expect(definition.locator("summary")).to_be_focused()

    more = page.locator("details.more")
    more.locator("summary").focus()
    page.keyboard.press("Enter")
    expect(more.locator("table")).to_be_visible()


def test_everything_that_can_be_used_can_be_reached_and_has_a_name(busy: World, browser_page: BrowserPage) -> None:
    window = browser_page(busy.person())
    for path in PAGES.values():
        page = window.open(path)
        nameless = page.evaluate(
            """() => [...document.querySelectorAll("a, button, summary, input:not([type=hidden]), select")]
              .filter((one) => one.checkVisibility())
              .filter((one) => one.tabIndex < 0 || !((one.innerText || "").trim() || one.getAttribute("aria-label")
                || (one.labels && one.labels.length) || one.querySelector(".visually-hidden")))
              .map((one) => one.outerHTML.slice(0, 120))"""
        )
        assert nameless == [], path


def test_chosen_theme_stays_and_holds_in_the_admin_too(shop: World, browser_page: BrowserPage) -> None:
    window = browser_page(User.objects.create_superuser("root"), theme="light")
    page = window.open("/dashboard/")
    page.locator(".user-menu > summary").click()
    toggle = page.locator("[data-theme-toggle]")
    expect(toggle).to_have_text("Theme: as the system")
    toggle.click()
    toggle.click()
    expect(toggle).to_have_text("Theme: dark")
    dark = "rgb(13, 16, 20)"
    for path in ("/dashboard/alerts/", "/admin/"):
        window.open(path)
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == dark
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    assert window.complaints == []
    assert window.violations() == []


def test_admin_holds_up_in_both_themes(busy: World, browser_page: BrowserPage, shots: Path | None) -> None:
    root = User.objects.create_superuser("root")
    pages = {
        "admin": "/admin/",
        "admin-list": "/admin/invoices/invoice/",
        "admin-form": f"/admin/accounts/user/{root.pk}/change/",
    }
    for theme in ("light", "dark"):
        window = browser_page(root, theme=theme)
        for name, path in pages.items():
            window.open(path)
            inspect(window, name, shots, f"{theme}-1280")


def test_live_parts_show_a_recovery_without_a_reload(shop: World, browser_page: BrowserPage) -> None:
    invoice = shop.fail(amount=4_990, number="INV-LIVE")
    window = browser_page(shop.person())
    page = window.open("/dashboard/")
    tile = page.get_by_role("region", name="Recovered, net")
    expect(tile).to_contain_text("Nothing yet")
    page.evaluate("window.notReloaded = true")
    shop.pay(invoice)
    expect(tile).to_contain_text("$49.90", timeout=40_000)
    expect(page.locator("#feed")).to_contain_text("Recovered $49.90")
    expect(page.locator("[data-live-text]")).to_have_text("Live")
    assert page.evaluate("window.notReloaded") is True
    assert window.complaints == []
    assert window.violations() == []


def test_live_parts_rest_while_paused_or_in_use(shop: World, browser_page: BrowserPage) -> None:
    invoice = shop.fail(amount=4_990)
    window = browser_page(shop.person())
    page = window.open("/dashboard/")
    page.locator("#tiles details.def > summary").first.click()
    shop.pay(invoice)
    with page.expect_response(lambda answer: "/dashboard/live/" in answer.url, timeout=40_000):
        pass
    expect(page.locator("#feed")).to_contain_text("Recovered $49.90")
    expect(page.locator("#tiles .def-pop").first).to_be_visible()  # not swapped away under the reader
    page.get_by_role("button", name="Pause").click()
    expect(page.locator("[data-live-text]")).to_have_text("Paused")
    expect(page.get_by_role("button", name="Resume")).to_have_attribute("aria-pressed", "true")


def test_pages_work_without_any_script(busy: World, browser_page: BrowserPage) -> None:
    window = browser_page(busy.person(), script=False)
    page = window.open("/dashboard/invoices/")
    page.get_by_label("Case").select_option("OPEN")
    page.get_by_role("button", name="Apply").click()
    expect(page).to_have_url(f"{window.server}/dashboard/invoices/?q=&status=&case=OPEN&next_step=&category=")
    expect(page.locator(".chip")).to_have_text("Case open\N{MULTIPLICATION SIGN}, remove this filter")
    page = window.open("/dashboard/")
    page.locator("#tiles details.def > summary").first.click()
    expect(page.locator("#tiles .def-pop").first).to_be_visible()
    page.locator(".user-menu > summary").click()
    page.get_by_role("button", name="Log out").click()
    expect(page.locator("h1")).to_have_text("Log in")


def test_figure_leads_to_its_rows_and_filters_apply_at_once(busy: World, browser_page: BrowserPage) -> None:
    window = browser_page(busy.person())
    page = window.open("/dashboard/")
    badge = page.locator("a.badge[data-tone=danger]")
    expect(badge).to_have_text("1")
    badge.click()
    expect(page.locator("tbody tr")).to_have_count(1)
    page.get_by_role("link", name="Clear all").click()
    page.get_by_label("Next step").select_option("booked")
    expect(page.locator(".chip")).to_contain_text("Retry booked")
    assert window.complaints == []


def test_chart_tells_its_numbers_at_the_pointer(busy: World, browser_page: BrowserPage) -> None:
    window = browser_page(busy.person())
    page = window.open("/dashboard/?days=30")
    page.locator("[data-chart]").scroll_into_view_if_needed()
    column = page.locator("g.column", has=page.locator(".seg-rect")).last
    box = column.locator(".column-hit").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    told = column.get_attribute("data-tip")
    assert told
    expect(page.locator(".tip")).to_have_text(told)
    page.mouse.move(5, 5)
    expect(page.locator(".tip")).to_have_count(0)
    assert window.violations() == []


def test_printed_page_has_no_controls_and_is_light(busy: World, browser_page: BrowserPage) -> None:
    window = browser_page(busy.person(), theme="dark")
    page = window.open("/dashboard/")
    page.emulate_media(media="print", color_scheme="dark")
    for hidden in (".sidebar", ".seg", ".skip-link"):
        for part in page.locator(hidden).all():
            expect(part).to_be_hidden()
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(22, 27, 38)"


def test_alert_is_acknowledged_by_one_press(busy: World, browser_page: BrowserPage) -> None:
    window = browser_page(busy.person("support"))
    page = window.open("/dashboard/alerts/")
    before = page.locator(".alert-line").count()
    assert before >= 2
    page.locator(".alert-line button").first.click()
    expect(page.get_by_role("status")).to_have_text("1 alert acknowledged.")
    expect(page.locator(".alert-line")).to_have_count(before - 1)
    assert window.complaints == []
