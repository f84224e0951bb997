"""Who may listen: a program with a key that may read, or a person who is logged in. Asked again while they listen."""

from dataclasses import dataclass

from django.conf import settings
from django.contrib.auth import get_user
from django.contrib.sessions.backends.db import SessionStore
from django.db.models import Q
from django.http import HttpRequest

from accounts.api.authentication import api_key_caller
from accounts.api.problems import RateLimited, ScopeMissing
from accounts.limits import spend
from accounts.models import ApiAccess, ApiKey, Merchant, User
from accounts.scopes import Scope
from accounts.selectors import merchants_for
from recovery_site.common import clock
from recovery_site.common.db import fit
from recovery_site.common.errors import RecoveryError

_KEY, _SESSION = "key", "session"


class Unauthenticated(RecoveryError):
    code = "credentials_invalid"
    http_status = 401


@dataclass(frozen=True, slots=True)
class Access:
    """A good credential for one merchant's events; `name` is a key's prefix or a session's key, never shown."""

    merchant_pk: int
    merchant: str
    kind: str
    name: str


def access_by_key(authorization: str) -> Access:
    """By `Authorization: Bearer <key>`, counted and written down like every call of the API.

    Raises Unauthenticated, ScopeMissing, RateLimited.
    """
    scheme, _, text = authorization.partition(" ")
    caller = api_key_caller(text.strip()) if scheme.lower() == "bearer" else None
    if caller is None:
        raise Unauthenticated("Send Authorization: Bearer with an API key that is neither expired nor revoked.")
    spent = spend(caller.credential, limit=settings.API_RATE_LIMIT, window=settings.API_RATE_WINDOW)
    error: RecoveryError | None = None
    if not spent.allowed:
        error = RateLimited(
            f"More than {spent.limit} calls in {spent.window_seconds} seconds.", retry_after=spent.reset_seconds
        )
    elif not caller.may(Scope.READ):
        error = ScopeMissing("The live stream needs the scope 'read'.")
    ApiAccess.objects.create(
        merchant=caller.merchant,
        actor=fit(ApiAccess, "actor", caller.actor),
        credential=fit(ApiAccess, "credential", caller.credential),
        method="GET",
        route="api/v1/stream",
        status_code=error.http_status if error else 200,
    )
    if error:
        raise error
    return Access(caller.merchant.pk, caller.merchant.public_id, _KEY, caller.credential.partition(":")[2])


def access_by_session(session_key: str, merchant_id: str) -> Access:
    """By the log-in of the dashboards, for one of the person's merchants. Raises Unauthenticated."""
    user = _person(session_key)
    merchant = merchants_for(user).filter(public_id=merchant_id).first() if user else None
    if merchant is None:
        raise Unauthenticated("Log in, and ask for a merchant of yours.")
    return Access(merchant.pk, merchant.public_id, _SESSION, session_key)


def access_holds(access: Access) -> bool:
    """Whether the credential is still good: a revoked key, a log-out or a lost membership ends a stream."""
    if access.kind == _KEY:
        good = Q(revoked_at=None) & (Q(expires_at=None) | Q(expires_at__gt=clock.now()))
        return ApiKey.objects.filter(good, prefix=access.name, scopes__contains=[Scope.READ.value]).exists()
    user = _person(access.name)
    mine = merchants_for(user) if user else Merchant.objects.none()
    return mine.filter(pk=access.merchant_pk).exists()


def _person(session_key: str) -> User | None:
    """Who is logged in under a session, by Django's own rules: also a changed password ends it."""
    if not session_key:
        return None
    request = HttpRequest()
    request.session = SessionStore(session_key)
    user = get_user(request)
    return user if isinstance(user, User) and user.is_active else None
