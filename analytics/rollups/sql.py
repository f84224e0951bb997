"""What one merchant-day consists of, as SELECTs over the ledger.

Each reads a relation `days(merchant_id, day, starts, ends)` and gives the columns of its rollup table, so that the same
text fills the tables, answers for days that have just changed, and can be read as the definition.
"""

from dataclasses import dataclass
from typing import Final

# Attempts past this number are counted together.
LAST_NUMBER: Final = 8
# Recoveries that took longer than this many hours are counted together.
LAST_HOUR: Final = 60 * 24


@dataclass(frozen=True, slots=True)
class Rollup:
    """`table` holds what `select` gives; `columns` after merchant and day; `touched` finds the (merchant, instant)
    pairs whose day may have changed: by events of the invoices `%(invoices)s`, or by cards whose facts changed in the
    transactions from `%(xid)s` to `%(until)s`."""

    name: str
    table: str
    columns: str
    select: str
    touched: str


# network, country: of the card; number: the invoice's attempt number; sender: who sent it and why.
_ATTEMPTS = f"""
SELECT days.merchant_id, days.day, a.connection_id, facet.name AS facet, facet.key, a.category,
       count(*) AS attempts,
       count(*) FILTER (WHERE a.status = 'SUCCEEDED') AS succeeded,
       count(*) FILTER (WHERE a.status = 'DECLINED') AS declined,
       count(*) FILTER (WHERE a.status = 'ERRORED') AS errored
FROM days
JOIN invoices_attempt a
  ON a.merchant_id = days.merchant_id AND a.attempted_at >= days.starts AND a.attempted_at < days.ends
LEFT JOIN tokens_card card ON card.id = a.card_id
CROSS JOIN LATERAL (VALUES
    ('code', a.raw_code),
    ('network', COALESCE(card.network, '')),
    ('country', COALESCE(card.country, '')),
    ('number', LEAST(a.number, {LAST_NUMBER})::text),
    ('sender', a.origin || ' ' || a.trigger)
) AS facet(name, key)
WHERE a.kind = 'CHARGE'
GROUP BY 1, 2, 3, 4, 5, 6
"""  # noqa: S608  (a constant, no input)

# The card is that of the invoice's first attempt. `hours`: whole hours from opening to recovery.
_CASES = f"""
SELECT days.merchant_id, days.day, c.connection_id, facet.name AS facet, facet.key, c.first_category AS category,
       c.currency, c.status, count(*) AS cases, sum(c.amount_minor)::bigint AS amount_minor,
       sum(c.recovered_minor)::bigint AS recovered_minor
FROM days
JOIN retries_case c
  ON c.merchant_id = days.merchant_id AND c.opened_at >= days.starts AND c.opened_at < days.ends
JOIN retries_policyversion version ON version.id = c.policy_version_id
LEFT JOIN LATERAL (
    SELECT card.network, card.country
    FROM invoices_attempt a JOIN tokens_card card ON card.id = a.card_id
    WHERE a.invoice_id = c.invoice_id AND a.kind = 'CHARGE' ORDER BY a.id LIMIT 1
) first ON true
CROSS JOIN LATERAL (VALUES
    ('segment', c.segment),
    ('policy', version.version || ' ' || c.segment),
    ('code', c.first_code),
    ('network', COALESCE(first.network, '')),
    ('country', COALESCE(first.country, '')),
    ('hours', CASE WHEN c.status = 'RECOVERED' THEN
        LEAST(floor(extract(epoch FROM c.closed_at - c.opened_at) / 3600), {LAST_HOUR})::int::text ELSE '' END),
    ('source', c.recovered_by)
) AS facet(name, key)
GROUP BY 1, 2, 3, 4, 5, 6, 7, 8
"""  # noqa: S608  (a constant, no input)

