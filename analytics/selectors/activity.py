"""What happened lately and what comes next, in words."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from accounts.models import Merchant
from analytics.words import category_name
from invoices.models import Event
from recovery_site.common.money import format_money
from retries.models import RetryJob
from retries.states import CaseStatus, JobStatus

_SHOWN = 8
# So many of the newest events are read to find those worth showing; book-keeping events fill the rest.
_READ = 150
_BANDS = 10


@dataclass(frozen=True, slots=True)
class Activity:
    """One line: what happened to which invoice. `tone` as in static/css/theme.css."""

    text: str
    tone: str
    invoice_public_id: str
    invoice: str
    customer: str
    at: datetime


def recent_activity(merchant: Merchant) -> list[Activity]:
    """One bounded query over the newest events of the merchant."""
    events = (
        Event.objects.filter(merchant=merchant)
        .select_related("invoice__customer")
        .only(
            "kind",
            "data",
            "to_state",
            "occurred_at",
            "invoice__public_id",
            "invoice__number",
            "invoice__provider_invoice_id",
            "invoice__currency",
            "invoice__customer__name",
            "invoice__customer__connector_customer_id",
        )
        .order_by("-id")[:_READ]
    )
    found: list[Activity] = []
    for event in events:
        line = event_line(event.kind, event.data, event.to_state, event.invoice.currency)
        if line is None:
            continue
        text, tone = line
        found.append(
            Activity(
                text=text,
                tone=tone,
                invoice_public_id=event.invoice.public_id,
                invoice=str(event.invoice),
                customer=str(event.invoice.customer),
                at=event.occurred_at,
            )
        )
        if len(found) == _SHOWN:
            break
    return found


_PLAIN: Mapping[str, tuple[str, str]] = {
    "attempt.lose_track": ("No answer: nobody knows yet whether it was charged", "violet"),
    "attempt.wait": ("Accepted, waiting for the bank to settle", "warning"),
    "attempt.late_success": ("A charge that counted as failed succeeded after all", "success"),
    "invoice.cancel": ("Invoice canceled", "neutral"),
    "invoice.reverse": ("The payment was taken back", "danger"),
    "invoice.begin_refund": ("Refund started", "violet"),
    "invoice.finish_refund": ("Refunded", "violet"),
    "dispute.opened": ("The customer disputes a payment", "danger"),
    "dispute.win": ("Dispute won", "success"),
    "dispute.lose": ("Dispute lost", "danger"),
    "review.opened": ("A question for staff", "warning"),
    "review.resolved": ("A question was answered", "info"),
    "staff.retry": ("Staff booked a retry", "info"),
    "staff.pause": ("Staff paused the retries", "neutral"),
    "staff.resume": ("Staff resumed the retries", "info"),
    "staff.cancel": ("Staff canceled the invoice", "neutral"),
    "staff.resolve": ("Staff resolved an unknown charge", "info"),
}


def event_line(kind: str, data: Mapping[str, Any], to_state: str, currency: str) -> tuple[str, str] | None:
    """Words and tone of an event worth telling, None for book-keeping. Pure."""
    if kind in _PLAIN:
        return _PLAIN[kind]
    if kind in ("attempt.decline", "attempt.error"):
        code = str(data.get("raw_code") or "")
        reason = category_name(str(data.get("category") or ""))
        told = f" ({code})" if code and code.upper() != data.get("category") else ""
        return f"Charge failed: {reason.lower()}{told}", "danger"
    if kind == "case.closed":
        if to_state == CaseStatus.RECOVERED:
            return f"Recovered {_money(data, 'amount_minor', currency)}", "success"
        return f"Recovery ended: {CaseStatus(to_state).label.lower()}", "neutral"
    if kind.startswith("alert."):
        return str(data.get("text") or "Alert"), "danger"
    return None


def _money(data: Mapping[str, Any], key: str, currency: str) -> str:
    minor = data.get(key)
    return format_money(minor, str(data.get("currency") or currency)) if isinstance(minor, int) else "an amount"


def upcoming_retries(merchant: Merchant) -> list[RetryJob]:
    """The next booked retries, soonest first: the first of each band by the due index, then one query for the
    rows.
    """
    bands = [
        RetryJob.objects.filter(merchant=merchant, status=JobStatus.SCHEDULED, band=band)
        .order_by("due_at")
        .values_list("pk", "due_at")[:_SHOWN]
        for band in range(_BANDS)
    ]
    first = sorted(bands[0].union(*bands[1:], all=True), key=lambda row: (row[1], row[0]))[:_SHOWN]
    return list(
        RetryJob.objects.filter(pk__in=[pk for pk, _ in first])
        .select_related("invoice__customer", "transaction", "case", "token__card")
        .order_by("due_at", "pk")
    )
