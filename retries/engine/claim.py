"""Step 1: take due jobs. One statement, SKIP LOCKED, nothing else locked or written."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import connection


@dataclass(frozen=True, slots=True)
class Claim:
    """A job that is RUNNING under `token` until the lease ends on the database clock."""

    job_pk: int
    case_pk: int | None
    customer_pk: int
    invoice_pk: int
    kind: str
    token: uuid.UUID


# Merchants that have due work are found by jumping along the index (merchant, band, due_at); each gives its first jobs
# by band, and the merchants take turns. Work of merchants and connections that may not charge now stays where it is.
_DUE = """
WITH RECURSIVE merchants(id) AS (
    (SELECT merchant_id FROM retries_retryjob WHERE status = 'SCHEDULED' ORDER BY merchant_id LIMIT 1)
    UNION ALL
    SELECT (SELECT job.merchant_id FROM retries_retryjob job
            WHERE job.status = 'SCHEDULED' AND job.merchant_id > merchants.id ORDER BY job.merchant_id LIMIT 1)
    FROM merchants WHERE merchants.id IS NOT NULL
), turns AS (
    SELECT due.id, due.turn, due.band, due.due_at
    FROM merchants
    JOIN accounts_merchant merchant ON merchant.id = merchants.id AND merchant.charging_enabled
    CROSS JOIN LATERAL (
        SELECT job.id, job.band, job.due_at, row_number() OVER (ORDER BY job.band, job.due_at, job.id) AS turn
        FROM (
            SELECT banded.* FROM generate_series(0, 9) AS band_number
            CROSS JOIN LATERAL (
                SELECT inner_job.id, inner_job.band, inner_job.due_at
                FROM retries_retryjob inner_job
                JOIN invoices_connection ON invoices_connection.id = inner_job.connection_id
                WHERE inner_job.status = 'SCHEDULED' AND inner_job.merchant_id = merchants.id
                  AND inner_job.band = band_number AND inner_job.due_at <= %(now)s
                  AND invoices_connection.enabled AND invoices_connection.paused_reason = ''
                  AND (inner_job.case_id IS NULL OR inner_job.case_id <> ALL(%(done)s))
                ORDER BY inner_job.due_at
                LIMIT %(limit)s
            ) banded
        ) job
        LIMIT %(limit)s
    ) due
    WHERE NOT EXISTS (SELECT 1 FROM accounts_globalswitch WHERE NOT charging_enabled)
), chosen AS (
    SELECT id FROM turns ORDER BY turn, band, due_at LIMIT %(limit)s
)
"""
_CLAIM = (
    _DUE  # noqa: S608  (two constants, no input)
    + """, locked AS (
    SELECT job.id FROM retries_retryjob job JOIN chosen USING (id)
    WHERE job.status = 'SCHEDULED' FOR NO KEY UPDATE OF job SKIP LOCKED
)
UPDATE retries_retryjob job
SET status = 'RUNNING', claim_token = %(token)s, lease_until = clock_timestamp() + %(lease)s, attempt_id = NULL
FROM locked WHERE job.id = locked.id
RETURNING job.id, job.case_id, job.customer_id, job.invoice_id, job.kind
"""
)
_LIST = _DUE + "SELECT id FROM chosen"  # noqa: S608  (two constants, no input)
# A RUNNING job whose worker died before step 2 has no attempt; only such jobs are claimed again.
_RECLAIM = """
WITH locked AS (
    SELECT id FROM retries_retryjob
    WHERE status = 'RUNNING' AND attempt_id IS NULL AND lease_until < clock_timestamp()
      AND (case_id IS NULL OR case_id <> ALL(%(done)s))
    ORDER BY lease_until LIMIT %(limit)s FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE retries_retryjob job
SET claim_token = %(token)s, lease_until = clock_timestamp() + %(lease)s
FROM locked WHERE job.id = locked.id
RETURNING job.id, job.case_id, job.customer_id, job.invoice_id, job.kind
"""


def jobs_claim(*, now: datetime, lease: timedelta, limit: int, done_cases: Sequence[int] = ()) -> list[Claim]:
    """Claim up to `limit` jobs due at `now`, merchants in turn, bands in order; first those that a dead worker left.

    `done_cases` are passed over (a drain makes at most one attempt per case).
    """
    token = uuid.uuid4()
    parameters: dict[str, Any] = {"now": now, "lease": lease, "limit": limit, "done": list(done_cases), "token": token}
    with connection.cursor() as cursor:
        cursor.execute(_RECLAIM, parameters)
        rows = cursor.fetchall()
        if len(rows) < limit:
            cursor.execute(_CLAIM, {**parameters, "limit": limit - len(rows)})
            rows += cursor.fetchall()
    return [Claim(job, case, customer, invoice, kind, token) for job, case, customer, invoice, kind in rows]


def jobs_due(*, now: datetime, limit: int) -> list[int]:
    """Primary keys of the jobs that `jobs_claim` would take, without taking them."""
    with connection.cursor() as cursor:
        cursor.execute(_LIST, {"now": now, "limit": limit, "done": []})
        return [pk for (pk,) in cursor.fetchall()]


def job_claim(job_pk: int, *, lease: timedelta) -> Claim | None:
    """Claim one SCHEDULED job whatever its due time, or None if it is not SCHEDULED."""
    token = uuid.uuid4()
    parameters: dict[str, Any] = {"token": token, "lease": lease, "job": job_pk}
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE retries_retryjob SET status = 'RUNNING', claim_token = %(token)s, attempt_id = NULL,"
            " lease_until = clock_timestamp() + %(lease)s WHERE id = %(job)s AND status = 'SCHEDULED'"
            " RETURNING id, case_id, customer_id, invoice_id, kind",
            parameters,
        )
        row = cursor.fetchone()
    return Claim(row[0], row[1], row[2], row[3], row[4], token) if row else None


_UNCLAIM = """
UPDATE retries_retryjob
SET status = 'SCHEDULED', due_at = %(due_at)s, last_error = %(error)s, claim_token = NULL, lease_until = NULL
WHERE id = %(job)s AND status = 'RUNNING' AND claim_token = %(token)s AND attempt_id IS NULL
"""


def job_unclaim(claim: Claim, *, error: str, due_at: datetime) -> None:
    """Push a job whose preparation raised to `due_at`, the error kept, so that it cannot stop a sweep."""
    parameters: dict[str, Any] = {"due_at": due_at, "error": error[:500], "job": claim.job_pk, "token": claim.token}
    with connection.cursor() as cursor:
        cursor.execute(_UNCLAIM, parameters)
