"""Due deliveries sent: signed, at least once, tried again for three days, then given up and listed.

Claims, back-off and the record of an endpoint live on the database clock. Nothing is sent with a transaction open.
"""

import random
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import structlog
from django.db import connection as database
from django.db import transaction
from standardwebhooks import Webhook

from recovery_site.common.db import DatabaseClock, fit
from recovery_site.common.errors import RecoveryError
from recovery_site.common.outward import Answer, post
from recovery_site.common.scrubbing import scrub_text
from recovery_site.common.text import storable
from webhooks.models import Delivery, DeliveryTry
from webhooks.outbound.endpoints import signing_secrets
from webhooks.outbound.failing import FAILING, endpoint_accepted, endpoint_failed, endpoint_judge
from webhooks.states import DeliveryStatus

log = structlog.get_logger()
# The pause after each failed try, as Standard Webhooks recommends: three days in all. Lengthened by up to a fifth, so
# that what failed together does not come back together.
BACK_OFF: Final = (
    timedelta(seconds=5),
    timedelta(minutes=5),
    timedelta(minutes=30),
    timedelta(hours=2),
    timedelta(hours=5),
    timedelta(hours=10),
    timedelta(hours=14),
    timedelta(hours=20),
    timedelta(hours=24),
)
MAX_TRIES: Final = len(BACK_OFF) + 1
_JITTER = 0.2
# A receiver that says when to come again is believed up to this.
_RETRY_AFTER_AT_MOST = timedelta(hours=24)
# A claimed delivery is due again after this long, in case its worker died: far longer than a try may take.
LEASE = timedelta(minutes=2)
THREADS = 8
PER_ENDPOINT = 4

# Oldest first of every endpoint that is on and does not rest, a few of each: endpoints take turns.
_CLAIM = """
WITH due AS (
    SELECT found.id, found.due_at FROM webhooks_outboundendpoint endpoint
    CROSS JOIN LATERAL (
        SELECT delivery.id, delivery.due_at FROM webhooks_delivery delivery
        WHERE delivery.endpoint_id = endpoint.id AND delivery.status = 'PENDING'
          AND delivery.due_at <= clock_timestamp()
        ORDER BY delivery.due_at, delivery.id
        LIMIT CASE WHEN endpoint.failures >= %(failing)s THEN 1 ELSE %(each)s END
        FOR NO KEY UPDATE SKIP LOCKED
    ) found
    WHERE endpoint.enabled AND NOT endpoint.id = ANY(%(busy)s)
      AND (endpoint.rests_until IS NULL OR endpoint.rests_until <= clock_timestamp())
    ORDER BY found.due_at, found.id LIMIT %(limit)s
)
UPDATE webhooks_delivery delivery SET due_at = clock_timestamp() + %(lease)s, tries = delivery.tries + 1
FROM due WHERE delivery.id = due.id
RETURNING delivery.id
"""


@dataclass(slots=True)
class DeliveryCounts:
    """What a drain did; `dead` are those given up."""

    delivered: int = 0
    retried: int = 0
    dead: int = 0

    @property
    def total(self) -> int:
        return self.delivered + self.retried + self.dead

    def as_dict(self) -> dict[str, int]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class _Outcome:
    """How one request ended: an answer, or an error in words."""

    answer: Answer | None
    error: str
    seconds: float

    @property
    def accepted(self) -> bool:
        return self.answer is not None and self.answer.accepted


def deliveries_drain(
    *, now: datetime, limit: int = 1000, keep_going: Callable[[], bool] = lambda: True
) -> DeliveryCounts:
    """Send up to `limit` due deliveries, several at a time, no endpoint more than PER_ENDPOINT.

    `keep_going` is asked before each claim; what is being sent then is waited for. `now` decides which secrets sign and
    is written down as the time of the end.
    """
    counts = DeliveryCounts()
    flying: dict[Future[_Outcome], Delivery] = {}
    claimed = 0
    with ThreadPoolExecutor(THREADS, thread_name_prefix="deliver") as pool:
        while True:
            free = min(THREADS - len(flying), limit - claimed)
            found = _claim(flying.values(), free) if free > 0 and keep_going() else []
            claimed += len(found)
            for delivery in found:
                flying[pool.submit(_send, delivery, now)] = delivery
            if not flying:
                return counts
            for future in wait(flying, return_when=FIRST_COMPLETED).done:
                _finish(flying.pop(future), future.result(), now, counts)


