"""OAuth 2: programs with credentials of their own, people who let a program act for them, and how both end."""

import base64
import hashlib
import secrets
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from django.conf import settings
from django.core.cache import caches
from django.test import Client
from oauth2_provider.models import AccessToken, RefreshToken

from accounts.models import OAuthApplication, User
from accounts.oauth.services import NewApplication, application_create, application_revoke
from accounts.services import api_key_create, membership_set
from invoices.models import ReviewItem, Transaction
from recovery_site.common import clock
from tests.api.door import Door
from tests.console.world import World

BACK = "https://app.example.com/back"
EVERYTHING = ("read", "payments", "refunds", "settings")


@pytest.fixture
def world(db: None, redis_client: Any) -> World:
    caches["limits"].clear()
    return World(name="Ann's")


def application(world: World, *redirects: str, scopes: tuple[str, ...] = EVERYTHING, **more: Any) -> NewApplication:
    return application_create(merchant=world.merchant, name="Books", scopes=scopes, redirect_uris=redirects, **more)


def token_of(new: NewApplication, **form: str) -> Any:
    basic = base64.b64encode(f"{new.row.client_id}:{new.secret}".encode()).decode()
    return Client().post("/oauth/token", form, headers={"Authorization": f"Basic {basic}"})


def door(world: World, token: str) -> Door:
    opened = Door(merchant=world.merchant)
    opened.key = token
    return opened


