"""The must-be-zero board: promises of the service as queries over the ledger. Each gives the invoices
concerned.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from types import MappingProxyType
from typing import Any, Final

from django.db import connection

from accounts.models import Merchant
from analytics.definitions import DEFINITIONS, Definition
from analytics.period import Period
from tokens.networks import NETWORKS
from tokens.rules import Rule
from tokens.selectors import network_rules

# A board that is not zero needs a person, not an exact number in the thousands.
LIMIT = 500


@dataclass(frozen=True, slots=True)
class Broken:
    """One promise: what it means and how often it was found broken, up to LIMIT + 1."""

    definition: Definition
    count: int

    @property
    def text(self) -> str:
        return str(self.count) if self.count <= LIMIT else f"over {LIMIT}"


_AFTER_HARD_DECLINE = """
SELECT a.invoice_id
FROM invoices_attempt a
WHERE a.merchant_id = %(merchant)s AND a.attempted_at >= %(start)s AND a.attempted_at <= %(end)s
  AND a.kind = 'CHARGE' AND a.origin = 'OURS' AND a.trigger = 'automatic' AND a.status <> 'ERRORED'
  AND EXISTS (
    SELECT 1 FROM invoices_attempt no
    WHERE no.card_id = a.card_id AND no.token_id = a.token_id AND no.kind = 'CHARGE' AND no.counts
      AND no.status = 'DECLINED' AND no.category = 'HARD_DECLINE' AND no.finished_at < a.attempted_at
      AND NOT EXISTS (
        SELECT 1 FROM invoices_attempt revived
        WHERE revived.card_id = no.card_id AND revived.token_id = no.token_id AND revived.kind = 'CHARGE'
          AND revived.attempted_at > no.finished_at AND revived.attempted_at < a.attempted_at
          AND (revived.status = 'SUCCEEDED' OR revived.trigger <> 'automatic')
      )
  )
