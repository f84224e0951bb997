"""How much of the networks' budgets the cards of open cases have used."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import connection

from accounts.models import Merchant
from analytics.selectors.invariants import rule_columns

# The newest open cases stand for all: with more, the page would wait for figures that look the same.
SAMPLE = 2_000
_USE = """
WITH rule AS (
    SELECT * FROM unnest(
        %(networks)s::text[], %(seconds)s::bigint[], %(limits)s::int[], %(keys)s::text[], %(declines)s::boolean[],
        %(valid_from)s::timestamptz[], %(valid_to)s::timestamptz[]
    ) AS rule(network, seconds, most, key, only_declines, valid_from, valid_to)
    WHERE key <> 'invoice'
      AND (valid_from IS NULL OR valid_from <= %(now)s) AND (valid_to IS NULL OR %(now)s < valid_to)
), recent AS (
    SELECT c.invoice_id, c.amount_minor, c.currency FROM retries_case c
    WHERE c.merchant_id = %(merchant)s AND c.status = 'OPEN' ORDER BY c.id DESC LIMIT %(sample)s
), card AS (
    SELECT DISTINCT card.budget_group, card.network, recent.amount_minor, recent.currency
    FROM recent
    JOIN LATERAL (
        SELECT a.card_id FROM invoices_attempt a
        WHERE a.invoice_id = recent.invoice_id AND a.kind = 'CHARGE' AND a.card_id IS NOT NULL
        ORDER BY a.id DESC LIMIT 1
    ) last ON true
    JOIN tokens_card card ON card.id = last.card_id
), used AS (
    SELECT rule.network, rule.seconds, rule.most, rule.key, (
        SELECT count(*) FROM tokens_card other JOIN invoices_attempt a ON a.card_id = other.id
        WHERE other.budget_group = card.budget_group AND a.kind = 'CHARGE' AND a.counts
          AND a.attempted_at <= %(now)s
          AND a.attempted_at > CASE WHEN rule.seconds IS NULL THEN date_trunc('month', %(now)s, 'UTC')
                                    ELSE %(now)s - make_interval(secs => rule.seconds) END
          AND (rule.key <> 'card_amount' OR (a.amount_minor = card.amount_minor AND a.currency = card.currency))
          AND (NOT rule.only_declines OR a.returned_at IS NOT NULL OR a.status NOT IN ('SUCCEEDED', 'ERRORED'))
    ) AS tries
    FROM card JOIN rule ON rule.network = card.network
)
SELECT network, seconds, most, key, count(*), count(*) FILTER (WHERE tries = 0),
       count(*) FILTER (WHERE tries > 0 AND tries * 2 <= most),
       count(*) FILTER (WHERE tries * 2 > most AND tries < most), count(*) FILTER (WHERE tries >= most)
FROM used GROUP BY 1, 2, 3, 4 ORDER BY 5 DESC, 1, 2
"""


@dataclass(frozen=True, slots=True)
class BudgetUse:
    """Cards under one rule by how much of it they have used; `seconds` None is a calendar month."""

    network: str
    seconds: int | None
    limit: int
    key: str
    cards: int
    unused: int
    half: int
    more: int
    spent: int


def budget_use(merchant: Merchant, now: datetime) -> list[BudgetUse]:
    """One query over the newest SAMPLE open cases."""
    parameters: dict[str, Any] = {"merchant": merchant.pk, "now": now, "sample": SAMPLE, **rule_columns()}
    return list(_rows(parameters))


def _rows(parameters: dict[str, Any]) -> Iterator[BudgetUse]:
    with connection.cursor() as cursor:
        cursor.execute(_USE, parameters)
        for row in cursor.fetchall():
            yield BudgetUse(*row)
