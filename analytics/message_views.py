"""Pages about messages: the funnel with what recoveries are put down to, the outbox, one message."""

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.http import require_safe

from accounts.models import Merchant
from accounts.selectors import may
from accounts.states import Role
from analytics.period import LENGTHS, length_from, period_of, zone_of
from analytics.selectors.messages import (
    funnel_total,
    message_funnel,
    message_one,
    outbox_page,
    recovery_sources,
)
from analytics.views import cursor_of, member_page
from notifications.frames import framing_page, mail_frame
from notifications.links import link_url
from notifications.models import Message
from notifications.rendering import with_links
from notifications.states import MessageStatus
from recovery_site.common import clock
from recovery_site.common.address import address_check

SOURCE_NAMES = {
    "retry": "Automatic retry",
    "message": "Message",
    "card_update": "Card update",
    "staff": "Staff",
    "outside": "Outside",
}


@member_page
@require_safe
def messages(request: HttpRequest, merchant: Merchant) -> HttpResponse:
    """Funnel, sources and the newest rows of the outbox; filters are the address."""
    now = clock.now()
    period = period_of(length_from(request.GET.get("days", "")), now, zone_of(merchant.timezone))
    status = request.GET.get("status", "")
    status = status if status in MessageStatus.values else ""
    before = cursor_of(request.GET.get("before", ""))
    address_check(request, days=period.days, status=status, before=before)
    rows = message_funnel(merchant, period)
    page = outbox_page(merchant, status=status, older_than=before)
    base = f"{reverse('dashboard-messages')}?days={period.days}" + (f"&status={status}" if status else "")
    context = {
        "merchant": merchant,
        "now": now,
        "period": period,
        "lengths": LENGTHS,
        "funnel": rows,
        "total": funnel_total(rows),
        "sources": [(SOURCE_NAMES[one.source], one) for one in recovery_sources(merchant, period)],
        "page": page,
        "status": status,
        "statuses": MessageStatus.choices,
        "newer_url": base if before else "",
        "older_url": f"{base}&before={page.older_than}" if page.older_than else "",
    }
    return render(request, "analytics/messages.html", context)


def _one(merchant: Merchant, public_id: str) -> Message:
    message = message_one(merchant, public_id)
    if message is None:
        raise Http404("There is no such message.")
    return message


@member_page
@require_safe
@framing_page
def message(request: HttpRequest, merchant: Merchant, public_id: str) -> HttpResponse:
    """One message with its whole life; the payer's link only for those who may act."""
    row = _one(merchant, public_id)
    link = row.link if may(request.user, merchant, Role.SUPPORT) else None
    context = {
        "merchant": merchant,
        "now": clock.now(),
        "row": row,
        "text": with_links(row.text, link="[link]", unsubscribe="[link]"),
        "payer_url": link_url(link.public_id) if link else "",
    }
    return render(request, "analytics/message.html", context)


@member_page
@require_safe
def message_html(request: HttpRequest, merchant: Merchant, public_id: str) -> HttpResponse:
    """The HTML part, for the frame on the message's page; its links lead nowhere."""
    return mail_frame(request, with_links(_one(merchant, public_id).html, link="#", unsubscribe="#"))
