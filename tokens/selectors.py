"""Which tokens a customer has, and from when each may be tried: PostgreSQL's answer, the one that counts."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from django.conf import settings

from invoices.models import Attempt, Customer
from invoices.states import AttemptStatus, TransactionKind
from tokens.budgets import AttemptMark, Budget, budget
from tokens.models import Card, Token
from tokens.rules import Rule, load_rules
from tokens.states import TokenStatus

# The longest card window is 30 days or a calendar month; a day on top for clocks that differ.
_CARD_HORIZON = timedelta(days=32)


@dataclass(frozen=True, slots=True)
class TokenOption:
    """One token now. `allowed_at`: the earliest instant its card's budget and waits allow, not before `not_before`.

    `usable` is false for tokens that no machine may charge again as they are; `obstacle` says why in words.
    """

    pk: int
    public_id: str
    card_pk: int
    label: str
    network: str
    usable: bool
    obstacle: str
    allowed_at: datetime
    limit_text: str
    remaining: int | None
    is_default: bool
    last_success_at: datetime | None
    last_attempt_at: datetime | None


def network_rules(network: str) -> tuple[Rule, ...]:
    """The rules of a network over all dates, with the chosen Visa limit."""
    return load_rules().for_network(network, visa_limit=settings.VISA_RETRY_LIMIT)


def token_options(
    *,
    customer: Customer,
    cards: Sequence[Card],
    invoice_pk: int,
    amount_minor: int,
    currency: str,
    not_before: datetime,
    besides: int | None = None,
) -> list[TokenOption]:
    """Every token of the customer, best first: usable, earliest allowed, last to succeed, default, oldest.

    `cards` as returned by `cards_lock` (all cards of all budget groups): under that lock the answer stays true.
    `besides`: an attempt that is not counted, because it is the one in question.
    Three queries whatever the number of tokens.
    """
    tokens = list(Token.objects.filter(customer=customer))
    marks = card_marks(cards, not_before, besides)
    invoice_marks = _invoice_marks(invoice_pk, besides)
    by_pk = {card.pk: card for card in cards}
    options = []
    for token in tokens:
        card = by_pk[token.card_id]
        group = marks[card.budget_group]
        state = budget(group, network_rules(card.network), not_before, amount_minor, currency, invoice_marks)
        options.append(_option(token, card, state, group, not_before))
    return sorted(options, key=_rank)


def _option(token: Token, card: Card, state: Budget, group: Sequence[AttemptMark], not_before: datetime) -> TokenOption:
    obstacle = ""
    if token.status == TokenStatus.REMOVED:
        obstacle = "was removed at the provider"
    elif card.stopped_at is not None:
        obstacle = f"was stopped by its network ({card.stop_code})"
    elif token.status == TokenStatus.DECLINED:
        obstacle = f"was declined for good ({token.decline_code or 'no code'})"
    allowed_at, limit_text = state.next_allowed_at, ""
    if allowed_at > not_before and state.binding_rule is not None:
        limit_text = str(state.binding_rule)
    if card.wait_until is not None and card.wait_until > allowed_at:
        allowed_at, limit_text = card.wait_until, "the network asked to wait"
    return TokenOption(
        pk=token.pk,
        public_id=token.public_id,
        card_pk=card.pk,
        label=str(card),
        network=card.network,
        usable=not obstacle,
        obstacle=obstacle,
        allowed_at=allowed_at,
        limit_text=limit_text,
        remaining=state.remaining,
        is_default=token.is_default,
        last_success_at=token.last_success_at,
        last_attempt_at=max((mark.at for mark in group), default=None),
    )


def _rank(option: TokenOption) -> tuple[bool, datetime, float, bool, int]:
    """Order of preference; ties are broken by age, so that it is the same everywhere."""
    success = -option.last_success_at.timestamp() if option.last_success_at else 0.0
    return not option.usable, option.allowed_at, success, not option.is_default, option.pk


def card_marks(cards: Iterable[Card], now: datetime, besides: int | None = None) -> dict[UUID, list[AttemptMark]]:
    """Counting attempts per budget group, oldest first."""
    groups = {card.pk: card.budget_group for card in cards}
    network = {card.pk: card.network for card in cards}
    marks: dict[UUID, list[AttemptMark]] = defaultdict(list)
    rows = (
        Attempt.objects.filter(
            card_id__in=groups, kind=TransactionKind.CHARGE, counts=True, attempted_at__gt=now - _CARD_HORIZON
        )
        .exclude(pk=besides or 0)
        .order_by("attempted_at")
        .values_list("card_id", "attempted_at", "amount_minor", "currency", "status", "returned_at")
    )
    for card_id, at, amount_minor, currency, status, returned_at in rows:
        marks[groups[card_id]].append(
            AttemptMark(at, amount_minor, currency, _declined(status, returned_at), network[card_id])
        )
    return marks


def _invoice_marks(invoice_pk: int, besides: int | None) -> list[AttemptMark]:
    rows = (
        Attempt.objects.filter(invoice_id=invoice_pk, kind=TransactionKind.CHARGE, counts=True)
        .exclude(pk=besides or 0)
        .values_list("attempted_at", "amount_minor", "currency", "status", "returned_at", "card__network")
    )
    return [
        AttemptMark(at, amount_minor, currency, _declined(status, returned_at), network or "unknown")
        for at, amount_minor, currency, status, returned_at, network in rows
    ]


def _declined(status: str, returned_at: datetime | None) -> bool:
    return status not in (AttemptStatus.SUCCEEDED, AttemptStatus.ERRORED) or returned_at is not None
