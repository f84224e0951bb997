"""Who may see what: the one place where membership becomes a filter."""

from django.contrib.auth.models import AnonymousUser
from django.db.models import QuerySet

from accounts.models import ApiKey, Membership, Merchant, OAuthApplication, User
from accounts.scopes import ROLE_SCOPES
from accounts.states import Role
from recovery_site.common.errors import NotFound

# What a role may do includes everything the roles before it may do.
_RANK = {role: rank for rank, role in enumerate((Role.VIEWER, Role.SUPPORT, Role.MANAGER, Role.OWNER))}


def merchants_for(user: User | AnonymousUser) -> QuerySet[Merchant]:
    """The merchants a person may see, by name: those of their memberships; a superuser sees all.

    Every queryset, autocomplete and action filters through this one (DESIGN section 14).
    """
    if not isinstance(user, User) or not user.is_active:
        return Merchant.objects.none()
    if user.is_superuser:
        return Merchant.objects.all()
    return Merchant.objects.filter(pk__in=Membership.objects.filter(user=user).values("merchant"))


def merchant_for(user: User | AnonymousUser, public_id: str) -> Merchant:
    """One of `merchants_for(user)` by public id; NotFound also for one that exists but is not theirs."""
    merchant = merchants_for(user).filter(public_id=public_id).first()
    if merchant is None:
        raise NotFound("There is no such merchant among yours.")
    return merchant


def role_at(user: User | AnonymousUser, merchant: Merchant) -> Role | None:
    """The person's role at this merchant; superusers act as owners everywhere, strangers have none."""
    if not isinstance(user, User) or not user.is_active:
        return None
    if user.is_superuser:
        return Role.OWNER
    role = Membership.objects.filter(user=user, merchant=merchant).values_list("role", flat=True).first()
    return Role(role) if role else None


def may(user: User | AnonymousUser, merchant: Merchant, at_least: Role) -> bool:
    """True if the person's role at this merchant is `at_least` or a higher one."""
    role = role_at(user, merchant)
    return role is not None and _RANK[role] >= _RANK[at_least]


def merchants_with_role(user: User | AnonymousUser, at_least: Role) -> QuerySet[Merchant]:
    """The merchants at which `may(user, merchant, at_least)` holds, as a queryset for filters."""
    if not isinstance(user, User) or not user.is_active:
        return Merchant.objects.none()
    if user.is_superuser:
        return Merchant.objects.all()
    roles = [role for role, rank in _RANK.items() if rank >= _RANK[at_least]]
    return Merchant.objects.filter(pk__in=Membership.objects.filter(user=user, role__in=roles).values("merchant"))


def scopes_of(user: User | AnonymousUser, merchant: Merchant) -> frozenset[str]:
    """What the person's role at this merchant allows; empty for strangers."""
    role = role_at(user, merchant)
    return ROLE_SCOPES[role] if role else frozenset()


def person_behind(actor: str) -> int | None:
    """The person who signs as `actor`: themselves, or whoever made the key or the application that acts."""
    kind, _, name = actor.partition(":")
    if kind == "user":
        return int(name) if name.isdigit() else None
    if kind == "key":
        return ApiKey.objects.filter(prefix=name).values_list("created_by", flat=True).first()
    if kind == "app":
        return OAuthApplication.objects.filter(client_id=name).values_list("user", flat=True).first()
    return None
