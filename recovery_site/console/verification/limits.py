"""Promise 2 over all of history: no attempt of ours beyond a network's rule or after a refusal for good."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from functools import lru_cache
from itertools import groupby, islice
from typing import Any

from django.db import connection

from accounts.models import Merchant
from invoices.models import Attempt
from invoices.states import Origin, TransactionKind
from recovery_site.console.verification.types import Bundle, Problem
from recovery_site.console.words import rule_words
from tokens.budgets import AttemptMark, budget
from tokens.models import ImportedMark
from tokens.rules import Key, Rule
from tokens.selectors import mark_declined, network_rules

_CHUNK = 5_000
_CARDS = 500


@lru_cache(maxsize=64)
def _rules(network: str, *, per_invoice: bool) -> tuple[Rule, ...]:
    return tuple(rule for rule in network_rules(network) if (rule.key is Key.INVOICE) == per_invoice)


def invoice_rule_problems(bundle: Bundle) -> Iterator[Problem]:
    """Re-presentments of bank debits, which are counted per invoice."""
    before: list[_Known] = []
    for row in bundle.attempts:
        if row.kind != TransactionKind.CHARGE or not row.counts:
            continue
        known = _Known.of(row)
        rules = _rules(known.mark.network, per_invoice=True)
        if rules and row.origin == Origin.OURS:
            yield from _over(bundle.invoice.public_id, known, rules, [], before)
        before.append(known)


def card_rule_problems(merchant: Merchant | None) -> Iterator[Problem]:
    """Every attempt of ours against the tries of the same card that were known when it was made.

    Known means written down before it (a provider may tell of its own tries late, of a bank's return weeks later, and
    history may be imported any time). The networks' own rules count, not a merchant's stricter limits, which change.
    Cards are looked at one by one: which of them formed one budget group at that time is not recorded.
    """
    rows = Attempt.objects.filter(kind=TransactionKind.CHARGE, counts=True, card__isnull=False)
    if merchant is not None:
        rows = rows.filter(merchant=merchant)
    history = rows.select_related("card", "invoice").order_by("card_id", "id").iterator(chunk_size=_CHUNK)
    by_card = ((card, list(attempts)) for card, attempts in groupby(history, key=lambda row: row.card_id))
    for batch in _batches(by_card):
        imported = _imported(batch)
        for card, attempts in batch:
            yield from _card_problems(attempts, imported.get(card, []))


def _batches(cards: Iterator[tuple[int, list[Attempt]]]) -> Iterator[list[tuple[int, list[Attempt]]]]:
    while batch := list(islice(cards, _CARDS)):
        yield batch


def _imported(batch: list[tuple[int, list[Attempt]]]) -> dict[int, list[tuple[datetime, "_Known"]]]:
    """Imported history of these cards with the instant of its import, in one query."""
    found: dict[int, list[tuple[datetime, _Known]]] = defaultdict(list)
    marks = ImportedMark.objects.filter(card__in=[card for card, _ in batch]).select_related("card")
    for row in marks.order_by("created_at"):
        mark = AttemptMark(row.at, row.amount_minor, row.currency, declined=True, network=row.card.network)
        found[row.card_id] += [(row.created_at, _Known("", mark, None))] * row.count
    return found


def _card_problems(attempts: Sequence[Attempt], imported: Sequence[tuple[datetime, "_Known"]]) -> Iterator[Problem]:
    before: list[_Known] = []
    for row in attempts:
        known = _Known.of(row)
        if row.origin == Origin.OURS:
            rules = _rules(known.mark.network, per_invoice=False)
            history = [mark for imported_at, mark in imported if imported_at < row.created_at]
            yield from _over(row.invoice.public_id, known, rules, [*before, *history], [])
        before.append(known)


class _Known:
    """An attempt as the rules count it, and when its bank return became known."""

    __slots__ = ("mark", "public_id", "returned_at")

    def __init__(self, public_id: str, mark: AttemptMark, returned_at: datetime | None) -> None:
        self.public_id, self.mark, self.returned_at = public_id, mark, returned_at

    @classmethod
    def of(cls, row: Attempt) -> "_Known":
        mark = AttemptMark(
            at=row.attempted_at,
            amount_minor=row.amount_minor,
            currency=row.currency,
            declined=mark_declined(row.status, None),
            network=row.card.network if row.card else "unknown",
        )
        return cls(row.public_id, mark, row.returned_at)

    def at(self, instant: datetime) -> AttemptMark:
        returned = self.returned_at is not None and self.returned_at <= instant
        return replace(self.mark, declined=True) if returned else self.mark


def _over(
    invoice: str, made: _Known, rules: Sequence[Rule], card: Sequence[_Known], same_invoice: Sequence[_Known]
) -> Iterator[Problem]:
    # No rule can be full before as many attempts were made as it allows: most cards are done here.
    if len(card) + len(same_invoice) < min((rule.limit for rule in rules), default=1 << 30):
        return
    at = made.mark.at
    state = budget(
        [known.at(at) for known in card],
        rules,
        at,
        made.mark.amount_minor or 0,
        made.mark.currency,
        [known.at(at) for known in same_invoice],
    )
    for rule_state in state.per_rule:
        if rule_state.remaining == 0:
            yield Problem(
                invoice,
                "attempts_over_a_rule",
                f"Attempt {made.public_id} was made when {rule_words(rule_state.rule)} were used up"
                f" ({rule_state.used} of {rule_state.limit}).",
            )


# An attempt of ours that was sent after the refusal for good of its token was learned, on a token that has not been
# revived since. The order is that of the events: a provider may tell late of a refusal that came first.
_AFTER_HARD_DECLINE = """
SELECT DISTINCT invoice.public_id, ours.public_id, token.public_id
FROM tokens_token token
JOIN invoices_attempt ours ON ours.token_id = token.id
JOIN invoices_invoice invoice ON invoice.id = ours.invoice_id
JOIN invoices_event sent ON sent.invoice_id = ours.invoice_id AND sent.subject_id = ours.public_id
                        AND sent.kind = 'attempt.sending'
