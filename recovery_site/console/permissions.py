"""Which invoices and questions exist for a person, and what they may do there."""

from django.contrib.auth.models import AnonymousUser
from django.core.exceptions import PermissionDenied
from django.http import Http404

from accounts.models import Merchant, User
from accounts.selectors import may, merchants_for
from accounts.states import Role
from invoices.models import Connection, Invoice, ReviewItem


def invoice_for(user: User | AnonymousUser, public_id: str) -> Invoice:
    """The invoice with merchant, connection and customer.

    Http404 also for one of a merchant that is not theirs, so that nobody can tell foreign ids from invented ones.
    """
    invoice = (
        Invoice.objects.select_related("merchant", "connection__gate", "customer", "assignee")
        .filter(public_id=public_id, merchant__in=merchants_for(user))
        .first()
    )
    if invoice is None:
        raise Http404("There is no such invoice.")
    return invoice


def review_for(user: User | AnonymousUser, public_id: str) -> ReviewItem:
    """The question with its merchant and invoice; Http404 as above."""
    item = (
        ReviewItem.objects.select_related("merchant", "invoice", "owner")
        .filter(public_id=public_id, merchant__in=merchants_for(user))
        .first()
    )
    if item is None:
        raise Http404("There is no such question.")
    return item


def connection_for(user: User | AnonymousUser, public_id: str) -> Connection:
    """The connection with its merchant and gateway; Http404 as above."""
    connection = (
        Connection.objects.select_related("merchant", "gateway")
        .filter(public_id=public_id, merchant__in=merchants_for(user))
        .first()
    )
    if connection is None:
        raise Http404("There is no such connection.")
    return connection


def may_act(user: User | AnonymousUser, merchant: Merchant) -> bool:
    """Support and above may retry, pause, cancel and answer; viewers read."""
    return may(user, merchant, Role.SUPPORT)


def require_acting(user: User | AnonymousUser, merchant: Merchant) -> User:
    """The user, or PermissionDenied with a sentence that says whom to ask."""
    if not isinstance(user, User) or not may_act(user, merchant):
        raise PermissionDenied(f"Viewers of {merchant} may read but not act; ask an owner for the support role.")
    return user


def require_managing(user: User | AnonymousUser, merchant: Merchant) -> User:
    """The user, or PermissionDenied: credentials are for managers and owners."""
    if not isinstance(user, User) or not may(user, merchant, Role.MANAGER):
        raise PermissionDenied(f"Only managers and owners of {merchant} may connect accounts; ask one of them.")
    return user
