"""Step 1: take due jobs. One statement, SKIP LOCKED, nothing else locked or written."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import connection

from retries.models import RetryJob
from retries.states import JobStatus


@dataclass(frozen=True, slots=True)
class Claim:
    """A job that is RUNNING under `token` until the lease ends on the database clock."""

    job_pk: int
    case_pk: int | None
    customer_pk: int
    invoice_pk: int
    connection_pk: int
    kind: str
    token: uuid.UUID


# A lane is what waits for one connection. Lanes are found by jumping along the index (merchant, connection, band,
# due_at); each gives its first jobs band by band, and the merchants take turns. The lane of a connection that may not
# be called now is passed over as a whole, however many jobs are in it: switched off, paused, asked to wait, shut by its
# breaker (one call is let through once its time is over), or without a call left in its rate limit.
_DUE = """
WITH RECURSIVE lanes(merchant_id, connection_id) AS (
    (SELECT merchant_id, connection_id FROM retries_retryjob WHERE status = 'SCHEDULED'
     ORDER BY merchant_id, connection_id LIMIT 1)
    UNION ALL
    SELECT following.merchant_id, following.connection_id FROM lanes CROSS JOIN LATERAL (
        SELECT job.merchant_id, job.connection_id FROM retries_retryjob job
        WHERE job.status = 'SCHEDULED'
          AND (job.merchant_id, job.connection_id) > (lanes.merchant_id, lanes.connection_id)
        ORDER BY job.merchant_id, job.connection_id LIMIT 1
    ) following
), open_lanes AS (
    SELECT lanes.merchant_id, lanes.connection_id, CASE
        WHEN gate.shut_times > 0 THEN 1
        WHEN rate.per_second IS NULL OR NOT %(rated)s THEN %(limit)s
        ELSE LEAST(%(limit)s, floor(greatest(1, rate.per_second) - rate.per_second * greatest(0, coalesce(
            extract(epoch FROM gate.next_free_at - clock_timestamp()), 0))))
    END AS room
    FROM lanes
    JOIN accounts_merchant merchant ON merchant.id = lanes.merchant_id AND merchant.charging_enabled
    JOIN invoices_connection account ON account.id = lanes.connection_id
        AND account.enabled AND account.paused_reason = '' AND account.mode <> 'schedule'
    LEFT JOIN retries_providergate gate ON gate.connection_id = lanes.connection_id
    CROSS JOIN LATERAL (SELECT CASE jsonb_typeof(account.settings -> 'max_per_second') WHEN 'number'
        THEN nullif(greatest(0, (account.settings ->> 'max_per_second')::numeric), 0) END AS per_second) rate
    WHERE (gate.shut_until IS NULL OR gate.shut_until <= %(now)s)
      AND (gate.asked_until IS NULL OR gate.asked_until <= %(now)s)
      AND NOT EXISTS (SELECT 1 FROM accounts_globalswitch WHERE NOT charging_enabled)
), shares(jobs) AS (
    -- Twice an even share of each lane that has due work is looked at: a backlog in many lanes costs no more than one.
    SELECT greatest(1, ceil(2.0 * %(limit)s / greatest(1, count(*))))::int FROM open_lanes
    WHERE EXISTS (
        SELECT 1 FROM generate_series(0, 9) AS band_number CROSS JOIN LATERAL (
            SELECT 1 FROM retries_retryjob job
            WHERE job.status = 'SCHEDULED' AND job.merchant_id = open_lanes.merchant_id
              AND job.connection_id = open_lanes.connection_id
              AND job.band = band_number AND job.due_at <= %(now)s LIMIT 1
        ) one
    )
), firsts AS (
    SELECT due.id, due.band, due.due_at, open_lanes.merchant_id, open_lanes.room,
        row_number() OVER (PARTITION BY open_lanes.connection_id ORDER BY due.band, due.due_at, due.id) AS place
    FROM open_lanes CROSS JOIN LATERAL (
        SELECT banded.* FROM generate_series(0, 9) AS band_number
        CROSS JOIN LATERAL (
            SELECT job.id, job.band, job.due_at FROM retries_retryjob job
            WHERE job.status = 'SCHEDULED' AND job.merchant_id = open_lanes.merchant_id
              AND job.connection_id = open_lanes.connection_id
              AND job.band = band_number AND job.due_at <= %(now)s
              AND (job.case_id IS NULL OR job.case_id <> ALL(%(done)s))
            ORDER BY job.due_at LIMIT (SELECT jobs FROM shares)
        ) banded
        LIMIT (SELECT jobs FROM shares)
    ) due
), turns AS (
    SELECT id, band, due_at, row_number() OVER (PARTITION BY merchant_id ORDER BY band, due_at, id) AS turn
    FROM firsts WHERE place <= room
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
RETURNING job.id, job.case_id, job.customer_id, job.invoice_id, job.connection_id, job.kind
"""
)
_LIST = _DUE + "SELECT id FROM chosen"  # noqa: S608  (two constants, no input)
# A RUNNING job whose worker died before step 2 has no attempt; only such jobs are claimed again, and never before they
# are due: the clock of who takes it over may be behind that of who claimed it first.
_RECLAIM = """
WITH locked AS (
    SELECT id FROM retries_retryjob
    WHERE status = 'RUNNING' AND attempt_id IS NULL AND lease_until < clock_timestamp() AND due_at <= %(now)s
      AND (case_id IS NULL OR case_id <> ALL(%(done)s))
    ORDER BY lease_until LIMIT %(limit)s FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE retries_retryjob job
SET claim_token = %(token)s, lease_until = clock_timestamp() + %(lease)s
FROM locked WHERE job.id = locked.id
RETURNING job.id, job.case_id, job.customer_id, job.invoice_id, job.connection_id, job.kind
"""


def jobs_claim(*, now: datetime, lease: timedelta, limit: int, done_cases: Sequence[int] = ()) -> list[Claim]:
    """Claim up to `limit` jobs due at `now`, merchants in turn, bands in order; first those that a dead worker left.

    `done_cases` are passed over (a drain makes at most one attempt per case).
    """
    token = uuid.uuid4()
    parameters: dict[str, Any] = {
        "now": now,
        "lease": lease,
        "limit": limit,
        "done": list(done_cases),
        "token": token,
        "rated": True,
    }
    with connection.cursor() as cursor:
        cursor.execute(_RECLAIM, parameters)
        rows = cursor.fetchall()
        if len(rows) < limit:
            cursor.execute(_CLAIM, {**parameters, "limit": limit - len(rows)})
            rows += cursor.fetchall()
    return [_read(row, token) for row in rows]


def _read(row: Sequence[Any], token: uuid.UUID) -> Claim:
    job, case, customer, invoice, account, kind = row
    return Claim(job, case, customer, invoice, account, kind, token)


def jobs_due(*, now: datetime, limit: int, done_cases: Sequence[int] = (), rated: bool = True) -> list[int]:
    """Primary keys of the jobs that `jobs_claim` would take, without taking them; without `rated` also of those that
    only wait for their connection's rate limit."""
    parameters: dict[str, Any] = {"now": now, "limit": limit, "done": list(done_cases), "rated": rated}
    with connection.cursor() as cursor:
        cursor.execute(_LIST, parameters)
        return [pk for (pk,) in cursor.fetchall()]


def case_due_again(claim: Claim, *, now: datetime) -> int | None:
    """The claim's case if its next retry is due already (at once after a network error), else None."""
    due = RetryJob.objects.filter(case=claim.case_pk, status=JobStatus.SCHEDULED, due_at__lte=now)
    return claim.case_pk if claim.case_pk is not None and due.exists() else None


def job_claim(job_pk: int, *, lease: timedelta) -> Claim | None:
    """Claim one SCHEDULED job whatever its due time, or None if it is not SCHEDULED."""
    token = uuid.uuid4()
    parameters: dict[str, Any] = {"token": token, "lease": lease, "job": job_pk}
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE retries_retryjob SET status = 'RUNNING', claim_token = %(token)s, attempt_id = NULL,"
            " lease_until = clock_timestamp() + %(lease)s WHERE id = %(job)s AND status = 'SCHEDULED'"
            " RETURNING id, case_id, customer_id, invoice_id, connection_id, kind",
            parameters,
        )
        row = cursor.fetchone()
    return _read(row, token) if row else None


_RELEASE = """
UPDATE retries_retryjob SET status = 'SCHEDULED', claim_token = NULL, lease_until = NULL
WHERE id = %(job)s AND status = 'RUNNING' AND claim_token = %(token)s AND attempt_id IS NULL
"""
_UNCLAIM = """
UPDATE retries_retryjob
SET status = 'SCHEDULED', due_at = %(due_at)s, last_error = %(error)s, claim_token = NULL, lease_until = NULL,
    failures = CASE WHEN %(failed)s THEN failures + 1 ELSE failures END
WHERE id = %(job)s AND status = 'RUNNING' AND claim_token = %(token)s AND attempt_id IS NULL
"""


def job_release(claim: Claim) -> None:
    """Put a claimed job back as it was."""
    with connection.cursor() as cursor:
        cursor.execute(_RELEASE, {"job": claim.job_pk, "token": claim.token})


def job_unclaim(claim: Claim, *, error: str, due_at: datetime, failed: bool = False) -> None:
    """Push a job that cannot go now to `due_at`, the error kept, so that it cannot stop a sweep.

    `failed`: its own preparation raised, which is counted until it is booked anew.
    """
    parameters: dict[str, Any] = {"due_at": due_at, "error": error[:500], "job": claim.job_pk, "token": claim.token}
    parameters["failed"] = failed
    with connection.cursor() as cursor:
        cursor.execute(_UNCLAIM, parameters)
