"""Payment methods with what the networks' rules leave of them now."""

from collections.abc import Iterable, Sequence

from invoices.models import Attempt
from invoices.states import TransactionKind
from recovery_site.console.story.gather import Rows
from recovery_site.console.story.types import RuleFacts, TokenFacts
from recovery_site.console.words import card_label, rule_words
from tokens.budgets import AttemptMark, RuleState, budget
from tokens.models import Token
from tokens.rules import Rule
from tokens.selectors import TokenOption, mark_declined, network_rules


def tokens_facts(rows: Rows) -> tuple[TokenFacts, ...]:
    """The customer's tokens, best first as the engine ranks them."""
    by_pk = {token.pk: token for token in rows.tokens}
    marks = invoice_marks(rows.attempts)
    return tuple(_token(rows, by_pk[pk], option, marks) for pk, option in rows.options.items() if pk in by_pk)


def _token(rows: Rows, token: Token, option: TokenOption, marks: Sequence[AttemptMark]) -> TokenFacts:
    card, invoice = token.card, rows.invoice
    state = budget(
        rows.marks.get(card.budget_group, ()),
        network_rules(card.network, rows.limits),
        rows.now,
        invoice.due_minor or invoice.amount_minor,
        invoice.currency,
        marks,
    )
    return TokenFacts(
        pk=token.pk,
        public_id=token.public_id,
        label=card_label(card.network, card.last4),
        kind=card.kind,
        network=card.network,
        expiry=f"{card.exp_month:02d}/{card.exp_year}" if card.exp_month and card.exp_year else "",
        bin=card.bin,
        issuer=card.issuer,
        status=token.status,
        status_label=token.get_status_display(),
        usable=option.usable,
        obstacle=option.obstacle,
        is_default=token.is_default,
        remaining=option.remaining,
        allowed_at=option.allowed_at,
        blocked=option.allowed_at > rows.now,
        binding=_binding(option, state.binding_rule),
        last_success_at=token.last_success_at,
        last_attempt_at=option.last_attempt_at,
        rules=tuple(_rule(rule_state, state.binding_rule) for rule_state in state.per_rule),
    )


def _binding(option: TokenOption, rule: Rule | None) -> str:
    """What limits this token, in words: a wait the network asked for, else the rule that leaves the least."""
    if option.limit_text and (rule is None or option.limit_text != str(rule)):
        return option.limit_text[0].upper() + option.limit_text[1:]
    return rule_words(rule) if rule is not None else ""


def _rule(state: RuleState, binding: Rule | None) -> RuleFacts:
    return RuleFacts(
        name=state.rule.name,
        words=rule_words(state.rule),
        used=state.used,
        limit=state.limit,
        remaining=state.remaining,
        releases_at=state.releases_at,
        binding=state.rule == binding,
    )


def invoice_marks(attempts: Iterable[Attempt]) -> list[AttemptMark]:
    """The invoice's attempts as the rules per invoice count them (re-presentments of bank debits)."""
    return [mark_of(row) for row in attempts if row.kind == TransactionKind.CHARGE and row.counts]


def mark_of(attempt: Attempt) -> AttemptMark:
    """One attempt as a network counts it: open and unresolved ones count as declines, returned ones too."""
    return AttemptMark(
        at=attempt.attempted_at,
        amount_minor=attempt.amount_minor,
        currency=attempt.currency,
        declined=mark_declined(attempt.status, attempt.returned_at),
        network=attempt.card.network if attempt.card else "unknown",
    )
