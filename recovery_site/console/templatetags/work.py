"""The work queues' counts in the header of every admin page."""

from collections.abc import Mapping
from typing import Any

from django import template
from django.core.exceptions import PermissionDenied
from django.http import Http404

from accounts.current import current_merchant
from recovery_site.common import clock
from recovery_site.console.work import work_tabs

register = template.Library()


@register.inclusion_tag("admin/_work_counts.html", takes_context=True)
def work_counts(context: Mapping[str, Any]) -> dict[str, Any]:
    """What waits at the merchant that the person looks at; nothing for a person without one."""
    request = context.get("request")
    if request is None or not request.user.is_authenticated:
        return {"tabs": []}
    try:
        merchant = current_merchant(request)
    except (Http404, PermissionDenied):
        return {"tabs": []}
    return {"tabs": work_tabs(merchant, clock.now()), "merchant": merchant}
