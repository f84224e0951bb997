"""Scopes: what a credential may do, per address and method."""

from typing import Any

from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from accounts.api.caller import caller_of
from accounts.api.problems import ScopeMissing


class ScopePermission(BasePermission):
    """The scope that the view names for the method. Raises ScopeMissing."""

    def has_permission(self, request: Request, view: Any) -> bool:
        caller = caller_of(request)
        if caller is None:
            return False
        needed = view.scope_for(request.method or "GET")
        if not caller.may(needed):
            raise ScopeMissing(f"This needs the scope {needed.value!r}; the credentials have {_listed(caller.scopes)}.")
        return True


def _listed(scopes: frozenset[str]) -> str:
    return ", ".join(sorted(scopes)) or "none"
