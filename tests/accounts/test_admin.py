"""People, keys and switches in the admin: through the services, by role, and no key is shown twice."""

import re
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client
from django.urls import reverse

from accounts.keys import key_hash
from accounts.models import ApiKey, GlobalSwitch, Membership, Merchant, OAuthApplication, User
from accounts.services import membership_set, merchant_create

pytestmark = pytest.mark.django_db
KEY = re.compile(r"rk_[0-9a-z]{10}_[0-9a-f]{64}")


@pytest.fixture
def merchant() -> Merchant:
    return merchant_create(name="Acme").merchant


def member(merchant: Merchant, role: str) -> Client:
    user = User.objects.create_user(f"{role}-{merchant.pk}", password="x", is_staff=True)
    membership_set(user=user, merchant=merchant, role=role)
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def boss() -> Client:
    client = Client()
    client.force_login(User.objects.create_superuser("boss", password="x"))
    return client


def act(client: Client, model: str, name: str, rows: list[Any], **more: str) -> Any:
    data = {"action": name, "_selected_action": [row.pk for row in rows], **more}
    return client.post(reverse(f"admin:accounts_{model}_changelist"), data, follow=True)


# --- API keys -------------------------------------------------------------------------------------


def test_a_new_key_is_on_the_page_that_creates_it_and_nowhere_else(merchant: Merchant) -> None:
    client = member(merchant, "manager")
    form = {"merchant": merchant.pk, "name": "shop", "scopes": ["read", "payments"]}
    response = client.post(reverse("admin:accounts_apikey_add"), form)
    (text,) = KEY.findall(response.content.decode())
    row = ApiKey.objects.get(name="shop")
    assert (row.key_hash, row.scopes, row.merchant) == (key_hash(text), ["payments", "read"], merchant)
    assert "no-store" in response["Cache-Control"]
    assert text not in str(response.cookies)
    for page in (
        client.get(reverse("admin:accounts_apikey_changelist")),
        client.get(reverse("admin:accounts_apikey_change", args=[row.pk])),
        client.get(reverse("admin:index")),
    ):
        assert KEY.findall(page.content.decode()) == []


def test_managers_make_keys_for_their_own_merchant_only(merchant: Merchant) -> None:
    other = merchant_create(name="Other").merchant
    client = member(merchant, "manager")
    form = {"merchant": other.pk, "name": "shop", "scopes": ["read"]}
    response = client.post(reverse("admin:accounts_apikey_add"), form)
    assert "Select a valid choice" in response.content.decode()
    assert ApiKey.objects.count() == 2
    assert member(merchant, "support").get(reverse("admin:accounts_apikey_add")).status_code == 403


def test_a_replaced_key_is_shown_once_and_the_old_one_ends(merchant: Merchant) -> None:
    client, old = member(merchant, "manager"), ApiKey.objects.get()
    assert "is shown once" in act(client, "apikey", "replace", [old]).content.decode()
    assert ApiKey.objects.count() == 1
    response = act(client, "apikey", "replace", [old], confirmed="yes", reason="rotation")
    (text,) = KEY.findall(response.content.decode())
    assert ApiKey.objects.latest("id").key_hash == key_hash(text)
    old.refresh_from_db()
    assert old.expires_at is not None
    assert LogEntry.objects.get().get_change_message() == "Replaced: rotation"


def test_a_revoked_key_stays_as_a_record(merchant: Merchant) -> None:
    key = ApiKey.objects.get()
    act(member(merchant, "manager"), "apikey", "revoke", [key], confirmed="yes", reason="left the company")
    key.refresh_from_db()
    assert key.revoked_at is not None
    assert LogEntry.objects.get().get_change_message() == "Revoked: left the company"


def test_support_may_not_touch_keys(merchant: Merchant) -> None:
    key = ApiKey.objects.get()
    act(member(merchant, "support"), "apikey", "revoke", [key], confirmed="yes", reason="r")
    key.refresh_from_db()
    assert key.revoked_at is None


# --- kill switches --------------------------------------------------------------------------------


