"""Tenants, keys, memberships and the kill switches."""

import logging
from datetime import UTC, datetime, timedelta

import pytest
from django.contrib.admin.models import LogEntry
from django.db import connection

from accounts.keys import key_hash, key_prefix
from accounts.models import ApiKey, GlobalSwitch, Membership, Merchant, User
from accounts.scopes import Scope
from accounts.services import (
    api_key_create,
    api_key_revoke,
    api_key_rotate,
    global_charging_set,
    membership_set,
    merchant_charging_set,
    merchant_create,
    merchant_require,
)
from accounts.states import Role
from recovery_site.common.errors import Conflict, InvalidInput, NotFound

pytestmark = pytest.mark.django_db
NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)


@pytest.fixture
def merchant() -> Merchant:
    return merchant_create(name="Acme").merchant


@pytest.fixture
def user() -> User:
    return User.objects.create_user("ann", password="x")


def test_a_new_merchant_gets_one_key_that_may_do_everything() -> None:
    new = merchant_create(name="  Acme   Ltd ", timezone="Europe/Paris")
    key = ApiKey.objects.get()
    assert (new.merchant.name, new.merchant.timezone, new.merchant.charging_enabled) == (
        "Acme Ltd",
        "Europe/Paris",
        True,
    )
    assert key.merchant == new.merchant
    assert key.scopes == sorted(Scope.values)
    assert key.expires_at is None


def test_the_key_itself_is_stored_nowhere() -> None:
    new = merchant_create(name="Acme")
    text = new.api_key.text
    mark, prefix, secret = text.split("_")
    assert (mark, prefix, len(secret)) == ("rk", new.api_key.row.prefix, 64)
    assert new.api_key.row.key_hash == key_hash(text)
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM accounts_apikey k WHERE k::text LIKE %s", [f"%{secret}%"])
        assert cursor.fetchone() == (0,)
        cursor.execute("SELECT count(*) FROM accounts_apikey k WHERE k::text LIKE %s", [f"%{prefix}%"])
        assert cursor.fetchone() == (1,)


