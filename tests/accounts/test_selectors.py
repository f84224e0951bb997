import pytest
from django.contrib.auth.models import AnonymousUser

from accounts.models import Merchant, User
from accounts.selectors import may, merchant_for, merchants_for, role_at
from accounts.services import membership_set, merchant_create
from accounts.states import Role
from recovery_site.common.errors import NotFound


@pytest.fixture
def acme(db: None) -> Merchant:
    return merchant_create(name="Acme").merchant


@pytest.fixture
def other(db: None) -> Merchant:
    return merchant_create(name="Other").merchant


def person(**more: object) -> User:
    return User.objects.create_user(f"user-{User.objects.count()}", **more)


def test_people_see_the_merchants_of_their_memberships(acme: Merchant, other: Merchant) -> None:
    user = person()
    assert list(merchants_for(user)) == []
    membership_set(user=user, merchant=acme, role=Role.VIEWER)
    assert list(merchants_for(user)) == [acme]
    assert merchant_for(user, acme.public_id) == acme
    with pytest.raises(NotFound):
        merchant_for(user, other.public_id)


def test_superusers_see_all_merchants_by_name(other: Merchant, acme: Merchant) -> None:
    assert list(merchants_for(person(is_superuser=True))) == [acme, other]


def test_staff_status_alone_opens_no_merchant(acme: Merchant) -> None:
    assert list(merchants_for(person(is_staff=True))) == []


def test_strangers_and_closed_accounts_see_nothing(acme: Merchant) -> None:
    closed = person(is_active=False, is_superuser=True)
    membership_set(user=closed, merchant=acme, role=Role.OWNER)
    for nobody in (AnonymousUser(), closed):
        assert list(merchants_for(nobody)) == []
        assert role_at(nobody, acme) is None
        assert not may(nobody, acme, Role.VIEWER)


@pytest.mark.parametrize(
    ("role", "allowed"),
    [
        (Role.VIEWER, [Role.VIEWER]),
        (Role.SUPPORT, [Role.VIEWER, Role.SUPPORT]),
        (Role.MANAGER, [Role.VIEWER, Role.SUPPORT, Role.MANAGER]),
        (Role.OWNER, [Role.VIEWER, Role.SUPPORT, Role.MANAGER, Role.OWNER]),
    ],
)
def test_a_role_may_do_what_the_lower_ones_may(
    acme: Merchant, other: Merchant, role: Role, allowed: list[Role]
) -> None:
    user = person()
    membership_set(user=user, merchant=acme, role=role)
    assert [one for one in Role if may(user, acme, one)] == allowed
    assert [one for one in Role if may(user, other, one)] == []


def test_superusers_act_as_owners_everywhere(acme: Merchant) -> None:
    assert role_at(person(is_superuser=True), acme) == Role.OWNER
