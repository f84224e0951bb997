"""`/metrics` for Prometheus: how recovery goes, computed from PostgreSQL at each scrape. No customer in any label.

Read with `Authorization: Bearer METRICS_TOKEN`; without that setting the address does not exist. The must-be-zero
checks read more than a scrape may cost and are kept for five minutes.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from secrets import compare_digest
from typing import Any

from django.conf import settings
from django.core.cache import cache
from django.db import connection
from django.http import Http404, HttpRequest, HttpResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe
from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from accounts.models import Merchant
from analytics.period import period_of, zone_of
from analytics.selectors.invariants import NAMES, breaches
from recovery_site.common import clock
from recovery_site.health import checks
from tokens.mirror.metrics import MirrorCollector

_WINDOW = timedelta(hours=24)
_BOARD_SECONDS = 300
_BOARD_DAYS = 30
_SECONDS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_RETRIES = (1.0, 2.0, 3.0, 5.0, 8.0, 15.0)

_QUEUE = "SELECT status, count(*) FROM retries_retryjob WHERE status = ANY(%(open)s) GROUP BY 1"
# Merchant by merchant, because that is how attempts are indexed.
_RECENT = """
FROM accounts_merchant m CROSS JOIN LATERAL (
    SELECT a.* FROM invoices_attempt a
    WHERE a.merchant_id = m.id AND a.attempted_at > %(since)s AND a.kind = 'CHARGE' AND a.origin = 'OURS'
) a
"""
_OUTCOMES = f"SELECT a.status, a.category, count(*) {_RECENT} GROUP BY 1, 2"
_PER_CUSTOMER = f"SELECT tries, count(*) FROM (SELECT count(*) AS tries {_RECENT} GROUP BY a.customer_id) t GROUP BY 1"  # noqa: S608
# Real time from the committed intent to the committed answer.
_TIMES = f"""
SELECT extract(epoch FROM ended.recorded_at - began.recorded_at)::float {_RECENT}
JOIN invoices_event began ON began.invoice_id = a.invoice_id AND began.subject_id = a.public_id
 AND began.kind = 'attempt.sending'
JOIN invoices_event ended ON ended.invoice_id = a.invoice_id AND ended.subject_id = a.public_id
 AND ended.from_state = 'SENDING'
"""  # noqa: S608
_WAITING = """
SELECT COALESCE(extract(epoch FROM clock_timestamp() - min(due_at)
           FILTER (WHERE status = 'RECEIVED' AND due_at <= clock_timestamp())), 0)::float,
       count(*) FILTER (WHERE status = 'RECEIVED'), count(*) FILTER (WHERE status = 'FAILED')
