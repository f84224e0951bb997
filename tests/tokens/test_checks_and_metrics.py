"""Rules are checked at the start; what Redis does to a process can be read by Prometheus."""

from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from tokens import checks
from tokens.mirror import client
from tokens.mirror.breaker import FAILURES_TO_OPEN, Breaker
from tokens.mirror.metrics import MirrorCollector
from tokens.rules import RuleBook, load_rules


def ids() -> list[str | None]:
    return [error.id for error in checks.network_rules_are_valid(None)]


def test_the_shipped_rules_pass():
    assert ids() == []


@pytest.mark.parametrize("limit", [1, 16, 19])
def test_a_visa_limit_between_the_two_stops_the_start(settings, limit: int):
    settings.VISA_RETRY_LIMIT = limit
    assert ids() == ["tokens.E002"]


def test_a_mistake_in_the_rules_stops_the_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    file = tmp_path / "network_rules.toml"
    file.write_text("format = 1\n[[rule]]\nnetworks = ['visa']\n", encoding="utf-8")

    def read() -> RuleBook:
        return load_rules(file)

    monkeypatch.setattr(checks, "load_rules", read)
    assert ids() == ["tokens.E001"]


def test_the_breaker_and_what_happened_can_be_scraped(monkeypatch: pytest.MonkeyPatch):
    breaker = Breaker()
    monkeypatch.setattr(client, "breaker", breaker)
    registry = CollectorRegistry()
    registry.register(MirrorCollector())
    value = registry.get_sample_value
    skipped = value("recovery_mirror_events_total", {"event": "skipped"})
    assert skipped is not None
    assert value("recovery_mirror_breaker_open") == 0
    for _ in range(FAILURES_TO_OPEN):
        breaker.failed()
    assert client.forget(["any"]) is False
    client.count("skipped")
    assert value("recovery_mirror_breaker_open") == 1
    assert value("recovery_mirror_events_total", {"event": "opened"}) == 1
    assert value("recovery_mirror_events_total", {"event": "skipped"}) == skipped + 1