@dataclass
class Consent:
    """A browser in which a person is asked, and a program that waits for the answer."""

    new: NewApplication
    person: User
    verifier: str = field(default_factory=lambda: secrets.token_urlsafe(48))
    client: Client = field(default_factory=Client)

    def __post_init__(self) -> None:
        self.client.force_login(self.person)

    def asked(self, scope: str = "read payments refunds", **more: str) -> dict[str, str]:
        challenge = base64.urlsafe_b64encode(hashlib.sha256(self.verifier.encode()).digest()).decode().rstrip("=")
        query = {
            "client_id": self.new.row.client_id,
            "response_type": "code",
            "redirect_uri": BACK,
            "scope": scope,
            "state": "s1",
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        return {**query, **more}

    def page(self, **query: str) -> Any:
        return self.client.get("/oauth/authorize", self.asked(**query))

    def code(self, **query: str) -> str:
        form = {**self.asked(**query), "allow": "Authorize"}
        answer = self.client.post("/oauth/authorize", form)
        assert answer.status_code == 302, answer.content
        told = parse_qs(urlsplit(answer["Location"]).query)
        assert (told["state"], told["iss"]) == (["s1"], [f"{settings.PUBLIC_URL}/oauth"])
        return told["code"][0]

    def token(self, code: str, **form: str) -> Any:
        given = {"grant_type": "authorization_code", "code": code, "redirect_uri": BACK, "code_verifier": self.verifier}
        return token_of(self.new, **{**given, **form})

    def granted(self, **query: str) -> dict[str, Any]:
        answer = self.token(self.code(**query))
        assert answer.status_code == 200, answer.content
        return dict(answer.json())


def test_a_program_gets_short_tokens_for_its_own_merchant_with_its_own_scopes(world: World) -> None:
    new = application(world, scopes=("read", "payments"))
    told = token_of(new, grant_type="client_credentials").json()
    assert (told["expires_in"], set(told["scope"].split()), "refresh_token" in told) == (
        3600,
        {"read", "payments"},
        False,
    )
    own = door(world, told["access_token"])
    assert own.get("/connections")["data"][0]["id"] == world.connection.public_id
    assert own.post("/policies", {"document": {}}, status=403)["code"] == "scope_missing"
    less = token_of(new, grant_type="client_credentials", scope="read").json()
    assert less["scope"] == "read"
    assert token_of(new, grant_type="client_credentials", scope="settings").json()["error"] == "invalid_scope"
    wrong = NewApplication(new.row, "wrong")
    assert token_of(wrong, grant_type="client_credentials").status_code == 401


def test_neither_secrets_nor_tokens_are_kept(world: World) -> None:
    new = application(world, BACK)
    told = Consent(new, world.person("owner")).granted()
    kept = [*AccessToken.objects.values_list("token", flat=True), *RefreshToken.objects.values_list("token", flat=True)]
    kept += [OAuthApplication.objects.get().client_secret]
    for secret in (new.secret, told["access_token"], told["refresh_token"]):
        assert not any(secret in text for text in kept)


def test_a_person_is_asked_in_words_and_the_program_acts_under_their_name(world: World) -> None:
    new, person = application(world, BACK), world.person("support", username="sam")
    consent = Consent(new, person)
    page = consent.page(scope="read payments settings")
    text = page.content.decode()
    assert (page.status_code, "Allow Books?" in text, "Retry and" in text or "retry and" in text) == (200, True, True)
    assert "Change connections" not in text  # beyond the role, so not even asked for
    assert "form-action 'self' https://app.example.com" in page["Content-Security-Policy"]
    told = consent.granted(scope="read payments settings")
    assert set(told["scope"].split()) == {"read", "payments"}
    own = door(world, told["access_token"])
    invoice = world.fail()
    own.post(f"/invoices/{invoice.public_id}/pause", {"reason": "asked"})
    assert invoice.events.get(kind="staff.pause").actor == f"user:{person.pk}"


def test_a_denial_goes_back_to_the_program_without_a_code(world: World) -> None:
    consent = Consent(application(world, BACK), world.person("owner"))
    answer = consent.client.post("/oauth/authorize", consent.asked())
    assert parse_qs(urlsplit(answer["Location"]).query)["error"] == ["access_denied"]


@pytest.mark.parametrize(
    "change",
    [
        {"code_challenge": "", "code_challenge_method": ""},
        {"code_challenge_method": "plain"},
        {"redirect_uri": "https://evil.example.com/back"},
        {"response_type": "token"},
    ],
    ids=["no PKCE", "plain PKCE", "another address", "implicit"],
)
def test_what_is_unsafe_gets_no_code(world: World, change: dict[str, str]) -> None:
    consent = Consent(application(world, BACK), world.person("owner"))
    form = {name: value for name, value in {**consent.asked(), **change, "allow": "Authorize"}.items() if value}
    answer = consent.client.post("/oauth/authorize", form)
    assert "code=" not in answer.get("Location", "")
    assert "evil" not in answer.get("Location", "")


def test_a_code_needs_its_verifier_and_works_once(world: World) -> None:
    consent = Consent(application(world, BACK), world.person("owner"))
    code = consent.code()
    assert consent.token(code, code_verifier="x" * 48).status_code == 400
    code = consent.code()
    assert consent.token(code).status_code == 200
    assert consent.token(code).status_code == 400


def test_a_stranger_cannot_grant_anything_and_a_member_who_left_takes_the_token_along(world: World) -> None:
    new, person = application(world, BACK), world.person("manager")
    world.person("owner")
    stranger = Consent(new, User.objects.create_user("eve"))
    assert stranger.page().status_code == 403
    assert stranger.client.post("/oauth/authorize", {**stranger.asked(), "allow": "Authorize"}).status_code == 403
    own = door(world, Consent(new, person).granted(scope="read settings")["access_token"])
    membership_set(user=person, merchant=world.merchant, role="viewer")
    assert own.post("/policies", {}, status=403)["code"] == "scope_missing"
    membership_set(user=person, merchant=world.merchant, role=None)
    assert own.get("/connections", status=401)["code"] == "credentials_invalid"


def test_tokens_end_when_they_are_revoked_and_with_their_application(world: World) -> None:
    new = application(world, BACK)
    consent = Consent(new, world.person("owner"))
    told = consent.granted()
    own = door(world, told["access_token"])
    own.get("/connections")
    basic = base64.b64encode(f"{new.row.client_id}:{new.secret}".encode()).decode()
    Client().post("/oauth/revoke", {"token": told["access_token"]}, headers={"Authorization": f"Basic {basic}"})
    own.get("/connections", status=401)
    refresh = {"grant_type": "refresh_token", "refresh_token": told["refresh_token"]}
    assert token_of(new, **refresh).status_code == 400
    again = consent.granted()
    renewed = token_of(new, grant_type="refresh_token", refresh_token=again["refresh_token"]).json()
    door(world, renewed["access_token"]).get("/connections")
    application_revoke(application_pk=new.row.pk, now=clock.now())
    door(world, renewed["access_token"]).get("/connections", status=401)
    assert token_of(new, grant_type="refresh_token", refresh_token=renewed["refresh_token"]).status_code in (400, 401)
    assert consent.page().status_code >= 400


def test_a_second_person_is_another_one_whatever_either_acts_through(world: World) -> None:
    world.merchant.refund_approval_above_minor = 100
    world.merchant.save()
    ann, bob, new = world.person("manager"), world.person("support"), application(world, BACK)
    key = api_key_create(merchant=world.merchant, name="shop", scopes=EVERYTHING, created_by=ann)
    itself = application(world, created_by=ann)
    program = door(world, token_of(itself, grant_type="client_credentials").json()["access_token"])
    anns, bobs = (door(world, Consent(new, person).granted()["access_token"]) for person in (ann, bob))
    for number, asking in enumerate((anns, door(world, key.text), program)):
        invoice = world.fail(customer=f"cus_{number}", token=f"tok_{number}")
        world.wait(hours=25)
        world.charge("ok")
        refund = asking.post(f"/invoices/{invoice.public_id}/refunds", {"reason": "wish"}, status=201)["id"]
        address, reason = f"/refunds/{refund}/approve", {"reason": "seen"}
        assert program.post(address, reason, status=403)["code"] == "person_required"
        assert "somebody else" in anns.post(address, reason, status=409)["detail"]
        assert ReviewItem.objects.filter(subject_id=refund, resolved_at=None).exists()
        bobs.post(address, reason)
        assert not ReviewItem.objects.filter(subject_id=refund, resolved_at=None).exists()
        assert Transaction.objects.get(public_id=refund).jobs.count() == 1


def test_the_token_address_is_limited(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("accounts.oauth.views._PER_MINUTE", 2)
    new = application(world)
    seen = [token_of(new, grant_type="client_credentials").status_code for _ in range(3)]
    assert seen == [200, 200, 429]