FROM webhooks_inboxevent WHERE status IN ('RECEIVED', 'FAILED')
"""
_DEAD = "SELECT count(*) FROM invoices_outboxmessage WHERE dead_at IS NOT NULL AND done_at IS NULL"


@require_safe
@never_cache
def metrics(request: HttpRequest) -> HttpResponse:
    """The text format of Prometheus; 404 without the setting, 401 without its token."""
    if not settings.METRICS_TOKEN:
        raise Http404("Metrics are switched off: set METRICS_TOKEN.")
    given = request.headers.get("Authorization", "").removeprefix("Bearer ")
    if not compare_digest(given.encode(), settings.METRICS_TOKEN.encode()):
        return HttpResponse("Send Authorization: Bearer METRICS_TOKEN.\n", status=401, content_type="text/plain")
    registry = CollectorRegistry()
    registry.register(_Collector())
    registry.register(MirrorCollector())
    return HttpResponse(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)


class _Collector:
    """What one scrape reads."""

    def collect(self) -> Iterator[Metric]:
        now = clock.now()
        yield from _queue()
        yield from _attempts({"since": now - _WINDOW})
        yield from _machinery(now)
        board = GaugeMetricFamily("must_be_zero", "Broken promises found in the last 30 days", labels=["check"])
        for name, count in _board(now).items():
            board.add_metric([name], count)
        yield board


def _rows(sql: str, **parameters: Any) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        rows: list[tuple[Any, ...]] = cursor.fetchall()
    return rows


def _queue() -> Iterator[Metric]:
    queue = GaugeMetricFamily("retry_queue_size", "Open retry jobs by state", labels=["state"])
    states = ["QUEUED", "SCHEDULED", "RUNNING", "PAUSED", "NEEDS_REVIEW"]
    found = dict(_rows(_QUEUE, open=states))
    for state in states:
        queue.add_metric([state.lower()], found.get(state, 0))
    yield queue


def _attempts(window: Mapping[str, datetime]) -> Iterator[Metric]:
    won = decided = 0
    errors = GaugeMetricFamily("error_type_distribution", "Failed retries of the last 24 hours", labels=["category"])
    failed: dict[str, int] = {}
    for status, category, number in _rows(_OUTCOMES, **window):
        won += number if status == "SUCCEEDED" else 0
        decided += number if status in ("SUCCEEDED", "DECLINED") else 0
        if status in ("DECLINED", "ERRORED"):
            failed[category] = failed.get(category, 0) + number
    for category, number in sorted(failed.items()):
        errors.add_metric([category.lower()], number)
    rate = GaugeMetricFamily("retry_success_rate", "Succeeded share of the last 24 hours' retries with an outcome")
    if decided:
        rate.add_metric([], won / decided)
    yield rate
    yield errors
    tries = [(float(tries), customers) for tries, customers in _rows(_PER_CUSTOMER, **window)]
    yield _histogram("user_retry_frequency", "Retries per customer in the last 24 hours", _RETRIES, tries)
    times = [(seconds, 1) for (seconds,) in _rows(_TIMES, **window)]
    yield _histogram("retry_processing_time", "Seconds from a retry's intent to its answer, 24 hours", _SECONDS, times)


def _histogram(name: str, words: str, edges: tuple[float, ...], values: list[tuple[float, int]]) -> Metric:
    """`values` are (value, how many)."""
    family = HistogramMetricFamily(name, words)
    buckets = [(str(edge), float(sum(n for value, n in values if value <= edge))) for edge in edges]
    buckets.append(("+Inf", float(sum(n for _, n in values))))
    family.add_metric([], buckets=buckets, sum_value=sum(value * n for value, n in values))
    return family


def _machinery(now: datetime) -> Iterator[Metric]:
    ((lag, waiting, failed),) = _rows(_WAITING)
    ((dead,),) = _rows(_DEAD)
    yield GaugeMetricFamily("inbox_lag_seconds", "Age of the oldest due webhook", value=lag)
    yield GaugeMetricFamily("inbox_waiting", "Webhooks that are not processed yet", value=waiting)
    yield GaugeMetricFamily("inbox_failed", "Webhooks that were given up", value=failed)
    yield GaugeMetricFamily("outbox_dead", "Messages to consumers that were given up", value=dead)
    up = GaugeMetricFamily("health_check", "1 ok, 0.5 degraded, 0 failed", labels=["check"])
    late = GaugeMetricFamily("health_check_seconds", "Age or lateness behind a check", labels=["check"])
    for check in checks(now):
        up.add_metric([check.name], {"ok": 1.0, "degraded": 0.5, "failed": 0.0}[check.state])
        if check.seconds is not None:
            late.add_metric([check.name], check.seconds)
    yield up
    yield late


def _board(now: datetime) -> dict[str, int]:
    def count() -> dict[str, int]:
        found = dict.fromkeys(NAMES, 0)
        for merchant in Merchant.objects.order_by("pk"):
            period = period_of(_BOARD_DAYS, now, zone_of(merchant.timezone))
            for name in NAMES:
                found[name] += len(breaches(name, merchant, period))
        return found

    board: dict[str, int] | None = cache.get_or_set("metrics:board", count, _BOARD_SECONDS)
    return board if board is not None else count()
