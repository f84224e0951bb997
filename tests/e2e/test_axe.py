"""axe-core over every page that people see, in both themes, on a desk and on a phone: no serious fault, no complaint.

One window per look visits all pages; axe comes in by the debugging protocol, past the content security policy.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from django.urls import reverse

from accounts.models import User
from analytics.models import Incident
from invoices.models import Event, Invoice
from invoices.services.casework import invoice_assign, note_add
from notifications.links import link_url
from notifications.models import Alert
from notifications.services.alerts import alert_raise, alert_wanted, alert_write
from notifications.services.links import link_issue
from retries.models import Case, PolicyVersion
from tests.console.world import World
from tests.e2e.conftest import BrowserPage, Window
from tokens.models import Card
from webhooks.models import OutboundEndpoint
from webhooks.outbound.endpoints import outbound_endpoint_create

pytestmark = pytest.mark.browser
# Colours depend on the theme and layout on the width, so two looks see both; the long run sees all.
LOOKS = (
    ("light", 1280),
    ("dark", 390),
    pytest.param("dark", 1280, marks=pytest.mark.long),
    pytest.param("light", 390, marks=pytest.mark.long),
)


@dataclass(frozen=True)
class Furnished:
    """A merchant with one of everything, and who looks at it."""

    world: World
    root: User
    failed: Invoice
    recovered: Invoice
    payer: str


@pytest.fixture
def furnished(shop: World) -> Furnished:
    shop.at -= timedelta(days=2)
    long_id = "in_" + "1a2b3c4d" * 8
    failed = shop.fail(invoice=long_id, customer="cus_ann", code="insufficient_funds")
    shop.add_token(failed, "tok_spare", network="mastercard", last4="4444", fingerprint="fp_spare")
    dead = shop.fail(customer="cus_ben", token="tok_ben", code="expired_card", number="INV-ben")
    shop.fail(customer="cus_cy", token="tok_cy", code="a_code_nobody_knows", number="INV-cy")
    recovered = shop.fail(customer="cus_dev", token="tok_dev", number="INV-dev")
    shop.wait(hours=2)
    shop.pay(recovered)
    shop.pay(recovered)
    for event in Event.objects.order_by("id"):
        if alert_wanted(event.kind):
            alert_write(event)
    root = User.objects.create_superuser("root", first_name="Sofia", last_name="Reyes")
    staff = shop.person("owner", first_name="Ann", last_name="Lee", is_staff=True)
    note_add(invoice_pk=failed.pk, text="She called; pays on Friday.", stamp=shop.stamp(f"user:{staff.pk}"))
    invoice_assign(invoice_pk=failed.pk, user_pk=staff.pk, stamp=shop.stamp(f"user:{staff.pk}"))
    incident = Incident.objects.create(
        merchant=shop.merchant,
        dimension="connection",
        key=str(shop.connection.pk),
        name=str(shop.connection),
        also=[["code", "processing_error"]],
        started_at=shop.at - timedelta(hours=3),
        found_at=shop.at,
        seen_at=shop.at,
        attempts=60,
        failed=46,
        expected=18.5,
        cause="Of the additional failures mostly code processing_error (82 %).",
    )
    link = reverse("dashboard-incident", args=[incident.public_id])
    alert_raise(merchant_pk=shop.merchant.pk, kind="spike", key="x", text="More fail.", link=link, now=shop.at)
    outbound_endpoint_create(merchant=shop.merchant, url="https://hooks.example.com/")
    payer = link_issue(invoice=dead, issued_by="test", now=datetime.now(UTC))
    path = urlsplit(link_url(payer.public_id)).path
    return Furnished(shop, root, failed, recovered, path)


def pages(shop: Furnished) -> list[str]:
    world, incident = shop.world, Incident.objects.get()
    console = [
        reverse("dashboard"),
        *(reverse("dashboard-report", args=[name]) for name in ("failures", "retries", "policies")),
        reverse("dashboard-invoices"),
        reverse("dashboard-alerts"),
        reverse("dashboard-incidents"),
        reverse("dashboard-incident", args=[incident.public_id]),
        reverse("dashboard-messages"),
        reverse("console:invoice", args=[shop.failed.public_id]),
        reverse("console:invoice", args=[shop.recovered.public_id]),
        reverse("console:queue"),
        reverse("console:work"),
        reverse("console:connections"),
        reverse("console:connection", args=[world.connection.public_id]),
        reverse("console:connection-new", args=["stripe"]),
        reverse("admin:retries_policy_edit", args=[world.merchant.public_id]),
        reverse("admin:retries_unknown_codes"),
    ]
    return [f"{path}?merchant={world.merchant.public_id}" for path in console] + [shop.payer]


def faults(window: Window) -> list[str]:
    """Refusals of the policy, what the console said, what sticks out, then serious and critical faults by axe."""
    told = [*window.violations(), *window.complaints, *(f"sticks out: {one}" for one in window.overflow())]
    # Loading style sheets anew (preload) is refused by the policy, and there are none from elsewhere.
    options = {"resultTypes": ["violations"], "preload": False}
    found = Axe().run(window.page, options=options).response["violations"]
    grave = [one for one in found if one["impact"] in ("serious", "critical")]
    return told + [f"{one['id']}: {[node['html'][:150] for node in one['nodes'][:3]]}" for one in grave]


def faults_by_path(window: Window, paths: list[str]) -> dict[str, list[str]]:
    """What is wrong, by page; pages without a fault are left out."""
    found = {}
    for path in paths:
        window.open(path)
        found[path] = faults(window)
        window.complaints.clear()
    return {path: told for path, told in found.items() if told}


@pytest.mark.parametrize(("theme", "width"), LOOKS)
def test_every_page_is_without_grave_faults(
    furnished: Furnished, browser_page: BrowserPage, theme: str, width: int
) -> None:
    window = browser_page(furnished.root, theme=theme, width=width)
    assert faults_by_path(window, pages(furnished)) == {}


def test_admin_lists_and_forms_are_without_grave_faults(furnished: Furnished, browser_page: BrowserPage) -> None:
    window = browser_page(furnished.root)
    rows = {
        "invoices_invoice": None,
        "tokens_card": Card.objects.first(),
        "retries_case": Case.objects.first(),
        "retries_policyversion": PolicyVersion.objects.first(),
        "notifications_alertroute": None,
        "notifications_alert": Alert.objects.first(),
        "webhooks_inboxevent": None,
        "webhooks_outboundendpoint": OutboundEndpoint.objects.first(),
        "webhooks_delivery": None,
        "accounts_user": furnished.root,
    }
    paths = []
    for name, row in rows.items():
        paths.append(reverse(f"admin:{name}_changelist"))
        if row is not None:
            paths.append(reverse(f"admin:{name}_change", args=[row.pk]))
    assert faults_by_path(window, paths) == {}
