"""A person lets a program act for them, in a browser: asked in words, and led back to the program."""

import pytest
from oauth2_provider.models import Grant
from playwright.sync_api import expect

from accounts.oauth.services import application_create
from tests.console.world import World
from tests.e2e.conftest import BrowserPage

pytestmark = pytest.mark.browser
BACK = "https://app.example.com/back"


@pytest.mark.parametrize("width", [1280, 360])
def test_consent_leads_back_to_the_program(shop: World, browser_page: BrowserPage, width: int) -> None:
    new = application_create(merchant=shop.merchant, name="Books", scopes=["read", "payments"], redirect_uris=[BACK])
    window = browser_page(shop.person("support", first_name="Sam"), width=width)
    page = window.page
    page.route(f"{BACK}**", lambda route: route.fulfill(body="Thank you"))
    query = f"client_id={new.row.client_id}&response_type=code&redirect_uri={BACK}&state=s1"
    challenge = "code_challenge=E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM&code_challenge_method=S256"
    window.open(f"/oauth/authorize?{query}&{challenge}")
    expect(page.get_by_role("heading", name="Allow Books?")).to_be_visible()
    expect(page.get_by_role("listitem")).to_have_count(2)
    assert (window.complaints, window.violations(), window.overflow()) == ([], [], [])
    page.get_by_role("button", name="Allow it", exact=True).press("Enter")
    page.wait_for_url(f"{BACK}?code=*")
    expect(page.get_by_text("Thank you")).to_be_visible()
    assert set(Grant.objects.get().scope.split()) == {"read", "payments"}