ORDER BY a.attempted_at DESC LIMIT %(limit)s
"""

# The window of every rule ends just before the attempt: attempts that have left it by then, at the very instant too, do
# not count. An attempt that is open or unresolved counts as declined, and so does one that the bank returned. `after`
# is the last instant outside the window. Only cards with more attempts than their strictest limit are looked at closely
# (no card window is longer than 32 days), and of those no more rows than the limit has.
_OVER_RULE = """
WITH rule AS (
    SELECT * FROM unnest(
        %(networks)s::text[], %(seconds)s::bigint[], %(limits)s::int[], %(keys)s::text[], %(declines)s::boolean[],
        %(valid_from)s::timestamptz[], %(valid_to)s::timestamptz[]
    ) AS rule(network, seconds, most, key, only_declines, valid_from, valid_to)
), busy AS MATERIALIZED (
    SELECT card.budget_group
    FROM invoices_attempt b
    JOIN tokens_card card ON card.id = b.card_id
    JOIN (SELECT network, min(most) AS most FROM rule GROUP BY network) least ON least.network = card.network
    WHERE b.merchant_id = %(merchant)s AND b.attempted_at > %(start)s - interval '32 days'
      AND b.attempted_at <= %(end)s AND b.kind = 'CHARGE' AND b.counts
    GROUP BY card.budget_group
    HAVING count(*) > min(least.most)
), tried AS MATERIALIZED (
    SELECT a.id, a.invoice_id, a.attempted_at, a.amount_minor, a.currency, card.budget_group, card.network
    FROM invoices_attempt a
    JOIN tokens_card card ON card.id = a.card_id
    WHERE a.merchant_id = %(merchant)s AND a.attempted_at >= %(start)s AND a.attempted_at <= %(end)s
      AND a.kind = 'CHARGE' AND a.origin = 'OURS' AND a.counts
      AND (card.budget_group IN (SELECT budget_group FROM busy)
           OR card.network IN (SELECT network FROM rule WHERE key = 'invoice'))
), made AS (
    SELECT tried.*, rule.most, rule.key, rule.only_declines,
           CASE WHEN rule.seconds IS NULL
                THEN date_trunc('month', tried.attempted_at, 'UTC') - interval '1 microsecond'
                ELSE tried.attempted_at - make_interval(secs => rule.seconds) END AS after
    FROM tried
    JOIN rule ON rule.network = tried.network
     AND (rule.valid_from IS NULL OR rule.valid_from <= tried.attempted_at)
     AND (rule.valid_to IS NULL OR tried.attempted_at < rule.valid_to)
)
SELECT made.invoice_id
FROM made
WHERE CASE made.key WHEN 'invoice' THEN (
    SELECT count(*) FROM (
        SELECT 1
        FROM invoices_attempt b
        LEFT JOIN tokens_card other ON other.id = b.card_id
        WHERE b.invoice_id = made.invoice_id AND b.kind = 'CHARGE' AND b.counts AND b.attempted_at > made.after
          AND (b.attempted_at, b.id) < (made.attempted_at, made.id)
          AND COALESCE(other.network, 'unknown') IN (made.network, 'unknown')
          AND (NOT made.only_declines OR b.returned_at IS NOT NULL OR b.status <> 'SUCCEEDED')
        LIMIT made.most
    ) earlier
) ELSE (
    SELECT count(*) FROM (
        SELECT 1
        FROM tokens_card other
        JOIN invoices_attempt b ON b.card_id = other.id
        WHERE other.budget_group = made.budget_group AND b.kind = 'CHARGE' AND b.counts
          AND b.attempted_at > made.after AND (b.attempted_at, b.id) < (made.attempted_at, made.id)
          AND (made.key <> 'card_amount' OR (b.amount_minor = made.amount_minor AND b.currency = made.currency))
          AND (NOT made.only_declines OR b.returned_at IS NOT NULL OR b.status <> 'SUCCEEDED')
        LIMIT made.most
    ) earlier
) END >= made.most
GROUP BY made.id, made.invoice_id, made.attempted_at
ORDER BY made.attempted_at DESC LIMIT %(limit)s
"""

_PAID_BEYOND = """
SELECT i.id FROM invoices_invoice i
WHERE i.merchant_id = %(merchant)s AND i.paid_minor - i.refunded_minor > i.amount_minor - i.credited_minor
ORDER BY i.id DESC LIMIT %(limit)s
"""

# What has to stand behind each next step (retries/services/planning.py writes both in one transaction).
_NO_NEXT_STEP = """
SELECT found.invoice_id FROM (
    SELECT c.invoice_id FROM retries_case c
    WHERE c.merchant_id = %(merchant)s AND c.status = 'OPEN' AND NOT (CASE c.next_step
        WHEN 'booked' THEN EXISTS (SELECT 1 FROM retries_retryjob j
            WHERE j.invoice_id = c.invoice_id AND j.status IN ('SCHEDULED', 'RUNNING'))
        WHEN 'queued' THEN EXISTS (SELECT 1 FROM retries_retryjob j
            WHERE j.invoice_id = c.invoice_id AND j.status = 'QUEUED')
        WHEN 'sending' THEN EXISTS (SELECT 1 FROM invoices_attempt a
            WHERE a.invoice_id = c.invoice_id AND a.status = 'SENDING')
        WHEN 'awaiting' THEN EXISTS (SELECT 1 FROM invoices_attempt a
            WHERE a.invoice_id = c.invoice_id AND a.status = 'AWAITING')
        WHEN 'resolving' THEN EXISTS (SELECT 1 FROM invoices_attempt a
            WHERE a.invoice_id = c.invoice_id AND a.status = 'UNKNOWN')
        WHEN 'paused' THEN c.paused_by <> ''
        WHEN 'staff' THEN EXISTS (SELECT 1 FROM invoices_reviewitem r
            WHERE r.invoice_id = c.invoice_id AND r.resolved_at IS NULL)
        WHEN 'provider' THEN true
        WHEN 'customer' THEN true
        ELSE false END)
    UNION ALL
    SELECT i.id FROM invoices_invoice i
    WHERE i.merchant_id = %(merchant)s AND i.status = 'PROCESSING'
      AND NOT EXISTS (SELECT 1 FROM retries_case c WHERE c.invoice_id = i.id AND c.status = 'OPEN')
      AND NOT EXISTS (SELECT 1 FROM invoices_transaction t
        WHERE t.invoice_id = i.id AND t.kind = 'CHARGE' AND t.status IN ('INIT', 'PROCESSING', 'RETRYING'))
) found
LIMIT %(limit)s
"""


def rule_columns() -> dict[str, list[Any]]:
    """Every network rule as columns for `unnest`."""
    rules: list[Rule] = [rule for network in NETWORKS for rule in network_rules(network)]
    return {
        "networks": [rule.network for rule in rules],
        "seconds": [_seconds(rule.window) for rule in rules],
        "limits": [rule.limit for rule in rules],
        "keys": [str(rule.key) for rule in rules],
        "declines": [str(rule.counts) == "declines" for rule in rules],
        "valid_from": [rule.valid_from for rule in rules],
        "valid_to": [rule.valid_to for rule in rules],
    }


def _seconds(window: timedelta | None) -> int | None:
    return None if window is None else int(window.total_seconds())


def _nothing_more() -> dict[str, list[Any]]:
    return {}


_CHECKS: Final[Mapping[str, tuple[str, Callable[[], dict[str, list[Any]]]]]] = MappingProxyType(
    {
        "after_hard_decline": (_AFTER_HARD_DECLINE, _nothing_more),
        "over_network_rule": (_OVER_RULE, rule_columns),
        "paid_beyond_amount": (_PAID_BEYOND, _nothing_more),
        "without_next_step": (_NO_NEXT_STEP, _nothing_more),
    }
)
NAMES: Final = tuple(_CHECKS)


def must_be_zero(merchant: Merchant, period: Period) -> list[Broken]:
    """Every check, one query each."""
    return [Broken(DEFINITIONS[name], len(breaches(name, merchant, period))) for name in NAMES]


def breaches(name: str, merchant: Merchant, period: Period) -> list[int]:
    """Invoices that break one promise, one entry per breach. Raises KeyError for a name outside NAMES."""
    sql, more = _CHECKS[name]
    parameters: dict[str, Any] = {
        "merchant": merchant.pk,
        "start": period.start,
        "end": period.end,
        "limit": LIMIT + 1,
        **more(),
    }
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return [pk for (pk,) in cursor.fetchall()]
