import re
from collections.abc import Callable
from html import unescape

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from accounts.models import GlobalSwitch, Merchant, User
from accounts.services import membership_set
from accounts.states import Role
from analytics.definitions import DEFINITIONS
from analytics.reports import REPORTS
from retries.models import RetryJob
from tests.analytics.history import month
from tests.console.world import World

LogIn = Callable[[User], Client]
PAGES = (
    "/dashboard/",
    "/dashboard/live/",
    "/dashboard/board/",
    "/dashboard/reports/failures/",
    "/dashboard/reports/retries/",
    "/dashboard/reports/policies/",
    "/dashboard/invoices/",
    "/dashboard/invoices/export.csv",
    "/dashboard/alerts/",
)


def text_of(response: object) -> str:
    """The page as a reader sees it: tags gone, blanks folded."""
    content: bytes = response.content  # type: ignore[attr-defined]
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", content.decode())))


@pytest.mark.parametrize("page", PAGES)
def test_strangers_are_sent_to_the_log_in_and_back(client: Client, page: str) -> None:
    response = client.get(f"{page}?days=7&x=1", follow=False)
    assert response.status_code == 302
    assert response["Location"] == f"/accounts/login/?next={page.replace('/', '%2F')}%3Fdays%3D7%26x%3D1"


def test_a_poll_without_a_session_moves_the_whole_page_to_the_log_in(client: Client) -> None:
    response = client.get("/dashboard/live/", headers={"HX-Request": "true"})
    assert response["HX-Redirect"] == "/accounts/login/"


@pytest.mark.parametrize("page", PAGES)
def test_another_users_merchant_does_not_exist(world: World, as_user: LogIn, page: str) -> None:
    other = World(name="Umbrella Secret", at=world.at)
    other.fail(number="SECRET-1", code="a_secret_code")
    client = as_user(world.person(Role.OWNER))
    refused = client.get(f"{page}?merchant={other.merchant.public_id}")
    assert refused.status_code == 404
    response = client.get(page)
    assert response.status_code == 200
    body = b"".join(response.streaming_content) if response.streaming else response.content  # type: ignore[attr-defined]
    assert b"SECRET" not in body
    assert b"Umbrella" not in body
    assert b"a_secret_code" not in body


def test_user_without_a_merchant_is_told_what_to_do(db: None, as_user: LogIn) -> None:
    response = as_user(User.objects.create_user("nobody")).get("/dashboard/")
    assert response.status_code == 403
    assert "not a member of any merchant yet" in text_of(response)
    assert "Log out" in text_of(response)


def test_chosen_merchant_is_remembered_until_the_membership_ends(world: World, as_user: LogIn) -> None:
    other = World(name="Zeta", at=world.at)
    user = world.person()
    membership_set(user=user, merchant=other.merchant, role=Role.VIEWER)
    client = as_user(user)
    assert "Dashboard · Acme ·" in text_of(client.get("/dashboard/"))
    assert "Dashboard · Zeta ·" in text_of(client.get(f"/dashboard/?merchant={other.merchant.public_id}"))
    assert "Invoices · Zeta ·" in text_of(client.get("/dashboard/invoices/"))
    membership_set(user=user, merchant=other.merchant, role=None)
    assert "Invoices · Acme ·" in text_of(client.get("/dashboard/invoices/"))


def test_switcher_lists_the_users_merchants_and_superusers_see_all(world: World, client: Client) -> None:
    World(name="Zeta", at=world.at)
    client.force_login(world.person())
    assert "Zeta" not in text_of(client.get("/dashboard/"))
    client.force_login(User.objects.create_superuser("root"))
    assert "Zeta" in text_of(client.get("/dashboard/"))


def test_empty_dashboard_says_what_will_appear(world: World, as_user: LogIn) -> None:
    text = text_of(as_user(world.person()).get("/dashboard/"))
    for words in (
        "No revenue is at risk",
        "Nothing yet",
        "No attempt failed",
        "Nothing has happened yet",
        "No retry is booked",
    ):
        assert words in text
    assert "No worker is running" in text


