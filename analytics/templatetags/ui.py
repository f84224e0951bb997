"""Template vocabulary of the product: badges, money, times, icons, the navigation.

`{% load ui %}` gives
  {% badge "invoice" invoice.status %}      state with its tone; kinds: invoice transaction attempt dispute
  case job step token inbox
  {% category_badge case.category %}        decline category with its chart colour
  {{ minor|money:currency }}                $12.34
  {% when value %} {% day value now %} {% ago value now %}      <time> in the active time zone / relative to `now`
  {% icon "bell" %}                         decorative inline SVG (analytics/icons.py)
  {% define "revenue_at_risk" %}            the definition beside a figure, as a disclosure
  {% shell_nav %} {% merchant_switcher %} {% user_menu %}   used by base.html only
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django import template
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

from accounts.current import current_merchant
from accounts.models import GlobalSwitch, Merchant
from accounts.selectors import merchants_for
from analytics.charts import DASH
from analytics.definitions import DEFINITIONS, Definition
from analytics.icons import ICONS
from analytics.selectors.shell import ShellCounts, shell_counts
from analytics.words import category_name, state_label, state_tone
from recovery_site.common.money import format_money

register = template.Library()

# More than this many merchants are found by name in the admin, not in a drop-down.
_SWITCHER_LIMIT = 100
# Pages that stay in view when the merchant changes; their filters belong to the merchant before.
_KEEPS = ("dashboard-invoices", "dashboard-messages", "dashboard-alerts", "console:queue", "console:work")


@register.simple_tag
def badge(kind: str, state: str) -> SafeString:
    """A state as a coloured word."""
    return format_html(
        '<span class="badge" data-tone="{}">{}</span>', state_tone(kind, state), state_label(kind, state)
    )


@register.simple_tag
def category_badge(category: str) -> SafeString:
    """A decline category with the colour it has in the charts."""
    return format_html(
        '<span class="badge" data-category="{}">{}</span>',
        category.lower() or "other",
        category_name(category),
    )


@register.filter
def category_label(category: str) -> str:
    return category_name(category)


@register.filter
def money(minor: int | None, currency: str) -> str:
    """Minor units for people; nothing for nothing."""
    return "" if minor is None else format_money(minor, currency)


@register.simple_tag
def icon(name: str) -> SafeString:
    """A line icon; decoration only, the words stand beside it."""
    return ICONS[name]


@register.simple_tag
def when(value: datetime | None) -> SafeString | str:
    """`Fri 21 Nov, 14:05` in the active time zone, the full instant on hover."""
    if value is None:
        return DASH
    local = timezone.localtime(value)
    return format_html(
        '<time datetime="{}" title="{}">{}</time>',
        value.isoformat(timespec="seconds"),
        local.strftime("%A %d %B %Y, %H:%M:%S %Z"),
        f"{local:%a} {local.day} {local:%b, %H:%M}",
    )


@register.simple_tag
def day(value: datetime | None, now: datetime) -> SafeString | str:
    """`21 Nov` in the active time zone, with the year if it is not this one; the full instant on hover."""
    if value is None:
        return DASH
    local = timezone.localtime(value)
    year = "" if local.year == timezone.localtime(now).year else f" {local.year}"
    return format_html(
        '<time datetime="{}" title="{}">{}</time>',
        value.isoformat(timespec="seconds"),
        local.strftime("%A %d %B %Y, %H:%M:%S %Z"),
        f"{local.day} {local:%b}{year}",
    )


@register.simple_tag
def ago(value: datetime | None, now: datetime) -> SafeString | str:
    """`3 min ago` or `in 2 h`, seen from `now`, the full instant on hover."""
    if value is None:
        return DASH
    return format_html(
        '<time datetime="{}" title="{}">{}</time>',
        value.isoformat(timespec="seconds"),
        timezone.localtime(value).strftime("%A %d %B %Y, %H:%M:%S %Z"),
        distance(value, now),
    )


def distance(value: datetime, now: datetime) -> str:
    """The time between two instants in its largest unit, rounded down."""
    seconds = int((value - now).total_seconds())
    size = abs(seconds)
    if size < 60:
        return "just now" if seconds <= 0 else "in under a minute"
    for limit, unit, name in ((3600, 60, "min"), (2 * 86400, 3600, "h"), (None, 86400, "days")):
        if limit is None or size < limit:
            amount = f"{size // unit} {name}"
            break
    return f"in {amount}" if seconds > 0 else f"{amount} ago"


def _request(context: Mapping[str, Any]) -> HttpRequest | None:
    request = context.get("request")
    return request if request is not None and getattr(request, "user", None) is not None else None


def _merchant(request: HttpRequest | None) -> Merchant | None:
    """The current merchant, or none: error pages keep the shell for a merchant that may not be seen."""
    if request is None or not request.user.is_authenticated:
        return None
    try:
        return current_merchant(request)
    except (Http404, PermissionDenied):
        return None


@register.inclusion_tag("components/charging_off.html", takes_context=True)
def charging_off(context: Mapping[str, Any]) -> dict[str, Any]:
    """Says on every page that nothing is sent, while that is so."""
    request = _request(context)
    merchant = _merchant(request)
    switch = GlobalSwitch.objects.filter(charging_enabled=False).first() if merchant else None
    return {"merchant": merchant, "switch": switch, "is_staff": bool(request and request.user.is_staff)}


@register.inclusion_tag("components/definition.html")
def define(key: str) -> dict[str, Definition]:
    """The definition of a figure; KeyError for a figure that has none."""
    return {"definition": DEFINITIONS[key]}


@dataclass(frozen=True, slots=True)
class NavItem:
    """A link of the main navigation; `count` waits for people and is called `noun`. `also`: pages it stands for too."""

    url: str
    icon: str
    label: str
    count: str = ""
    noun: str = ""
    also: str = ""

    def matching(self, path: str) -> int:
        """How much of the path it stands for: the dashboard's address is a prefix of its sub-pages'."""
        own = [address for address in (self.url, self.also) if address and path.startswith(address)]
        return max(map(len, own), default=0)


@register.inclusion_tag("components/nav.html", takes_context=True)
def shell_nav(context: Mapping[str, Any]) -> dict[str, Any]:
    """The main navigation with what waits for people; the page in view is marked."""
    request = _request(context)
    merchant = _merchant(request)
    counts = shell_counts(merchant) if merchant else ShellCounts(0, 0)
    path = request.path if request else ""
    items = [
        NavItem(reverse("dashboard"), "chart", "Dashboard"),
        NavItem(reverse("dashboard-invoices"), "invoice", "Invoices", also="/console/invoices/"),
        NavItem(
            reverse("console:work"),
            "inbox",
            "Work queues",
            counts.reviews_text,
            "waiting",
            also=reverse("console:queue"),
        ),
        NavItem(reverse("dashboard-messages"), "mail", "Messages"),
        NavItem(
            reverse("dashboard-alerts"), "bell", "Alerts", counts.alerts_text, "unread", also="/dashboard/incidents/"
        ),
    ]
    if request and request.user.is_staff:
        items.append(NavItem(reverse("admin:index"), "settings", "Admin"))
    current = max(items, key=lambda item: item.matching(path), default=None)
    return {"items": items, "current": current if current and current.matching(path) else None}


@register.inclusion_tag("components/merchant_switcher.html", takes_context=True)
def merchant_switcher(context: Mapping[str, Any]) -> dict[str, Any]:
    """The merchants of the user's memberships; only the current one where there is no choice."""
    request = _request(context)
    merchant = _merchant(request)
    if request is None or merchant is None:
        return {"merchant": None}
    merchants = list(merchants_for(request.user)[: _SWITCHER_LIMIT + 1])
    return {
        "merchant": merchant,
        "merchants": merchants[:_SWITCHER_LIMIT],
        "more": len(merchants) > _SWITCHER_LIMIT,
        "url": request.path if request.path in {reverse(name) for name in _KEEPS} else reverse("dashboard"),
    }


@register.inclusion_tag("components/user_menu.html", takes_context=True)
def user_menu(context: Mapping[str, Any]) -> dict[str, Any]:
    """Who is logged in, the theme, the way out."""
    request = _request(context)
    return {"user": request.user if request else None, "request": request}
