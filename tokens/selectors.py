"""Which tokens a customer has, and from when each may be tried: PostgreSQL's answer, the one that counts."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any
from uuid import UUID

from django.conf import settings
from django.contrib.postgres.expressions import ArraySubquery
from django.db.models import DateTimeField, F, Min, OuterRef, QuerySet, Value
from django.db.models.functions import JSONObject

from invoices.models import Attempt, Customer
from invoices.states import AttemptStatus, TransactionKind
from recovery_site.common.compiled import AnyOf, Compiled, Param
from tokens.budgets import AttemptMark, budget, earliest_allowed
from tokens.models import Card, ImportedMark, RetryLimit, Token
from tokens.rules import Key, Rule, RuleOverride, load_rules
from tokens.states import TokenStatus

# Enough to reach every limit of every rule; more of them at one instant only cost time.
_MOST_AT_ONCE = 100


@dataclass(frozen=True, slots=True)
class TokenOption:
    """One token now. `allowed_at`: the earliest instant its card's budget and waits allow, not before `not_before`.

    `usable` is false for tokens that no machine may charge again as they are; `obstacle` says why in words. `held`: it
    waits for a repair of our set-up, and nothing is wrong with the card.
    `expires_at`: the first instant after the card's last month (UTC), None where nobody told it.
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
    expires_at: datetime | None = None
    held: bool = False


def network_rules(network: str, overrides: Sequence[RuleOverride] = ()) -> tuple[Rule, ...]:
    """The rules of a network over all dates, with the chosen Visa limit and a merchant's own stricter limits."""
    return load_rules().for_network(network, visa_limit=settings.VISA_RETRY_LIMIT, overrides=overrides)


def merchant_limits(merchant_pk: int) -> tuple[RuleOverride, ...]:
    """The merchant's own limits, in a fixed order."""
    rows = RetryLimit.objects.filter(merchant_id=merchant_pk).order_by("network", "name")
    return tuple(RuleOverride(*row) for row in rows.values_list("network", "name", "limit"))


@cache
def networks_by_invoice() -> frozenset[str]:
    """Networks with a rule that counts the attempts of an invoice."""
    return frozenset(rule.network for rule in load_rules().rules if rule.key is Key.INVOICE)


@cache
def card_horizon() -> timedelta:
    """How far back attempts of a card can matter: the longest window counted per card, and a day for clocks."""
    windows = [rule.window or timedelta(days=31) for rule in load_rules().rules if rule.key is not Key.INVOICE]
    return max(*windows, timedelta(days=30)) + timedelta(days=1)


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
    """Every token of the customer, best first: usable, earliest allowed, last success, default, longest valid, oldest.

    `cards` as returned by `cards_lock` (all cards of all budget groups): under that lock the answer stays true.
    `besides`: an attempt that is not counted, because it is the one in question.
    Two queries whatever the number of tokens, three where a network counts by invoice.
    """
    tokens = _TOKENS.all(customer=customer.pk)
    marks = card_marks(cards, not_before, besides)
    by_invoice = any(card.network in networks_by_invoice() for card in cards)
    owed = invoice_marks(invoice_pk, besides) if by_invoice else []
    by_pk = {card.pk: card for card in cards}
    options = []
    for token in tokens:
        card = by_pk[token.card_id]
        group = marks[card.budget_group]
        rules = network_rules(card.network, _limits_of(token))
        state = budget(group, rules, not_before, amount_minor, currency, owed)
        allowed_at, limit_text = state.next_allowed_at, ""
        if allowed_at > not_before and state.binding_rule is not None:
            limit_text = str(state.binding_rule)
        if card.wait_until is not None and card.wait_until > allowed_at:
            allowed_at = earliest_allowed(group, rules, card.wait_until, amount_minor, currency, owed)
            limit_text = "the network asked to wait"
        last_attempt_at = max((mark.at for mark in group), default=None)
        options.append(_option(token, card, not_before, allowed_at, limit_text, state.remaining, last_attempt_at))
    return sorted(options, key=_rank)


