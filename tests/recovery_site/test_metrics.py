"""`/metrics`: protected, told by the ledger; the shipped dashboard asks only for what is there."""

import json
import re
from pathlib import Path

import pytest
from django.conf import settings
from django.test import Client
from prometheus_client.parser import text_string_to_metric_families

from tests.console.world import World

pytestmark = pytest.mark.django_db
AS_PROMETHEUS = {"Authorization": "Bearer the-token"}


@pytest.fixture(autouse=True)
def _token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "METRICS_TOKEN", "the-token")


def read(client: Client) -> dict[str, float]:
    answer = client.get("/metrics", headers=AS_PROMETHEUS)
    assert answer.status_code == 200
    return {
        sample.name + "".join(f"|{value}" for _, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.content.decode())
        for sample in family.samples
    }


def test_only_who_has_the_token_reads_them(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    assert client.get("/metrics").status_code == 401
    assert client.get("/metrics", headers={"Authorization": "Bearer another"}).status_code == 401
    monkeypatch.setattr(settings, "METRICS_TOKEN", "")
    assert client.get("/metrics", headers=AS_PROMETHEUS).status_code == 404


def test_figures_come_from_the_ledger(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    monkeypatch.setattr("recovery_site.common.clock.now", lambda: world.at)
    empty = read(client)
    assert (empty["retry_queue_size|scheduled"], empty["must_be_zero|over_network_rule"]) == (0, 0)
    assert "retry_success_rate" not in empty, "a rate of nothing is no rate"
    world.fail(customer="cus_a", token="tok_a")
    world.fail(customer="cus_b", token="tok_b")
    world.wait(hours=25)
    first, second = world.send()
    world.answer(first, "ok")
    world.answer(second, "insufficient_funds")
    found = read(client)
    assert found["retry_success_rate"] == 0.5
    assert found["error_type_distribution|insufficient_funds"] == 1
    assert found["retry_queue_size|scheduled"] == 1
    assert (found["user_retry_frequency_bucket|1.0"], found["user_retry_frequency_sum"]) == (2, 2)
    assert (found["retry_processing_time_count"], found["retry_processing_time_bucket|30.0"]) == (2, 2)
    assert (found["health_check|database"], found["health_check|worker"]) == (1, 0)
    assert found["inbox_lag_seconds"] == 0


def test_no_customer_is_in_a_label(client: Client) -> None:
    world = World()
    invoice = world.fail(customer="cus_secret")
    text = client.get("/metrics", headers=AS_PROMETHEUS).content.decode()
    for secret in ("cus_secret", invoice.public_id, invoice.customer.public_id, "example.com"):
        assert secret not in text


def test_shipped_dashboard_and_alerts_ask_for_metrics_that_exist(client: Client) -> None:
    there = {name.partition("|")[0] for name in read(client)} | {"retry_success_rate", "error_type_distribution"}
    folder = Path(settings.BASE_DIR, "docs", "monitoring")
    panels = json.loads((folder / "grafana-dashboard.json").read_text())["panels"]
    asked = [target["expr"] for panel in panels for target in panel["targets"]]
    asked += re.findall(r"expr: (.+)", (folder / "alert-rules.yml").read_text())
    assert len(asked) > 15
    for expression in asked:
        names = set(re.findall(r"\b[a-z]+(?:_[a-z]+)+\b", expression)) - {"histogram_quantile", "avg_over_time"}
        assert names, expression
        assert names <= there, expression
