"""What an API key or an OAuth token may be used for, and what each role may hand on to an application."""

from collections.abc import Mapping
from typing import Final

from django.db import models

from accounts.states import Role


class Scope(models.TextChoices):
    READ = "read", "Read everything of the merchant"
    PAYMENTS = "payments", "Start, retry and cancel payments"
    REFUNDS = "refunds", "Refund payments"
    SETTINGS = "settings", "Change connections, policies and endpoints"


# As in the console: support acts on payments and refunds, managers change settings.
ROLE_SCOPES: Final[Mapping[Role, frozenset[str]]] = {
    Role.VIEWER: frozenset({Scope.READ.value}),
    Role.SUPPORT: frozenset({Scope.READ.value, Scope.PAYMENTS.value, Scope.REFUNDS.value}),
    Role.MANAGER: frozenset(Scope.values),
    Role.OWNER: frozenset(Scope.values),
}