def _with_limits(tokens: QuerySet[Token]) -> QuerySet[Token]:
    """The merchant's own limits beside each token, so that they cost no query of their own."""
    limits = RetryLimit.objects.filter(merchant_id=OuterRef("merchant_id")).order_by("network", "name")
    return tokens.annotate(limits=ArraySubquery(limits.values(row=JSONObject(n="network", r="name", l="limit"))))


_TOKENS = Compiled(lambda: _with_limits(Token.objects.filter(customer=Param("customer"))))


def _limits_of(token: Token) -> tuple[RuleOverride, ...]:
    rows: list[Mapping[str, Any]] = token.limits  # type: ignore[attr-defined]  # from _with_limits
    return tuple(RuleOverride(row["n"], row["r"], row["l"]) for row in rows)


def _option(
    token: Token,
    card: Card,
    not_before: datetime,
    allowed_at: datetime,
    limit_text: str,
    remaining: int | None,
    last_attempt_at: datetime | None,
) -> TokenOption:
    expires_at = card_expires_at(card)
    obstacle = token_obstacle(token, card)
    if not obstacle and expires_at is not None and allowed_at >= expires_at:
        month = f"{card.exp_month:02d}/{expiry_year(card)}"
        obstacle = (
            f"expired in {month}" if not_before >= expires_at else f"expires in {month}, before it may be tried again"
        )
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
        remaining=remaining,
        is_default=token.is_default,
        last_success_at=token.last_success_at,
        last_attempt_at=last_attempt_at,
        expires_at=expires_at,
        held=token.status == TokenStatus.HELD,
    )


def token_obstacle(token: Token, card: Card) -> str:
    """Why no machine may charge the token whatever the time is, in words; empty if none of that is so."""
    if token.status == TokenStatus.REMOVED:
        return "was removed at the provider"
    if card.stopped_at is not None:
        return f"was stopped by its network ({card.stop_code})"
    if token.status == TokenStatus.HELD:
        return f"waits until our set-up at the provider is repaired ({token.decline_code or 'no code'})"
    if token.status == TokenStatus.DECLINED:
        return f"was declined for good ({token.decline_code or 'no code'})"
    return ""


def expiry_year(card: Card) -> int:
    """The card's last year with its century; some providers send two digits."""
    year = card.exp_year or 0
    return year if year >= 100 else 2000 + year


