"""The staff queue: open questions of one merchant, oldest first, a page at a time without counting."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from django.db.models import Q, QuerySet
from django.utils.dateparse import parse_datetime

from accounts.models import Merchant
from invoices.models import Attempt, Invoice, ReviewItem
from invoices.states import ReviewKind
from recovery_site.console.answers import Answer, answers_of, guidance
from recovery_site.console.sentences import actor_name
from recovery_site.console.story.build import facts_in_words
from recovery_site.console.story.gather import people_of
from recovery_site.console.words import card_label, duration_text, plain

_PAGE = 25


@dataclass(frozen=True, slots=True)
class Filter:
    """What of the queue is wanted: `show` is open, mine, free or answered; `kind` one kind or empty for all;
    `after` is the place (instant and key) of the last question of the page before."""

    show: str = "open"
    kind: str = ""
    after: tuple[datetime, int] | None = None

    @classmethod
    def read(cls, query: Mapping[str, str]) -> "Filter":
        """From a URL's query; whatever makes no sense counts as not said (`address_check` tells)."""
        show, kind = query.get("show", ""), query.get("kind", "")
        return cls(
            show=show if show in ("mine", "free", "answered") else "open",
            kind=kind if kind in ReviewKind.values else "",
            after=_place(query.get("after", "")),
        )


def _place(text: str) -> tuple[datetime, int] | None:
    instant, _, key = text.rpartition("~")
    try:
        at = parse_datetime(instant)
    except ValueError:
        return None
    if at is None or at.tzinfo is None or not (key.isascii() and key.isdigit() and len(key) < 19):
        return None
    return at, int(key)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One item of the queue as a person reads it."""

    public_id: str
    kind: str
    kind_label: str
    guidance: str
    subject_id: str
    invoice_public_id: str
    invoice_title: str
    invoice_status: str
    amount_minor: int
    currency: str
    customer: str
    facts: tuple[tuple[str, str], ...]
    attempt: str
    answers: Sequence[Answer]
    owner: str
    mine: bool
    opened_at: datetime
    age: str
    resolved_at: datetime | None
    resolution: str
    resolved_by: str
    note: str


@dataclass(frozen=True, slots=True)
class QueuePage:
    """`older` is the place from which the next page goes on, empty on the last one."""

    now: datetime
    questions: Sequence[Question]
    kinds: Sequence[tuple[str, str]]
    following: str


def queue_page(*, merchant: Merchant, user_pk: int | None, wanted: Filter, now: datetime) -> QueuePage:
    """One page of the merchant's queue in three queries: questions, attempts, people."""
    items = list(_items(merchant, user_pk, wanted)[: _PAGE + 1])
    shown = items[:_PAGE]
    questions = _questions(shown, user_pk, now)
    following = ""
    if len(items) > _PAGE:
        last = shown[-1]
        place = last.resolved_at or last.opened_at
        following = f"{place.isoformat()}~{last.pk}"
    kinds = [(kind.value, str(kind.label)) for kind in ReviewKind]
    return QueuePage(now=now, questions=questions, kinds=kinds, following=following)


def invoice_questions(invoice: Invoice, *, user_pk: int | None, now: datetime) -> list[Question]:
    """The open questions about one invoice, oldest first."""
    items = ReviewItem.objects.filter(invoice=invoice, resolved_at__isnull=True)
    return _questions(list(items.select_related("invoice__customer", "owner").order_by("opened_at")), user_pk, now)


def _items(merchant: Merchant, user_pk: int | None, wanted: Filter) -> QuerySet[ReviewItem]:
    items = ReviewItem.objects.filter(merchant=merchant).select_related("invoice__customer", "owner")
    if wanted.kind:
        items = items.filter(kind=wanted.kind)
    if wanted.show == "answered":
        items = items.filter(resolved_at__isnull=False)
        if wanted.after:
            at, key = wanted.after
            items = items.filter(Q(resolved_at__lt=at) | Q(resolved_at=at, pk__lt=key))
        return items.order_by("-resolved_at", "-pk")
    items = items.filter(resolved_at__isnull=True)
    if wanted.show == "mine":
        items = items.filter(owner_id=user_pk)
    elif wanted.show == "free":
        items = items.filter(owner__isnull=True)
    if wanted.after:
        at, key = wanted.after
        items = items.filter(Q(opened_at__gt=at) | Q(opened_at=at, pk__gt=key))
    return items.order_by("opened_at", "pk")


def _questions(items: Sequence[ReviewItem], user_pk: int | None, now: datetime) -> list[Question]:
    invoices = {item.invoice_id for item in items}
    attempts = {
        attempt.public_id: attempt
        for attempt in Attempt.objects.filter(
            invoice__in=invoices, public_id__in={item.subject_id for item in items}
        ).select_related("card")
    }
    people = people_of(item.resolved_by for item in items)
    return [_question(item, attempts, people, user_pk, now) for item in items]


def _question(
    item: ReviewItem,
    attempts: Mapping[str, Attempt],
    people: Mapping[str, str],
    user_pk: int | None,
    now: datetime,
) -> Question:
    invoice = item.invoice
    return Question(
        public_id=item.public_id,
        kind=item.kind,
        kind_label=item.get_kind_display(),
        guidance=guidance(item.kind),
        subject_id=item.subject_id,
        invoice_public_id=invoice.public_id if invoice else "",
        invoice_title=str(invoice) if invoice else "",
        invoice_status=invoice.status if invoice else "",
        amount_minor=invoice.amount_minor if invoice else 0,
        currency=invoice.currency if invoice else "",
        customer=str(invoice.customer) if invoice else "",
        facts=facts_in_words(item.facts, now),
        attempt=_attempt_words(attempts.get(item.subject_id)),
        answers=answers_of(item) if item.resolved_at is None else [],
        owner=(item.owner.get_full_name() or item.owner.get_username()) if item.owner else "",
        mine=item.owner_id is not None and item.owner_id == user_pk,
        opened_at=item.opened_at,
        age=duration_text(now - item.opened_at) if now > item.opened_at else "just now",
        resolved_at=item.resolved_at,
        resolution=plain(item.resolution),
        resolved_by=actor_name(item.resolved_by, people) if item.resolved_by else "",
        note=item.note,
    )


def _attempt_words(attempt: Attempt | None) -> str:
    if attempt is None:
        return ""
    card = f" on {card_label(attempt.card.network, attempt.card.last4)}" if attempt.card else ""
    return f"Attempt {attempt.number}{card}, reference {attempt.public_id}"
