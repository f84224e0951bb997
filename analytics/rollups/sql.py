"""What the rollups consist of, in two steps that are each one SELECT.

**Facts** are what one charge attempt, case or recovery is counted as: the `select` of `Facts` reads them from the
ledger, for a span of time or for some invoices. **Rollups** are those facts added up: the `select` of `Rollup` reads a
relation `changed` of facts with a `sign`, 1 for what is to be counted and -1 for what was counted and is not so any
more. The same texts build the tables, follow the ledger and answer for what has just changed, and can be read as the
definition.
"""

from dataclasses import dataclass
from typing import Final

# Attempts past this number are counted together.
LAST_NUMBER: Final = 8
# How long a recovery took is told to the hour up to this many, then in steps of six: most of the rows were hours.
EXACT_HOURS: Final = 72
# Recoveries that took longer than this many hours are counted together.
LAST_HOUR: Final = 60 * 24
# Cards have no events: their own stamp says when what figures are grouped by changed.
CARDS_CHANGED: Final = "SELECT id FROM tokens_card WHERE facts_xid >= %(xid)s::xid8"


@dataclass(frozen=True, slots=True)
class Rollup:
    """`table` holds what `select` makes of facts: per merchant, day and `keys` the `sums`; the first sum is a count."""

    name: str
    table: str
    keys: tuple[str, ...]
    sums: tuple[str, ...]
    select: str

    @property
    def columns(self) -> str:
        return ", ".join(("merchant_id", "day", *self.keys, *self.sums))


@dataclass(frozen=True, slots=True)
class Facts:
    """What `select` gives of one merchant in one time zone, kept in `table`: `id` is that of the attempt or case.

    `instant` is the column of the ledger that decides the day.
    """

    table: str
    instant: str
    columns: tuple[str, ...]
    select: str
    rollups: tuple[Rollup, ...]

    @property
    def between(self) -> str:
        """The facts of the ledger from `%(start)s` to before `%(end)s`."""
        return self.select.format(chosen=f"one.{self.instant} >= %(start)s AND one.{self.instant} < %(end)s")

    @property
    def changes(self) -> str:
        """`changed` for `%(invoices)s`: what the ledger says of them now, and what was counted of them last."""
        columns = ", ".join(self.columns)
        # A try may have come from another invoice, which may be counted again only later: it was counted there.
        # `fresh` is read by itself: a planner that carries the page's days into the windows of recoveries took 2 s for
        # 500 invoices. What stayed as it was falls out before it is added up.
        return f"""
fresh AS MATERIALIZED ({self.select.format(chosen="one.invoice_id = ANY(%(invoices)s)")}),
changed AS (
    SELECT sum(sign)::int AS sign, {columns} FROM (
        SELECT 1 AS sign, fresh.* FROM fresh
        UNION ALL
        SELECT -1, {columns} FROM {self.table} WHERE merchant_id = %(merchant)s
            AND (invoice_id = ANY(%(invoices)s) OR id = ANY(ARRAY(SELECT id FROM fresh)))
    ) both_sides
    GROUP BY {columns} HAVING sum(sign) <> 0
)"""  # noqa: S608  (constants, no input)


# The provider told of one debt in two halves, and this row is the one whose place the other took.
_NO_OTHER_ROW = """NOT EXISTS (
    SELECT 1 FROM invoices_invoice bill WHERE bill.id = one.invoice_id AND bill.cancel_reason = 'superseded')"""
# network, country: of the card; number: the invoice's attempt number; sender: who sent it and why.
_ATTEMPT_FACTS = f"""
SELECT one.id, one.invoice_id, one.merchant_id, (one.attempted_at AT TIME ZONE %(zone)s)::date AS day,
       one.connection_id, date_trunc('hour', one.attempted_at, 'UTC') AS hour, one.raw_code AS code,
       COALESCE(card.network, '') AS network, COALESCE(card.country, '') AS country,
       LEAST(one.number, {LAST_NUMBER})::smallint AS number, one.origin || ' ' || one.trigger AS sender,
       one.category, one.status
FROM invoices_attempt one
LEFT JOIN tokens_card card ON card.id = one.card_id
WHERE one.merchant_id = %(merchant)s AND one.kind = 'CHARGE' AND {{chosen}}
  AND (one.origin = 'OURS' OR {_NO_OTHER_ROW})
"""  # noqa: S608  (a constant, no input)

_ATTEMPTS = """
SELECT merchant_id, day, connection_id, facet.name AS facet, facet.key, category,
       sum(sign) AS attempts,
       sum(sign * (status = 'SUCCEEDED')::int) AS succeeded,
       sum(sign * (status = 'DECLINED')::int) AS declined,
       sum(sign * (status = 'ERRORED')::int) AS errored
FROM changed
CROSS JOIN LATERAL (VALUES
    ('code', code),
    ('network', network),
    ('country', country),
    ('number', number::text),
    ('sender', sender)
) AS facet(name, key)
GROUP BY 1, 2, 3, 4, 5, 6
"""

# An UNKNOWN attempt has no answer though it should have one: that is how a provider that hangs shows first.
_HOURS = """
SELECT merchant_id, day, connection_id, hour, facet.name AS facet, facet.key,
       number > 1 AS again,
       sum(sign) AS attempts, sum(sign * (status <> 'SUCCEEDED')::int) AS failed
FROM changed
CROSS JOIN LATERAL (VALUES
    ('all', ''),
    ('country', country),
    ('code', code)
) AS facet(name, key)
WHERE status IN ('SUCCEEDED', 'DECLINED', 'ERRORED', 'UNKNOWN') AND (facet.name = 'all' OR facet.key <> '')
GROUP BY 1, 2, 3, 4, 5, 6, 7
"""