JOIN invoices_attempt refused ON refused.token_id = token.id AND refused.id <> ours.id
JOIN invoices_event told ON told.invoice_id = refused.invoice_id AND told.subject_id = refused.public_id
                        AND told.kind IN ('attempt.decline', 'attempt.decline_named')
                        AND told.data ->> 'category' IN ('HARD_DECLINE', 'FRAUD_FLAGGED')
WHERE token.status = 'declined' AND ours.origin = 'OURS' AND ours.kind = 'CHARGE'
  AND ours.card_id = token.card_id AND ours.attempted_at > token.declined_at AND told.id < sent.id
  AND (%(merchant)s::bigint IS NULL OR token.merchant_id = %(merchant)s)
ORDER BY 1, 2
"""
_TWO_SENDING = """
SELECT min(invoice.public_id), customer.public_id, count(*)
FROM invoices_attempt attempt
JOIN invoices_customer customer ON customer.id = attempt.customer_id
JOIN invoices_invoice invoice ON invoice.id = attempt.invoice_id
WHERE attempt.status = 'SENDING' AND attempt.kind = 'CHARGE' AND attempt.origin = 'OURS'
  AND (%(merchant)s::bigint IS NULL OR attempt.merchant_id = %(merchant)s)
GROUP BY customer.public_id HAVING count(*) > 1 ORDER BY 1
"""


def token_problems(merchant: Merchant | None) -> Iterator[Problem]:
    """Attempts of ours on a token that had been refused for good, and customers with two charges on their way."""
    for invoice, attempt, token in _select(_AFTER_HARD_DECLINE, merchant):
        detail = f"Attempt {attempt} was sent after token {token} had been refused for good."
        yield Problem(invoice, "attempts_after_hard_decline", detail)
    for invoice, customer, number in _select(_TWO_SENDING, merchant):
        detail = f"Customer {customer} has {number} charges SENDING at once."
        yield Problem(invoice, "two_charges_sending_for_one_customer", detail)


def _select(sql: str, merchant: Merchant | None) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(sql, {"merchant": merchant.pk if merchant else None})
        rows: list[tuple[Any, ...]] = cursor.fetchall()
    return rows