def test_figures_of_a_small_history(world: World, as_user: LogIn) -> None:
    world.fail(customer="cus_a", token="tok_a", amount=4_990, number="INV-1")
    world.wait(hours=25)
    world.charge("ok")
    world.fail(customer="cus_b", token="tok_b", amount=1_000, code="expired_card", number="INV-2")
    world.fail(customer="cus_c", token="tok_c", amount=500, currency="JPY", number="INV-3")
    text = text_of(as_user(world.person()).get("/dashboard/?days=7"))
    assert "¥500 $10.00 on 2 open cases" in text
    assert "$49.90 1 case" in text
    assert "33 % not final Recovered 1 of 3 cases Still open 2" in text
    assert "By amount, JPY 0 %" in text
    assert "By amount, USD 83 %" in text
    assert "Recovered $49.90 INV-1 · A" in text
    assert "Charge failed: hard decline (expired_card) INV-2 · B" in text
    assert "INV-3 C after insufficient funds, on Visa •••• 4242 ¥500 in 24 h" in text


def test_every_figure_shows_its_definition(world: World, as_user: LogIn) -> None:
    world.fail()
    client = as_user(world.person())
    reports = [f"/dashboard/reports/{name}/" for name in REPORTS]
    pages = ("/dashboard/", "/dashboard/board/", "/dashboard/messages/", "/dashboard/incidents/", *reports)
    text = " ".join(text_of(client.get(page)) for page in pages)
    missing = [key for key, definition in DEFINITIONS.items() if definition.sentence not in text]
    assert missing == []


def test_broken_promise_is_red_and_leads_to_its_invoices(world: World, as_user: LogIn) -> None:
    invoice = world.fail(number="INV-BROKEN")
    RetryJob.objects.filter(invoice=invoice).update(status="CANCELED")
    client = as_user(world.person())
    page = client.get("/dashboard/board/?days=7").content.decode()
    link = '<a class="badge" data-tone="danger" href="/dashboard/invoices/?check=without_next_step&amp;failed=7">1</a>'
    assert link in page
    rows = client.get("/dashboard/invoices/?check=without_next_step&failed=7")
    assert "INV-BROKEN" in text_of(rows)
    cross = "\N{MULTIPLICATION SIGN} , remove this filter"
    assert f"In the last 7 days {cross} Open without a next step {cross}" in text_of(rows)


@pytest.mark.parametrize("page", ["/dashboard/?days=90", "/dashboard/live/?days=90"])
def test_page_costs_the_same_queries_for_an_empty_and_a_full_merchant(world: World, as_user: LogIn, page: str) -> None:
    client = as_user(world.person())
    client.get(page)
    with CaptureQueriesContext(connection) as empty:
        client.get(page)
    month(world, until=world.at, days=6, per_day=3)
    with CaptureQueriesContext(connection) as full:
        client.get(page)
    # The rows of the upcoming retries are only asked for if there are any.
    assert len(full) == len(empty) + 1
    assert len(full) <= 36


def test_live_part_carries_the_same_parts_as_the_page_and_nothing_else(world: World, as_user: LogIn) -> None:
    world.fail()
    client = as_user(world.person())
    fragment = client.get("/dashboard/live/?days=7").content.decode()
    ids = re.findall(r'id="([\w-]+)" (?:aria-labelledby="[\w-]+" )?hx-swap-oob="true"', fragment)
    assert ids == ["tiles", "feed", "health"]
    assert "<html" not in fragment
    page = client.get("/dashboard/?days=7").content.decode()
    assert "hx-swap-oob" not in page
    for part in ids:
        assert page.count(f'id="{part}"') == 1
    poll = re.search(r'hx-get="([^"]+)" hx-trigger="every \d+s, news" hx-swap="none"', page)
    assert poll is not None
    assert unescape(poll.group(1)) == f"/dashboard/live/?merchant={world.merchant.public_id}&days=7"


