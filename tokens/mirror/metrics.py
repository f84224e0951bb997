"""What the mirror did in this process, for Prometheus: is Redis used or skipped, and does it hold what it should?"""

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tokens.mirror.client import mirror_counters

_COUNTERS = {
    "calls": "Scripts run in Redis",
    "failed": "Scripts without an answer",
    "skipped": "Scripts not run because the breaker was open",
    "opened": "Times the breaker opened",
    "cold": "Customers that Redis knew nothing of",
    "unreadable": "Customers whose values in Redis could not be read",
    "short": "Questions that reach further back than what Redis holds",
    "written": "Customers written to Redis",
    "outdated": "Writes that found a newer value",
    "repaired": "Keys with foreign content that were replaced",
    "disagreed": "Times PostgreSQL took back a no of Redis",
}


class MirrorCollector(Collector):
    """`recovery_mirror_breaker_open` and `recovery_mirror_events_total{event}`, read when they are scraped."""

    def collect(self) -> Iterator[Metric]:
        counters = mirror_counters()
        text = "1 while the breaker is open: Redis is skipped and PostgreSQL ranks"
        yield GaugeMetricFamily("recovery_mirror_breaker_open", text, value=counters["open"])
        events = CounterMetricFamily(
            "recovery_mirror_events", "; ".join(f"{name}: {what}" for name, what in _COUNTERS.items()), labels=["event"]
        )
        for name in _COUNTERS:
            events.add_metric([name], counters[name])
        yield events