def test_a_manager_stops_and_starts_charging_with_a_reason(merchant: Merchant) -> None:
    client = member(merchant, "manager")
    page = act(client, "merchant", "charging_off", [merchant]).content.decode()
    assert "No charge and no refund is sent any more." in page
    merchant.refresh_from_db()
    assert merchant.charging_enabled is True
    act(client, "merchant", "charging_off", [merchant], confirmed="yes", reason="wrong prices")
    merchant.refresh_from_db()
    assert merchant.charging_enabled is False
    act(client, "merchant", "charging_on", [merchant], confirmed="yes", reason="fixed")
    merchant.refresh_from_db()
    assert merchant.charging_enabled is True
    assert [entry.get_change_message() for entry in LogEntry.objects.order_by("id")] == [
        "Charging switched off: wrong prices",
        "Charging switched on: fixed",
    ]


def test_support_may_not_stop_charging(merchant: Merchant) -> None:
    act(member(merchant, "support"), "merchant", "charging_off", [merchant], confirmed="yes", reason="r")
    merchant.refresh_from_db()
    assert merchant.charging_enabled is True


def test_an_owner_renames_but_cannot_tick_the_switch_without_a_reason(merchant: Merchant) -> None:
    client = member(merchant, "owner")
    address = reverse("admin:accounts_merchant_change", args=[merchant.pk])
    client.post(address, {"name": "Acme Ltd", "timezone": "Europe/Paris", "charging_enabled": ""})
    merchant.refresh_from_db()
    assert (merchant.name, merchant.timezone, merchant.charging_enabled) == ("Acme Ltd", "Europe/Paris", True)
    member_page = member(merchant, "manager").post(address, {"name": "Mine", "timezone": "UTC"})
    assert member_page.status_code == 403


def test_an_owner_sets_from_which_sum_on_refunds_need_a_second_person(merchant: Merchant) -> None:
    owner, manager = member(merchant, "owner"), member(merchant, "manager")
    address = reverse("admin:accounts_merchant_change", args=[merchant.pk])

    def post(client: Client, limit: str) -> int:
        form = {"name": merchant.name, "timezone": merchant.timezone, "refund_approval_above_minor": limit}
        status = client.post(address, form).status_code
        merchant.refresh_from_db()
        return status

    assert (post(owner, "5000"), merchant.refund_approval_above_minor) == (302, 5000)
    assert (post(owner, "-1"), merchant.refund_approval_above_minor) == (200, 5000)
    assert (post(manager, ""), merchant.refund_approval_above_minor) == (403, 5000)
    assert (post(owner, ""), merchant.refund_approval_above_minor) == (302, None)
    said = LogEntry.objects.filter(change_message__startswith="Refunds need").order_by("pk")
    assert [entry.change_message for entry in said] == [
        "Refunds need a second person above: 5000 minor units (before: no limit)",
        "Refunds need a second person above: no limit (before: 5000 minor units)",
    ]
    assert {entry.user.username for entry in said} == {f"owner-{merchant.pk}"}


def test_the_global_switch_is_one_row_with_a_reason(boss: Client) -> None:
    add = reverse("admin:accounts_globalswitch_add")
    assert "This field is required" in boss.post(add, {"reason": ""}).content.decode()
    boss.post(add, {"reason": "incident 12"})
    switch = GlobalSwitch.objects.get()
    assert (switch.charging_enabled, switch.reason) == (False, "incident 12")
    assert boss.get(add).status_code == 403
    change = reverse("admin:accounts_globalswitch_change", args=[1])
    boss.post(change, {"charging_enabled": "on", "reason": "over"})
    switch.refresh_from_db()
    assert (switch.charging_enabled, switch.reason) == (True, "over")


# --- people ---------------------------------------------------------------------------------------