def test_times_are_told_in_the_merchants_zone_and_the_zone_does_not_leak(world: World, client: Client) -> None:
    world.merchant.timezone = "Asia/Tokyo"
    world.merchant.save()
    world.fail()
    user = world.person()
    client.force_login(user)
    page = client.get("/dashboard/").content.decode()
    assert 'title="Friday 20 November 2026, 21:00:00 JST"' in page
    other = World(name="Utc", at=world.at)
    other.fail()
    membership_set(user=user, merchant=other.merchant, role=Role.VIEWER)
    page = client.get(f"/dashboard/?merchant={other.merchant.public_id}").content.decode()
    assert 'title="Friday 20 November 2026, 12:00:00 UTC"' in page
    assert "JST" not in page


@pytest.mark.parametrize("page", PAGES)
def test_pages_only_answer_reads(world: World, as_user: LogIn, page: str) -> None:
    assert as_user(world.person()).post(page).status_code == 405


def test_pages_are_never_cached(world: World, as_user: LogIn) -> None:
    assert "no-store" in as_user(world.person()).get("/dashboard/")["Cache-Control"]


def test_root_leads_to_the_log_in_or_to_the_dashboard(world: World, client: Client) -> None:
    assert client.get("/")["Location"] == "/accounts/login/"
    client.force_login(world.person())
    assert client.get("/")["Location"] == "/dashboard/"


def test_log_in_and_log_out(world: World, client: Client) -> None:
    user = world.person()
    wrong = client.post("/accounts/login/", {"username": user.username, "password": "wrong"})
    assert wrong.status_code == 200
    assert "Please enter a correct username and password" in text_of(wrong)
    right = client.post(
        "/accounts/login/", {"username": user.username, "password": "pass-word-1", "next": "/dashboard/alerts/"}
    )
    assert right["Location"] == "/dashboard/alerts/"
    assert client.post("/accounts/logout/")["Location"] == "/accounts/login/"
    assert client.get("/dashboard/").status_code == 302


def test_log_in_does_not_lead_to_another_site(world: World, client: Client) -> None:
    user = world.person()
    response = client.post(
        "/accounts/login/", {"username": user.username, "password": "pass-word-1", "next": "https://evil.example/"}
    )
    assert response["Location"] == "/dashboard/"


def test_error_pages_say_what_to_do(world: World, as_user: LogIn) -> None:
    response = as_user(world.person()).get("/no/such/page")
    assert response.status_code == 404
    assert "There is nothing at this address" in text_of(response)


@pytest.mark.parametrize(("took", "seconds"), [(0.01, 5), (0.19, 5), (0.9, 23)])
def test_slow_live_parts_are_asked_for_less_often(
    world: World, as_user: LogIn, monkeypatch: pytest.MonkeyPatch, took: float, seconds: int
) -> None:
    clock = iter([100.0, 100.0 + took])
    monkeypatch.setattr("analytics.views.monotonic", lambda: next(clock))
    page = as_user(world.person()).get("/dashboard/").content.decode()
    assert f'hx-trigger="every {seconds}s, news"' in page


def test_every_page_says_that_charging_is_off(world: World, as_user: LogIn) -> None:
    client = as_user(world.person())
    pages = ("/dashboard/", "/dashboard/invoices/", "/console/work/", "/dashboard/messages/")
    assert not any("switched off" in text_of(client.get(page)) for page in pages)
    Merchant.objects.filter(pk=world.merchant.pk).update(charging_enabled=False)
    for page in pages:
        assert "Charging is switched off for Acme" in text_of(client.get(page)), page
    GlobalSwitch.objects.create(charging_enabled=False, reason="provider outage")
    assert "Charging is switched off for everybody: provider outage" in text_of(client.get("/dashboard/"))