# The card is that of the invoice's first attempt. `hours`: from opening to recovery, rounded down.
_CASE_FACTS = f"""
SELECT one.id, one.invoice_id, one.merchant_id, (one.opened_at AT TIME ZONE %(zone)s)::date AS day,
       one.connection_id, one.segment, version.version AS policy, one.first_code AS code,
       COALESCE(first.network, '') AS network, COALESCE(first.country, '') AS country,
       CASE WHEN one.status = 'RECOVERED' THEN
           LEAST(took.hours - CASE WHEN took.hours < {EXACT_HOURS} THEN 0 ELSE took.hours %% 6 END, {LAST_HOUR})
       END AS hours,
       one.recovered_by AS source, one.first_category AS category, one.currency, one.status, one.amount_minor,
       one.recovered_minor
FROM retries_case one
JOIN retries_policyversion version ON version.id = one.policy_version_id
CROSS JOIN LATERAL (
    SELECT GREATEST(0, floor(extract(epoch FROM one.closed_at - one.opened_at) / 3600))::int AS hours
) took
LEFT JOIN LATERAL (
    SELECT card.network, card.country
    FROM invoices_attempt a JOIN tokens_card card ON card.id = a.card_id
    WHERE a.invoice_id = one.invoice_id AND a.kind = 'CHARGE' ORDER BY a.id LIMIT 1
) first ON true
WHERE one.merchant_id = %(merchant)s AND {{chosen}} AND {_NO_OTHER_ROW}
"""  # noqa: S608  (a constant, no input)

_CASES = """
SELECT merchant_id, day, connection_id, facet.name AS facet, facet.key, category, currency,
       status,
       sum(sign) AS cases, sum(sign * amount_minor)::bigint AS amount_minor,
       sum(sign * recovered_minor)::bigint AS recovered_minor
FROM changed
CROSS JOIN LATERAL (VALUES
    ('segment', segment),
    ('policy', policy || ' ' || segment),
    ('code', code),
    ('network', network),
    ('country', country),
    ('hours', COALESCE(hours::text, '')),
    ('source', source)
) AS facet(name, key)
GROUP BY 1, 2, 3, 4, 5, 6, 7, 8
"""

# An invoice that is recovered, disputed and recovered again has several episodes. A dispute that was won after all ends
# one without new money: together they never come to more than was paid and taken back (`gross`). What went back
# between an episode's end and the next one's lowers that episode; what exceeds it (`over`) lowers the ones before, so
# that the days add up to the money that was kept. With the running sum P of (went back - gross), the overflow into
# episode k from itself and later ones is max(0, max(P from k on) - P before k).
_RECOVERY_FACTS = f"""
WITH closed AS (
    SELECT one.id, one.invoice_id, one.merchant_id, (one.closed_at AT TIME ZONE %(zone)s)::date AS day
    FROM retries_case one
    WHERE one.merchant_id = %(merchant)s AND one.status = 'RECOVERED' AND {{chosen}}
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
SELECT closed.id, closed.invoice_id, closed.merchant_id, closed.day, told.connection_id, told.currency,
       told.recovered_by AS source, COALESCE(LEAST(paid.number, {LAST_NUMBER}), 0)::smallint AS number,
       told.gross::bigint AS gross_minor, told.back::bigint AS back_minor
FROM closed
JOIN told ON told.id = closed.id
LEFT JOIN LATERAL (
    SELECT a.number FROM invoices_attempt a
    WHERE a.invoice_id = told.invoice_id AND a.kind = 'CHARGE' AND a.status = 'SUCCEEDED'
      AND a.finished_at >= told.opened_at AND a.finished_at <= told.closed_at
    ORDER BY a.finished_at DESC, a.id DESC LIMIT 1
) paid ON true
"""  # noqa: S608  (a constant, no input)

_RECOVERIES = """
SELECT merchant_id, day, connection_id, currency, source, number, sum(sign) AS cases,
       sum(sign * gross_minor)::bigint AS gross_minor, sum(sign * back_minor)::bigint AS back_minor
FROM changed
GROUP BY 1, 2, 3, 4, 5, 6
"""

_ATTEMPT_COLUMNS = "hour code network country number sender category status"
_CASE_COLUMNS = "segment policy code network country hours source category currency status amount_minor recovered_minor"
_RECOVERY_COLUMNS = "currency source number gross_minor back_minor"


def _facts(table: str, instant: str, columns: str, select: str, *rollups: Rollup) -> Facts:
    names = ("id", "invoice_id", "merchant_id", "day", "connection_id", *columns.split())
    return Facts(f"analytics_{table}", instant, names, select, rollups)


def _rollup(name: str, table: str, keys: str, sums: str, select: str) -> Rollup:
    return Rollup(name, f"analytics_{table}", ("connection_id", *keys.split()), tuple(sums.split()), select)


FACTS: Final = (
    _facts(
        "attemptfact",
        "attempted_at",
        _ATTEMPT_COLUMNS,
        _ATTEMPT_FACTS,
        _rollup("attempts", "attemptrollup", "facet key category", "attempts succeeded declined errored", _ATTEMPTS),
        _rollup("hours", "hourrollup", "hour facet key again", "attempts failed", _HOURS),
    ),
    _facts(
        "casefact",
        "opened_at",
        _CASE_COLUMNS,
        _CASE_FACTS,
        _rollup(
            "cases",
            "caserollup",
            "facet key category currency status",
            "cases amount_minor recovered_minor",
            _CASES,
        ),
    ),
    _facts(
        "recoveryfact",
        "closed_at",
        _RECOVERY_COLUMNS,
        _RECOVERY_FACTS,
        _rollup("recoveries", "recoveryrollup", "currency source number", "cases gross_minor back_minor", _RECOVERIES),
    ),
)
