"""Reads everything a story needs, in a number of queries that does not depend on how much there is to read."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from accounts.models import GlobalSwitch, User
from invoices.models import Attempt, Dispute, Event, Invoice, ReviewItem, StaffNote, Transaction
from invoices.states import TransactionKind
from recovery_site.console.story.glossary import Glossary, glossary_of
from retries.models import Case, RetryJob
from retries.states import JOB_OPEN, JOB_SLOT, CaseStatus
from tokens.budgets import AttemptMark
from tokens.models import Card, Token
from tokens.rules import RuleOverride
from tokens.selectors import TokenOption, card_marks, merchant_limits, token_options


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """The rows behind one story. `holder`: the job of another invoice that holds the customer's slot."""

    now: datetime
    invoice: Invoice
    case: Case | None
    earlier_cases: Sequence[Case]
    job: RetryJob | None
    holder: RetryJob | None
    transactions: Sequence[Transaction]
    attempts: Sequence[Attempt]
    disputes: Sequence[Dispute]
    events: Sequence[Event]
    reviews: Sequence[ReviewItem]
    notes: Sequence[StaffNote]
    tokens: Sequence[Token]
    options: Mapping[int, TokenOption]
    marks: Mapping[UUID, Sequence[AttemptMark]]
    people: Mapping[str, str]
    switch: GlobalSwitch | None
    limits: Sequence[RuleOverride]
    glossary: Glossary


def rows_gather(invoice: Invoice, *, now: datetime) -> Rows:
    """Everything about one invoice; merchant, connection and customer are best selected with it."""
    cases = list(Case.objects.filter(invoice=invoice).select_related("policy_version").order_by("-id"))
    events = list(Event.objects.filter(invoice=invoice).order_by("seq"))
    transactions = list(
        Transaction.objects.filter(invoice=invoice).select_related("refund_of", "duplicate_of").order_by("id")
    )
    reviews = list(ReviewItem.objects.filter(invoice=invoice).select_related("owner").order_by("id"))
    notes = list(StaffNote.objects.filter(invoice=invoice).order_by("-id"))
    job = (
        RetryJob.objects.filter(invoice=invoice, status__in=JOB_OPEN)
        .select_related("token__card")
        .order_by("-id")
        .first()
    )
    tokens = list(Token.objects.filter(customer_id=invoice.customer_id).select_related("card").order_by("id"))
    cards, limits = _cards(tokens), merchant_limits(invoice.merchant_id)
    case = cases[0] if cases else None
    return Rows(
        now=now,
        invoice=invoice,
        case=case,
        earlier_cases=cases[1:],
        job=job,
        holder=_holder(invoice),
        transactions=transactions,
        attempts=list(
            Attempt.objects.filter(invoice=invoice)
            .select_related("card", "token", "transaction")
            .order_by("attempted_at", "id")
        ),
        disputes=list(Dispute.objects.filter(invoice=invoice).select_related("attempt").order_by("id")),
        events=events,
        reviews=reviews,
        notes=notes,
        tokens=tokens,
        options={option.pk: option for option in _options(invoice, cards, now)},
        marks=card_marks(cards, now),
        people=people_of(_actors(events, transactions, reviews, notes, job, case)),
        switch=GlobalSwitch.objects.filter(charging_enabled=False).first(),
        limits=limits,
        glossary=glossary_of(tokens, limits),
    )


def _cards(tokens: Sequence[Token]) -> list[Card]:
    """All cards of the tokens' budget groups: what is counted together."""
    groups = {token.card.budget_group for token in tokens}
    return list(Card.objects.filter(budget_group__in=groups).order_by("pk"))


def _options(invoice: Invoice, cards: Sequence[Card], now: datetime) -> list[TokenOption]:
    return token_options(
        customer=invoice.customer,
        cards=cards,
        invoice_pk=invoice.pk,
        amount_minor=invoice.due_minor or invoice.amount_minor,
        currency=invoice.currency,
        not_before=now,
    )


def _holder(invoice: Invoice) -> RetryJob | None:
    jobs = RetryJob.objects.filter(
        customer_id=invoice.customer_id, kind=TransactionKind.CHARGE, status__in=JOB_SLOT
    ).exclude(invoice=invoice)
    return jobs.select_related("invoice").first()


def _actors(
    events: Iterable[Event],
    transactions: Iterable[Transaction],
    reviews: Iterable[ReviewItem],
    notes: Iterable[StaffNote],
    job: RetryJob | None,
    case: Case | None,
) -> set[str]:
    names = {event.actor for event in events} | {row.created_by for row in transactions}
    names |= {item.resolved_by for item in reviews} | {note.author for note in notes}
    names |= {str(event.data.get("to", "")) for event in events if event.kind == "staff.assign"}
    return names | {job.requested_by if job else "", case.paused_by if case else ""}


def people_of(actors: Iterable[str]) -> dict[str, str]:
    """Names of the people among actors such as `user:7`, in one query."""
    keys = {int(match[1]) for actor in actors if (match := re.fullmatch(r"user:([0-9]{1,18})", actor))}
    users = User.objects.filter(pk__in=keys).only("pk", "username", "first_name", "last_name")
    return {f"user:{user.pk}": user.get_full_name() or user.get_username() for user in users}


def open_case_of(rows: Rows) -> Case | None:
    """The newest case if it is open; a closed one explains the past, not the next step."""
    return rows.case if rows.case is not None and rows.case.status == CaseStatus.OPEN else None