# An invoice that is recovered, disputed and recovered again has several episodes. A dispute that was won after all ends
# one without new money: together they never come to more than was paid and taken back (`gross`). What went back
# between an episode's end and the next one's lowers that episode; what exceeds it (`over`) lowers the ones before, so
# that the days add up to the money that was kept. With the running sum P of (went back - gross), the overflow into
# episode k from itself and later ones is max(0, max(P from k on) - P before k).
_RECOVERIES = f"""
WITH closed AS (
    SELECT c.id, c.invoice_id, days.merchant_id, days.day
    FROM days
    JOIN retries_case c
      ON c.merchant_id = days.merchant_id AND c.closed_at >= days.starts AND c.closed_at < days.ends
     AND c.status = 'RECOVERED'
), ordered AS (
    SELECT c.id, c.invoice_id, c.connection_id, c.currency, c.opened_at, c.closed_at, c.recovered_by, c.recovered_minor,
           COALESCE(sum(c.recovered_minor) OVER (earlier ROWS UNBOUNDED PRECEDING EXCLUDE CURRENT ROW), 0) AS before,
           lead(c.closed_at) OVER earlier AS next_closed_at
    FROM retries_case c
    WHERE c.invoice_id IN (SELECT invoice_id FROM closed) AND c.status = 'RECOVERED'
    WINDOW earlier AS (PARTITION BY c.invoice_id, c.currency ORDER BY c.closed_at, c.id)
), episode AS (
    SELECT o.*, LEAST(o.recovered_minor, GREATEST(0, i.paid_minor + lost.minor - o.before)) AS gross,
           refunded.minor + lost.after AS went_back
    FROM ordered o
    JOIN invoices_invoice i ON i.id = o.invoice_id
    CROSS JOIN LATERAL (
        SELECT COALESCE(sum(COALESCE(t.captured_minor, t.amount_minor)), 0) AS minor FROM invoices_transaction t
        WHERE t.invoice_id = o.invoice_id AND t.kind = 'REFUND' AND t.status = 'DONE' AND t.currency = o.currency
          AND t.reversed_at IS NULL AND t.finished_at >= o.closed_at
          AND (o.next_closed_at IS NULL OR t.finished_at < o.next_closed_at)
    ) refunded
    CROSS JOIN LATERAL (
        SELECT COALESCE(sum(d.amount_minor), 0) AS minor,
               COALESCE(sum(d.amount_minor) FILTER (WHERE d.applied_at >= o.closed_at
                   AND (o.next_closed_at IS NULL OR d.applied_at < o.next_closed_at)), 0) AS after
        FROM invoices_dispute d
        WHERE d.invoice_id = o.invoice_id AND d.status = 'LOST' AND d.currency = o.currency
          AND d.applied_at IS NOT NULL
    ) lost
), running AS (
    SELECT e.*, e.went_back - e.gross AS net,
           sum(e.went_back - e.gross) OVER (PARTITION BY e.invoice_id, e.currency ORDER BY e.closed_at, e.id) AS upto
    FROM episode e
), overflow AS (
    SELECT r.*, max(r.upto) OVER (PARTITION BY r.invoice_id, r.currency ORDER BY r.closed_at DESC, r.id DESC) AS most
    FROM running r
), told AS (
    SELECT o.*,
           o.went_back
           + GREATEST(0, lead(o.most, 1, o.upto) OVER (PARTITION BY o.invoice_id, o.currency
                                                       ORDER BY o.closed_at, o.id) - o.upto)
           - GREATEST(0, o.most - o.upto + o.net) AS back
    FROM overflow o
)
SELECT closed.merchant_id, closed.day, told.connection_id, told.currency, told.recovered_by AS source,
       COALESCE(LEAST(paid.number, {LAST_NUMBER}), 0) AS number,
       count(*) AS cases, sum(told.gross)::bigint AS gross_minor, sum(told.back)::bigint AS back_minor
FROM closed
JOIN told ON told.id = closed.id
LEFT JOIN LATERAL (
    SELECT a.number FROM invoices_attempt a
    WHERE a.invoice_id = told.invoice_id AND a.kind = 'CHARGE' AND a.status = 'SUCCEEDED'
      AND a.finished_at >= told.opened_at AND a.finished_at <= told.closed_at
    ORDER BY a.finished_at DESC, a.id DESC LIMIT 1
) paid ON true
GROUP BY 1, 2, 3, 4, 5, 6
"""  # noqa: S608  (a constant, no input)