def card_expires_at(card: Card) -> datetime | None:
    """The first instant after the month printed on the card (UTC); None if it is unknown or cannot be a month."""
    if card.exp_month is None or card.exp_year is None or not 1 <= card.exp_month <= 12:
        return None
    year = expiry_year(card)
    if year > 9998:
        return None
    return datetime(year + card.exp_month // 12, card.exp_month % 12 + 1, 1, tzinfo=UTC)


def tie_order(
    *, last_success_at: datetime | None, is_default: bool, expires_at: datetime | None, pk: int
) -> tuple[float, bool, float, int]:
    """Which of two tokens goes first when both may be tried at the same instant: the lower."""
    success = -last_success_at.timestamp() if last_success_at else 0.0
    expiry = -expires_at.timestamp() if expires_at else 0.0
    return success, not is_default, expiry, pk


def _rank(option: TokenOption) -> tuple[bool, datetime, tuple[float, bool, float, int]]:
    tie = tie_order(
        last_success_at=option.last_success_at,
        is_default=option.is_default,
        expires_at=option.expires_at,
        pk=option.pk,
    )
    return not option.usable, option.allowed_at, tie


def card_marks(cards: Iterable[Card], now: datetime, besides: int | None = None) -> dict[UUID, list[AttemptMark]]:
    """Counting attempts per budget group, oldest first, as far back as any window reaches from `now`."""
    groups = {card.pk: card.budget_group for card in cards}
    network = {card.pk: card.network for card in cards}
    marks: dict[UUID, list[AttemptMark]] = defaultdict(list)
    rows: Sequence[MarkRow] = mark_rows(list(groups), now - card_horizon(), besides)
    for card_id, at, amount_minor, currency, status, returned_at, count in rows:
        mark = AttemptMark(at, amount_minor, currency, mark_declined(status, returned_at), network[card_id])
        marks[groups[card_id]].extend([mark] * min(count, _MOST_AT_ONCE))
    return marks


_COLUMNS = ("card_id", "attempted_at", "amount_minor", "currency", "status", "returned_at", "times")
MarkRow = tuple[int, datetime, int | None, str, str, datetime | None, int]


def mark_rows(
    card_pks: Sequence[int], after: datetime, besides: int | None = None, *, more: tuple[str, ...] = ()
) -> Sequence[Any]:
    """What counts for these cards after an instant, attempts and imported history alike, oldest first. One query.

    card, instant, amount and currency (None if untold), status, returned_at, how many; then the columns in `more`
    (token_id, raw_code, category). A try whose card nobody told may have been made with any card of its customer: it
    counts once for each budget group of theirs.
    """
    return _marks(more).all(cards=list(card_pks), after=after, besides=besides or 0)


@cache
def _marks(more: tuple[str, ...]) -> Compiled[Any]:
    return Compiled(lambda: _marks_query(more))


def _marks_query(more: tuple[str, ...]) -> QuerySet[Any, Any]:
    cards, after = Param("cards"), Param("after")
    charges = Attempt.objects.filter(kind=TransactionKind.CHARGE, counts=True, attempted_at__gt=after)
    charges = charges.exclude(pk=Param("besides")).annotate(times=Value(1))
    told = charges.filter(AnyOf("card_id", cards)).values_list(*_COLUMNS, *more)
    untold = (
        charges.filter(AnyOf("customer__tokens__card_id", cards), card=None)
        .values("pk", "times", "customer__tokens__card__budget_group")
        .annotate(of_card=Min("customer__tokens__card_id"))
        .values_list("of_card", *_COLUMNS[1:], *more)
    )
    imported = ImportedMark.objects.filter(AnyOf("card_id", cards), at__gt=after).annotate(
        attempted_at=F("at"),
        status=Value(AttemptStatus.DECLINED.value),
        returned_at=Value(None, output_field=DateTimeField()),
        times=F("count"),
        raw_code=Value(""),
        category=Value(""),
    )
    return told.union(untold, imported.values_list(*_COLUMNS, *more), all=True).order_by("attempted_at")


def invoice_marks(invoice_pk: int, besides: int | None = None) -> list[AttemptMark]:
    """Counting attempts of an invoice over all its CHARGE transactions, whatever card they used."""
    return [
        AttemptMark(at, amount_minor, currency, mark_declined(status, returned_at), network or "unknown")
        for at, amount_minor, currency, status, returned_at, network in _OWED.all(
            invoice=invoice_pk, besides=besides or 0
        )
    ]


_OWED = Compiled(
    lambda: (
        Attempt.objects.filter(invoice=Param("invoice"), kind=TransactionKind.CHARGE, counts=True)
        .exclude(pk=Param("besides"))
        .values_list("attempted_at", "amount_minor", "currency", "status", "returned_at", "card__network")
    )
)


def mark_declined(status: str, returned_at: datetime | None) -> bool:
    """Everything that counts but a success is a decline, open and unresolved attempts too; a payment that the bank took
    back is one as well."""
    return status != AttemptStatus.SUCCEEDED or returned_at is not None


def token_has_another_card(token_pk: int | None, card_pk: int) -> bool:
    """True if the card behind this token is no longer `card_pk`: the provider has put another one there."""
    return token_pk is not None and Token.objects.filter(pk=token_pk).exclude(card_id=card_pk).exists()
