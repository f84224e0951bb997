"""What a card has left, rule by rule, for people: which rule applies now, what is used up, when it comes back."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.conf import settings

from invoices.models import Attempt, Customer
from invoices.states import INVOICE_OPEN, TransactionKind
from recovery_site.common.errors import Conflict, NotFound
from recovery_site.common.money import format_money
from tokens.budgets import AttemptMark, RuleState, budget
from tokens.models import Card, Token
from tokens.rules import Key, Rule, load_rules
from tokens.selectors import (
    card_expires_at,
    card_marks,
    invoice_marks,
    merchant_limits,
    network_rules,
    token_obstacle,
)

# Amounts and invoices that are listed apart; the most used come first, so nothing that binds is left out.
_MOST_SUBJECTS = 10


@dataclass(frozen=True, slots=True)
class RuleUse:
    """One rule now for one `subject`: empty (the card whatever the amount), an amount, or an invoice."""

    rule: Rule
    subject: str
    used: int
    remaining: int
    releases_at: datetime | None
    allowed_at: datetime


@dataclass(frozen=True, slots=True)
class TokenLine:
    """A token of the card. `obstacle` is empty if a machine may charge it."""

    public_id: str
    customer: str
    status: str
    is_default: bool
    obstacle: str


@dataclass(frozen=True, slots=True)
class CardBudget:
    """One card at `at`. `uses`: every rule in force. `allowed_at`: from when all of them and the network's own waits
    allow a try of everything listed; `why`: what sets that instant, or what stands in the way for good."""

    card: Card
    at: datetime
    uses: tuple[RuleUse, ...]
    tokens: tuple[TokenLine, ...]
    shares_with: tuple[str, ...]
    remaining: int | None
    allowed_at: datetime
    why: str

    def as_dict(self) -> dict[str, Any]:
        """JSON: instants in ISO 8601, rules with their source."""
        card, expires_at = self.card, card_expires_at(self.card)
        return {
            "card": card.public_id,
            "label": str(card),
            "network": card.network,
            "at": self.at.isoformat(),
            "remaining": self.remaining,
            "allowed_at": self.allowed_at.isoformat(),
            "why": self.why,
            "expires_at": _iso(expires_at),
            "stopped_at": _iso(card.stopped_at),
            "stop_code": card.stop_code,
            "wait_until": _iso(card.wait_until),
            "shares_budget_with": list(self.shares_with),
            "tokens": [
                {
                    "token": line.public_id,
                    "customer": line.customer,
                    "status": line.status,
                    "default": line.is_default,
                    "obstacle": line.obstacle,
                }
                for line in self.tokens
            ],
            "rules": [
                {
                    "name": use.rule.name,
                    "subject": use.subject,
                    "key": use.rule.key.value,
                    "counts": use.rule.counts.value,
                    "window": use.rule.window_text,
                    "limit": use.rule.limit,
                    "used": use.used,
                    "remaining": use.remaining,
                    "releases_at": _iso(use.releases_at),
                    "allowed_at": use.allowed_at.isoformat(),
                    "source": use.rule.source,
                }
                for use in self.uses
            ],
        }


def _iso(at: datetime | None) -> str | None:
    return at.isoformat() if at is not None else None


@dataclass(frozen=True, slots=True)
class RuleLine:
    """A rule of the file for people. `state`: in force, from when, until when, or that another limit was chosen."""

    rule: Rule
    state: str

    @property
    def in_force(self) -> bool:
        return self.state == "in force"


def rule_lines(now: datetime) -> list[RuleLine]:
    """Every rule of every network and date, as the file has them, with what `now` makes of it."""
    return [RuleLine(rule, _rule_state(rule, now)) for rule in load_rules().rules]


def _rule_state(rule: Rule, now: datetime) -> str:
    if rule.variant not in ("", str(settings.VISA_RETRY_LIMIT)):
        return "not chosen"
    if rule.valid_from is not None and now < rule.valid_from:
        return f"from {rule.valid_from:%Y-%m-%d}"
    if rule.valid_to is not None and now >= rule.valid_to:
        return f"ended {rule.valid_to:%Y-%m-%d}"
    return "in force"


def card_find(reference: str) -> Card:
    """The card that a public id (of card or token), a provider's token or a fingerprint names.

    Raises NotFound, or Conflict that names the cards if several connections use the same name.
    """
    cards = Card.objects.none()
    if reference and len(reference) <= 200 and "\x00" not in reference:
        cards = (
            Card.objects.filter(public_id=reference)
            | Card.objects.filter(fingerprint=reference)
            | Card.objects.filter(tokens__public_id=reference)
            | Card.objects.filter(tokens__provider_token=reference)
        ).distinct()
    found = list(cards.select_related("connection").order_by("pk")[:20])
    if not found:
        raise NotFound(f"No card or token is known as {reference!r}; give its id (crd_..., tok_...) or the provider's.")
    if len(found) > 1:
        names = ", ".join(f"{card.public_id} ({card.connection.name})" for card in found)
        raise Conflict(f"{reference!r} names several cards; give the id of one of them: {names}.")
    return found[0]


def card_budgets(customer: Customer, now: datetime) -> list[CardBudget]:
    """Every card of the customer, in the order they were learned. Five queries, and some per bank mandate."""
    cards = list(Card.objects.filter(tokens__customer=customer).distinct().order_by("pk"))
    return _budgets(cards, customer.merchant_id, now, None)


def card_budget(card: Card, now: datetime, *, amount_minor: int | None = None, currency: str = "") -> CardBudget:
    """What `card` has left at `now`; for one amount if it is given, else for every amount and invoice in the window."""
    amount = (amount_minor, currency.upper()) if amount_minor is not None else None
    return _budgets([card], card.merchant_id, now, amount)[0]


def _budgets(
    cards: Sequence[Card], merchant_pk: int, now: datetime, amount: tuple[int, str] | None
) -> list[CardBudget]:
    together = list(Card.objects.filter(budget_group__in={card.budget_group for card in cards}).order_by("pk"))
    marks, limits = card_marks(together, now), merchant_limits(merchant_pk)
    tokens: dict[int, list[Token]] = defaultdict(list)
    for token in Token.objects.filter(card__in=cards).select_related("customer").order_by("pk"):
        tokens[token.card_id].append(token)
    return [
        _budget(
            card,
            [other for other in together if other.budget_group == card.budget_group and other.pk != card.pk],
            marks[card.budget_group],
            network_rules(card.network, limits),
            tokens[card.pk],
            now,
            amount,
        )
        for card in cards
    ]


def _budget(
    card: Card,
    others: Sequence[Card],
    marks: Sequence[AttemptMark],
    rules: Sequence[Rule],
    tokens: Sequence[Token],
    now: datetime,
    amount: tuple[int, str] | None,
) -> CardBudget:
    amounts = [amount] if amount is not None else _amounts(marks)
    uses = tuple(use for rule in rules if rule.active_at(now) for use in _uses(card, rule, marks, now, amounts))
    allowed_at = max((use.allowed_at for use in uses), default=now)
    if card.wait_until is not None:
        allowed_at = max(allowed_at, card.wait_until)
    return CardBudget(
        card=card,
        at=now,
        uses=uses,
        tokens=tuple(
            TokenLine(
                token.public_id,
                token.customer.public_id,
                token.status,
                token.is_default,
                token_obstacle(token, card),
            )
            for token in tokens
        ),
        shares_with=tuple(other.public_id for other in others),
        remaining=min((use.remaining for use in uses), default=None),
        allowed_at=allowed_at,
        why=_why(card, uses, now, allowed_at),
    )


def _amounts(marks: Sequence[AttemptMark]) -> list[tuple[int, str]]:
    """Amounts tried in the window, most often first."""
    seen: dict[tuple[int, str], int] = {}
    for mark in marks:
        if mark.amount_minor is not None and mark.declined:
            name = mark.amount_minor, mark.currency.upper()
            seen[name] = seen.get(name, 0) + 1
    return sorted(seen, key=lambda name: (-seen[name], name))[:_MOST_SUBJECTS]


def _uses(
    card: Card, rule: Rule, marks: Sequence[AttemptMark], now: datetime, amounts: Sequence[tuple[int, str]]
) -> Iterator[RuleUse]:
    match rule.key:
        case Key.CARD:
            yield _use(rule, "", budget(marks, [rule], now, 0, "").per_rule[0])
        case Key.CARD_AMOUNT:
            for amount_minor, currency in amounts:
                state = budget(marks, [rule], now, amount_minor, currency).per_rule[0]
                yield _use(rule, format_money(amount_minor, currency), state)
            if not amounts:
                # Nothing but history without amounts counts for an amount that was never tried.
                yield _use(rule, "any amount", budget(marks, [rule], now, -1, "").per_rule[0])
        case Key.INVOICE:
            for name, owed in _invoices(card).items():
                yield _use(rule, name, budget((), [rule], now, 0, "", owed).per_rule[0])


def _use(rule: Rule, subject: str, state: RuleState) -> RuleUse:
    return RuleUse(rule, subject, state.used, state.remaining, state.releases_at, state.allowed_at)


def _invoices(card: Card) -> Mapping[str, Sequence[AttemptMark]]:
    """Open invoices that this account was tried for, newest first."""
    tried = Attempt.objects.filter(
        card=card, kind=TransactionKind.CHARGE, counts=True, invoice__status__in=INVOICE_OPEN
    )
    rows = tried.order_by("-invoice_id").values_list("invoice_id", "invoice__public_id").distinct()
    return {name: invoice_marks(pk) for pk, name in rows[:_MOST_SUBJECTS]}


def _why(card: Card, uses: Sequence[RuleUse], now: datetime, allowed_at: datetime) -> str:
    expires_at = card_expires_at(card)
    if card.stopped_at is not None:
        return f"The network stopped the card for good ({card.stop_code})."
    if expires_at is not None and expires_at <= now:
        return "The card has expired."
    if allowed_at <= now:
        return "It may be charged now."
    if card.wait_until == allowed_at:
        return "The network asked to wait."
    binding = max(uses, key=lambda use: use.allowed_at)
    about = f" for {binding.subject}" if binding.subject else ""
    return f"Used up: {binding.rule}{about}."
