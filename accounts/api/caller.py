"""Who calls the API: a program with a key, an application, or a person through one."""

from dataclasses import dataclass

from rest_framework.request import Request

from accounts.models import Merchant, User
from accounts.scopes import Scope


@dataclass(frozen=True, slots=True)
class Caller:
    """One merchant's caller. `actor` stands in the ledger and in the audit, `credential` is what calls are counted by.

    `user` is the person of an OAuth token that a person granted; programs have none.
    """

    merchant: Merchant
    actor: str
    credential: str
    scopes: frozenset[str]
    user: User | None = None

    # What Django and DRF ask of a user.
    is_authenticated = True
    is_active = True
    is_anonymous = False

    @property
    def pk(self) -> int | None:
        """The person's, for the request log."""
        return self.user.pk if self.user else None

    def may(self, scope: Scope) -> bool:
        return scope.value in self.scopes


def caller_of(request: Request) -> Caller | None:
    """Who calls, or None for a request without (good) credentials."""
    auth = getattr(request, "auth", None)
    return auth if isinstance(auth, Caller) else None
