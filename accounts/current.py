"""Which merchant a request is about: `?merchant=` in the URL, else the one chosen last, else the first by
name.
"""

from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest

from accounts.models import Merchant
from accounts.selectors import merchant_for, merchants_for
from recovery_site.common.errors import NotFound

_SESSION_KEY = "merchant"
_CACHED = "_current_merchant"
_NOTED = "_noted_merchant"


def current_merchant(request: HttpRequest) -> Merchant:
    """The merchant of this request, always one the user may see; remembered in the session.

    Raises Http404 for a merchant named in the URL that is not theirs, PermissionDenied for a user without
    any.
    """
    cached: Merchant | None = getattr(request, _CACHED, None)
    if cached is not None:
        return cached
    wanted = request.GET.get("merchant", "")
    try:
        merchant = merchant_for(request.user, wanted) if wanted else _remembered(request)
    except NotFound as error:
        raise Http404(error.message) from error
    if merchant is None:
        raise PermissionDenied(
            "Your account is not a member of any merchant yet. Ask an owner to add you in the admin under Memberships."
        )
    choose_merchant(request, merchant)
    return merchant


def merchant_noted(request: HttpRequest) -> Merchant | None:
    """Whom a page was about: the admin says it for single rows (its lists are about several), the others choose one."""
    noted: Merchant | None = getattr(request, _NOTED, None)
    if noted is None and request.resolver_match is not None and request.resolver_match.app_name != "admin":
        noted = getattr(request, _CACHED, None)
    return noted


def merchant_note(request: HttpRequest, merchant: Merchant) -> None:
    """The request is about a row of this merchant; what was chosen in the session stays."""
    setattr(request, _NOTED, merchant)


def choose_merchant(request: HttpRequest, merchant: Merchant) -> None:
    """Make `merchant` the current one. The caller has checked that the user may see it (a case page has)."""
    setattr(request, _CACHED, merchant)
    if request.session.get(_SESSION_KEY) != merchant.public_id:
        request.session[_SESSION_KEY] = merchant.public_id


def _remembered(request: HttpRequest) -> Merchant | None:
    remembered = request.session.get(_SESSION_KEY)
    mine = merchants_for(request.user)
    return (mine.filter(public_id=remembered).first() if remembered else None) or mine.first()