def test_a_superuser_gives_roles_beside_the_account(merchant: Merchant, boss: Client) -> None:
    ann = User.objects.create_user("ann", password="x")
    address = reverse("admin:accounts_user_change", args=[ann.pk])
    form = {
        "username": "ann",
        "is_active": "on",
        "date_joined_0": "2026-01-01",
        "date_joined_1": "00:00:00",
        "memberships-TOTAL_FORMS": "1",
        "memberships-INITIAL_FORMS": "0",
        "memberships-0-merchant": str(merchant.pk),
        "memberships-0-role": "owner",
        "memberships-0-user": str(ann.pk),
    }
    assert boss.post(address, form).status_code == 302
    membership = Membership.objects.get()
    assert (membership.user, membership.merchant, membership.role) == (ann, merchant, "owner")
    taken = {
        **form,
        "memberships-INITIAL_FORMS": "1",
        "memberships-0-id": str(membership.pk),
        "memberships-0-DELETE": "on",
    }
    page = boss.post(address, taken, follow=True).content.decode()
    assert "is the only owner of Acme; make somebody else an owner first." in page
    assert Membership.objects.filter(pk=membership.pk).exists()


def test_an_owner_changes_roles_of_the_own_merchant(merchant: Merchant) -> None:
    client = member(merchant, "owner")
    viewer = User.objects.create_user("vic", password="x")
    membership = membership_set(user=viewer, merchant=merchant, role="viewer")
    assert membership is not None
    address = reverse("admin:accounts_membership_change", args=[membership.pk])
    client.post(address, {"role": "support"})
    membership.refresh_from_db()
    assert membership.role == "support"
    assert member(merchant, "manager").post(address, {"role": "owner"}).status_code == 403
    client.post(reverse("admin:accounts_membership_delete", args=[membership.pk]), {"post": "yes"})
    assert not Membership.objects.filter(user=viewer).exists()


def test_the_last_owner_cannot_take_the_own_role(merchant: Merchant) -> None:
    client = member(merchant, "owner")
    own = Membership.objects.get()
    page = client.post(
        reverse("admin:accounts_membership_change", args=[own.pk]), {"role": "viewer"}, follow=True
    ).content.decode()
    assert "the only owner" in page
    own.refresh_from_db()
    assert own.role == "owner"


def test_roles_stand_in_the_list_of_people(merchant: Merchant, boss: Client) -> None:
    member(merchant, "support")
    page = boss.get(reverse("admin:accounts_user_changelist")).content.decode()
    assert "Support of Acme" in page
    assert "everything" in page


# --- OAuth applications ---------------------------------------------------------------------------


def test_a_manager_makes_an_application_whose_secret_is_shown_once_and_ends_it(merchant: Merchant) -> None:
    client = member(merchant, "manager")
    form = {"merchant": merchant.pk, "name": "Books", "scopes": ["read"], "redirect_uris": ""}
    page = client.post(reverse("admin:accounts_oauthapplication_add"), form).content.decode()
    row = OAuthApplication.objects.get()
    (secret,) = re.findall(r"Client secret: <code>(\w{128})</code>", page)
    assert (row.merchant, row.scopes, row.user is not None, secret in row.client_secret) == (
        merchant,
        ["read"],
        True,
        False,
    )
    listed = client.get(reverse("admin:accounts_oauthapplication_change", args=[row.pk])).content.decode()
    assert (row.client_id in listed, row.client_secret in listed) == (True, False)
    act(client, "oauthapplication", "revoke", [row], confirmed="1", reason="gone")
    row.refresh_from_db()
    assert row.revoked_at is not None
    refused = client.post(reverse("admin:accounts_oauthapplication_add"), {**form, "public": "on"}, follow=True)
    assert "give its redirect address" in refused.content.decode()
    assert member(merchant, "support").get(reverse("admin:accounts_oauthapplication_add")).status_code == 403


def test_a_merchants_zone_must_be_one(merchant: Merchant) -> None:
    client, page = member(merchant, "owner"), reverse("admin:accounts_merchant_change", args=[merchant.pk])
    told = client.post(page, {"name": "Acme", "timezone": "Mars/Base"})
    assert (told.status_code, "is no time zone" in told.content.decode()) == (200, True)
    assert client.post(page, {"name": "Acme", "timezone": "Europe/Berlin"}).status_code == 302
    merchant.refresh_from_db()
    assert merchant.timezone == "Europe/Berlin"
