"""What messages did: the funnel, what recoveries are put down to, and the newest rows of the outbox."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from django.db.models import Count, Q, Sum

from accounts.models import Merchant
from analytics.period import Period
from notifications.attribution import Source
from notifications.models import CaseAttribution, Message
from notifications.states import MessageStatus
from retries.policy import Audience

PAGE = 50


@dataclass(frozen=True, slots=True)
class Funnel:
    """One kind of message sent in the period: how many went how far. `delivered` are those that did not bounce."""

    template: str
    sent: int
    bounced: int
    clicked: int
    updated: int
    paid: int

    @property
    def delivered(self) -> int:
        return self.sent - self.bounced


@dataclass(frozen=True, slots=True)
class SourceTotals:
    """Recoveries of the period put down to one source: cases, and money per currency."""

    source: Source
    cases: int
    amounts: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class OutboxPage:
    """Messages by descending primary key; `older_than` is the cursor of the next page, None at the end."""

    messages: Sequence[Message]
    older_than: int | None


def message_funnel(merchant: Merchant, period: Period) -> list[Funnel]:
    """Per kind of message, most sent first; one query."""
    rows = (
        Message.objects.filter(merchant=merchant, sent_at__gte=period.start, sent_at__lte=period.end)
        .values("template")
        .annotate(
            sent=Count("id", distinct=True),
            bounced=Count("id", distinct=True, filter=Q(status=MessageStatus.BOUNCED)),
            clicked=Count("id", distinct=True, filter=Q(clicked_at__isnull=False)),
            updated=Count("id", distinct=True, filter=Q(acted_at__isnull=False)),
            paid=Count("recoveries", distinct=True),
        )
        .order_by("-sent", "template")
    )
    return [Funnel(**row) for row in rows]


def funnel_total(rows: Sequence[Funnel]) -> Funnel:
    """All kinds together."""
    return Funnel(
        template="",
        sent=sum(row.sent for row in rows),
        bounced=sum(row.bounced for row in rows),
        clicked=sum(row.clicked for row in rows),
        updated=sum(row.updated for row in rows),
        paid=sum(row.paid for row in rows),
    )


def recovery_sources(merchant: Merchant, period: Period) -> list[SourceTotals]:
    """Every source, also those that brought nothing; one query."""
    rows = (
        CaseAttribution.objects.filter(merchant=merchant, recovered_at__gte=period.start, recovered_at__lte=period.end)
        .values("source", "currency")
        .annotate(cases=Count("id"), minor=Sum("amount_minor"))
        .order_by("source", "currency")
    )
    cases: dict[str, int] = {}
    amounts: dict[str, dict[str, int]] = {}
    for row in rows:
        cases[row["source"]] = cases.get(row["source"], 0) + row["cases"]
        amounts.setdefault(row["source"], {})[row["currency"]] = row["minor"]
    return [SourceTotals(source, cases.get(source, 0), amounts.get(source, {})) for source in Source]


def outbox_page(merchant: Merchant, *, status: str = "", older_than: int | None = None, size: int = PAGE) -> OutboxPage:
    """The merchant's messages to customers, newest first; without a status, those only planned are left out."""
    found = Message.objects.filter(merchant=merchant, audience=Audience.CUSTOMER).select_related("invoice", "customer")
    if status in MessageStatus.values:
        found = found.filter(status=status)
    else:
        found = found.exclude(status__in=(MessageStatus.PLANNED, MessageStatus.CANCELED))
    if older_than is not None:
        found = found.filter(pk__lt=older_than)
    rows = list(found.defer("html").order_by("-pk")[: size + 1])
    shown = rows[:size]
    return OutboxPage(shown, shown[-1].pk if len(rows) > size else None)


def message_one(merchant: Merchant, public_id: str) -> Message | None:
    """One message of the merchant with what its page shows."""
    messages = Message.objects.select_related("invoice", "customer", "case", "attempt", "link")
    return messages.filter(merchant=merchant, public_id=public_id).first()