# An UNKNOWN attempt has no answer though it should have one: that is how a provider that hangs shows first.
_HOURS = """
SELECT days.merchant_id, days.day, a.connection_id, date_trunc('hour', a.attempted_at, 'UTC') AS hour,
       facet.name AS facet, facet.key, a.number > 1 AS again,
       count(*) AS attempts, count(*) FILTER (WHERE a.status <> 'SUCCEEDED') AS failed
FROM days
JOIN invoices_attempt a
  ON a.merchant_id = days.merchant_id AND a.attempted_at >= days.starts AND a.attempted_at < days.ends
LEFT JOIN tokens_card card ON card.id = a.card_id
CROSS JOIN LATERAL (VALUES
    ('all', ''),
    ('country', COALESCE(card.country, '')),
    ('code', a.raw_code)
) AS facet(name, key)
WHERE a.kind = 'CHARGE' AND a.status IN ('SUCCEEDED', 'DECLINED', 'ERRORED', 'UNKNOWN')
  AND (facet.name = 'all' OR facet.key <> '')
GROUP BY 1, 2, 3, 4, 5, 6, 7
"""

_ATTEMPTS_TOUCHED = """
SELECT merchant_id, attempted_at AS at FROM invoices_attempt WHERE invoice_id = ANY(%(invoices)s) AND kind = 'CHARGE'
UNION ALL
SELECT a.merchant_id, a.attempted_at
FROM tokens_card card JOIN invoices_attempt a ON a.card_id = card.id AND a.kind = 'CHARGE'
WHERE card.facts_xid >= %(xid)s::xid8 AND card.facts_xid <= %(until)s::xid8
"""
_CASES_TOUCHED = """
SELECT merchant_id, opened_at AS at FROM retries_case WHERE invoice_id = ANY(%(invoices)s)
UNION ALL
SELECT c.merchant_id, c.opened_at
FROM tokens_card card JOIN invoices_attempt a ON a.card_id = card.id AND a.kind = 'CHARGE'
JOIN retries_case c ON c.invoice_id = a.invoice_id
WHERE card.facts_xid >= %(xid)s::xid8 AND card.facts_xid <= %(until)s::xid8
"""

ROLLUPS: Final = (
    Rollup(
        "attempts",
        "analytics_attemptrollup",
        "connection_id, facet, key, category, attempts, succeeded, declined, errored",
        _ATTEMPTS,
        _ATTEMPTS_TOUCHED,
    ),
    Rollup(
        "hours",
        "analytics_hourrollup",
        "connection_id, hour, facet, key, again, attempts, failed",
        _HOURS,
        _ATTEMPTS_TOUCHED,
    ),
    Rollup(
        "cases",
        "analytics_caserollup",
        "connection_id, facet, key, category, currency, status, cases, amount_minor, recovered_minor",
        _CASES,
        _CASES_TOUCHED,
    ),
    Rollup(
        "recoveries",
        "analytics_recoveryrollup",
        "connection_id, currency, source, number, cases, gross_minor, back_minor",
        _RECOVERIES,
        "SELECT merchant_id, closed_at AS at FROM retries_case"
        " WHERE invoice_id = ANY(%(invoices)s) AND status = 'RECOVERED'",
    ),
)

# Day boundaries of the merchant's zone; the parameter list is one row per merchant and day.
DAYS: Final = """
days AS (
    SELECT merchant_id, day, day::timestamp AT TIME ZONE zone AS starts, (day + 1)::timestamp AT TIME ZONE zone AS ends
    FROM unnest(%(merchants)s::bigint[], %(days)s::date[], %(zones)s::text[]) AS given(merchant_id, day, zone)
)
"""