def test_the_key_is_in_no_repr_and_no_log_line(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        new = merchant_create(name="Acme")
    secret = new.api_key.text.rpartition("_")[2]
    assert secret not in repr(new)
    assert secret not in caplog.text
    assert new.api_key.row.prefix in caplog.text


@pytest.mark.parametrize("text", ["", "rk_", "rk__x", "rk_abc", "sk_abc_def", "rk_abcdefghijklmnopqrstuvwxyz_x"])
def test_other_texts_have_no_key_prefix(text: str) -> None:
    assert key_prefix(text) == ""


def test_a_key_is_found_by_its_prefix() -> None:
    assert key_prefix("rk_0123456789_" + "f" * 64) == "0123456789"


@pytest.mark.parametrize("name", ["", "   ", "x" * 101, "a\x00b", "a\x1bb"])
def test_impossible_merchant_names_are_refused(name: str) -> None:
    with pytest.raises(InvalidInput):
        merchant_create(name=name)
    assert not Merchant.objects.exists()


def test_a_second_merchant_of_the_same_name_is_refused_and_the_transaction_goes_on(merchant: Merchant) -> None:
    with pytest.raises(Conflict, match="already a merchant named 'Acme'"):
        merchant_create(name="Acme")
    assert (Merchant.objects.count(), ApiKey.objects.count()) == (1, 1)


def test_an_unknown_time_zone_is_refused() -> None:
    with pytest.raises(InvalidInput, match="IANA"):
        merchant_create(name="Acme", timezone="Mars/Olympus")


def test_a_merchant_is_found_by_name_and_by_id(merchant: Merchant) -> None:
    assert merchant_require("Acme") == merchant
    assert merchant_require(merchant.public_id) == merchant
    with pytest.raises(NotFound, match="no merchant 'Nobody'"):
        merchant_require("Nobody")


@pytest.mark.parametrize("scopes", [[], ["everything"], ["read", "root"]])
def test_keys_need_known_scopes(merchant: Merchant, scopes: list[str]) -> None:
    with pytest.raises(InvalidInput, match="Scopes must be some of"):
        api_key_create(merchant=merchant, name="k", scopes=scopes)
    assert ApiKey.objects.count() == 1


def test_a_rotated_key_lives_on_for_the_overlap_only(merchant: Merchant) -> None:
    old = ApiKey.objects.get()
    new = api_key_rotate(api_key_pk=old.pk, now=NOW, overlap=timedelta(hours=1))
    old.refresh_from_db()
    assert old.expires_at == NOW + timedelta(hours=1)
    assert (new.row.name, new.row.scopes, new.row.expires_at) == (old.name, old.scopes, None)
    assert new.row.key_hash != old.key_hash


def test_rotation_never_lengthens_a_key(merchant: Merchant) -> None:
    end = NOW + timedelta(minutes=5)
    old = api_key_create(merchant=merchant, name="short", scopes=["read"], expires_at=end).row
    new = api_key_rotate(api_key_pk=old.pk, now=NOW)
    old.refresh_from_db()
    assert (old.expires_at, new.row.expires_at) == (end, end)


def test_an_ended_key_cannot_be_rotated(merchant: Merchant) -> None:
    key = ApiKey.objects.get()
    api_key_revoke(api_key_pk=key.pk, now=NOW)
    api_key_revoke(api_key_pk=key.pk, now=NOW + timedelta(days=1))
    key.refresh_from_db()
    assert key.revoked_at == NOW
    with pytest.raises(Conflict, match="no longer valid"):
        api_key_rotate(api_key_pk=key.pk, now=NOW)
    assert ApiKey.objects.count() == 1


def test_roles_are_given_changed_and_taken(merchant: Merchant, user: User) -> None:
    membership_set(user=user, merchant=merchant, role=Role.VIEWER)
    membership_set(user=user, merchant=merchant, role=Role.SUPPORT)
    assert list(Membership.objects.values_list("user", "merchant", "role")) == [(user.pk, merchant.pk, "support")]
    assert membership_set(user=user, merchant=merchant, role=None) is None
    assert not Membership.objects.exists()


def test_an_unknown_role_is_refused(merchant: Merchant, user: User) -> None:
    with pytest.raises(InvalidInput, match="'root' is no role"):
        membership_set(user=user, merchant=merchant, role="root")


@pytest.mark.parametrize("role", [Role.MANAGER, None])
def test_the_last_owner_stays(merchant: Merchant, user: User, role: str | None) -> None:
    membership_set(user=user, merchant=merchant, role=Role.OWNER)
    with pytest.raises(Conflict, match="only owner"):
        membership_set(user=user, merchant=merchant, role=role)
    second = User.objects.create_user("bob", password="x")
    membership_set(user=second, merchant=merchant, role=Role.OWNER)
    membership_set(user=user, merchant=merchant, role=role)
    assert Membership.objects.filter(role=Role.OWNER).get().user == second


def test_the_merchant_switch_says_who_and_why(merchant: Merchant, user: User) -> None:
    merchant_charging_set(merchant_pk=merchant.pk, enabled=False, reason="  wrong prices ", user=user)
    merchant.refresh_from_db()
    entry = LogEntry.objects.get()
    assert merchant.charging_enabled is False
    assert (entry.user, entry.object_id) == (user, str(merchant.pk))
    assert entry.get_change_message() == "Charging switched off: wrong prices"


def test_the_global_switch_has_one_row_and_says_why(user: User) -> None:
    global_charging_set(enabled=False, reason="incident 12", user=user)
    global_charging_set(enabled=True, reason="over", user=user)
    switch = GlobalSwitch.objects.get()
    assert (switch.charging_enabled, switch.reason) == (True, "over")
    assert [entry.get_change_message() for entry in LogEntry.objects.order_by("id")] == [
        "Charging switched off: incident 12",
        "Charging switched on: over",
    ]


def test_switches_want_a_reason(merchant: Merchant, user: User) -> None:
    with pytest.raises(InvalidInput, match="Say why"):
        merchant_charging_set(merchant_pk=merchant.pk, enabled=False, reason="  ", user=user)
    with pytest.raises(InvalidInput, match="Say why"):
        global_charging_set(enabled=False, reason="", user=user)
    merchant.refresh_from_db()
    assert merchant.charging_enabled is True
    assert not LogEntry.objects.exists()