def _claim(flying: Any, limit: int) -> list[Delivery]:
    """Due deliveries, now leased to us; not of endpoints that have enough on the way from here."""
    under_way = [delivery.endpoint_id for delivery in flying]
    busy = [pk for pk in set(under_way) if under_way.count(pk) >= PER_ENDPOINT]
    parameters: dict[str, Any] = {
        "failing": FAILING,
        "each": PER_ENDPOINT,
        "busy": busy,
        "limit": limit,
        "lease": LEASE,
    }
    with database.cursor() as cursor:
        cursor.execute(_CLAIM, parameters)
        claimed = [pk for (pk,) in cursor.fetchall()]
    return list(
        Delivery.objects.select_related("endpoint", "event__invoice").filter(pk__in=claimed).order_by("due_at", "pk")
    )


def signed_headers(delivery: Delivery, *, now: datetime, sent_at: datetime) -> dict[str, str]:
    """Standard Webhooks: a signature per valid secret over id, time and body."""
    secrets = signing_secrets(delivery.endpoint, now)
    signatures = [Webhook(secret).sign(delivery.message_id, sent_at, delivery.body) for secret in secrets]
    return {
        "Content-Type": "application/json",
        "User-Agent": "Revenue-Recovery/1",
        "webhook-id": delivery.message_id,
        "webhook-timestamp": str(int(sent_at.timestamp())),
        "webhook-signature": " ".join(signatures),
    }


def _send(delivery: Delivery, now: datetime) -> _Outcome:
    """Runs in a thread and touches no database."""
    started = time.monotonic()
    answer, error = None, ""
    try:
        # Signatures live on the real clock: the receiver compares with its own.
        headers = signed_headers(delivery, now=now, sent_at=datetime.now(UTC))
        answer = post(delivery.endpoint.url, delivery.body.encode(), headers)
        if not answer.accepted:
            error = f"The receiver answered {answer.status}."
    except RecoveryError as failure:
        error = failure.message
    return _Outcome(answer, error, time.monotonic() - started)


def _finish(delivery: Delivery, outcome: _Outcome, now: datetime, counts: DeliveryCounts) -> None:
    """The endpoint's record, then what becomes of the delivery, then its end as an endpoint."""
    status = outcome.answer.status if outcome.answer else None
    if outcome.accepted:
        endpoint_accepted(delivery.endpoint_id)
    else:
        endpoint_failed(delivery.endpoint_id)
    _record(delivery, outcome, status, now, counts)
    if not outcome.accepted:
        endpoint_judge(delivery, status, now)


@transaction.atomic
def _record(delivery: Delivery, outcome: _Outcome, status: int | None, now: datetime, counts: DeliveryCounts) -> None:
    """One line in the log and the next state, together. A delivery that another worker has claimed since (this one was
    held up beyond its lease) only gets its line."""
    row = Delivery.objects.select_for_update(no_key=True).get(pk=delivery.pk)
    error = fit(Delivery, "last_error", storable(scrub_text(outcome.error)))
    DeliveryTry.objects.create(
        merchant_id=row.merchant_id,
        delivery=row,
        duration_ms=round(outcome.seconds * 1000),
        status_code=status,
        error=error,
        answer=fit(DeliveryTry, "answer", _shown(outcome.answer)),
    )
    if row.status != DeliveryStatus.PENDING or row.tries != delivery.tries:
        return
    row.last_status, row.last_error, fields = status, error, ["status", "last_status", "last_error"]
    if outcome.accepted:
        row.deliver()
        counts.delivered += 1
    elif row.tries >= MAX_TRIES:
        row.give_up()
        counts.dead += 1
    else:
        row.due_at = DatabaseClock() + _pause(row.tries, outcome.answer)
        fields.append("due_at")
        counts.retried += 1
    if row.status != DeliveryStatus.PENDING:
        row.finished_at = now
        fields.append("finished_at")
    row.save(update_fields=fields)
    _tell(row, outcome)


def _pause(tries: int, answer: Answer | None) -> timedelta:
    """How long to wait after failed try number `tries`."""
    pause = BACK_OFF[tries - 1] * random.uniform(1, 1 + _JITTER)
    asked = answer.retry_after if answer is not None else ""
    if asked.isascii() and asked.isdecimal() and len(asked) < 10:
        pause = max(pause, min(timedelta(seconds=int(asked)), _RETRY_AFTER_AT_MOST))
    return pause


def _shown(answer: Answer | None) -> str:
    """The beginning of the answer's body for people: it may hold anything, also what was sent."""
    return storable(scrub_text(answer.body.decode(errors="replace"))) if answer is not None else ""


def _tell(delivery: Delivery, outcome: _Outcome) -> None:
    say = log.info if outcome.accepted else log.error if delivery.status == DeliveryStatus.DEAD else log.warning
    say(
        "delivery_tried",
        delivery=delivery.public_id,
        endpoint=delivery.endpoint_id,
        type=delivery.event_type,
        status=delivery.status,
        answer=delivery.last_status,
        tries=delivery.tries,
        seconds=round(outcome.seconds, 3),
    )
