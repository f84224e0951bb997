from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis
from django.db import DatabaseError
from django.test import Client

from recovery_site.common import clock
from retries.models import Beat, RetryJob
from tests.console.world import World


def ready(client: Client) -> tuple[int, dict[str, Any]]:
    response = client.get("/health/ready")
    body = response.json()
    return response.status_code, {check["name"]: check for check in body["checks"]} | {"status": body["status"]}


@pytest.fixture
def beating(db: None) -> Beat:
    return Beat.objects.create(name="worker:here:1", at=clock.database_now())


def test_liveness_touches_nothing(client: Client) -> None:
    # No database mark on this test: a query would raise.
    response = client.get("/health/live")
    assert (response.status_code, response.json()) == (200, {"status": "ok"})


def test_working_service_is_ready(client: Client, beating: Beat) -> None:
    code, checks = ready(client)
    assert code == 200
    assert {name: check["state"] for name, check in checks.items() if name != "status"} == {
        "database": "ok",
        "worker": "ok",
        "retries": "ok",
        "inbox": "ok",
        "redis": "ok",
    }
    assert checks["status"] == "ok"


def test_service_without_a_worker_is_not_ready(client: Client, db: None) -> None:
    code, checks = ready(client)
    assert (code, checks["status"], checks["worker"]["state"]) == (503, "failed", "failed")
    assert "start one with manage.py run_worker" in checks["worker"]["text"]


def test_sweep_run_by_hand_is_no_worker(client: Client, db: None) -> None:
    Beat.objects.create(name="retries", at=clock.database_now())
    assert ready(client)[0] == 503


def test_worker_that_missed_three_sweeps_is_dead(client: Client, beating: Beat) -> None:
    Beat.objects.update(at=clock.database_now() - timedelta(seconds=80))
    assert ready(client)[0] == 200
    Beat.objects.update(at=clock.database_now() - timedelta(seconds=100))
    code, checks = ready(client)
    assert (code, checks["worker"]["state"]) == (503, "failed")
    assert 100 <= checks["worker"]["seconds"] < 160


def test_late_retries_are_a_failure_and_due_ones_are_not(client: Client, beating: Beat) -> None:
    world = World(at=datetime.now(UTC) - timedelta(hours=24, minutes=5))
    world.fail()  # booked for 24 hours later: due five minutes ago
    code, checks = ready(client)
    assert (code, checks["retries"]["state"]) == (200, "ok")
    RetryJob.objects.update(due_at=datetime.now(UTC) - timedelta(minutes=11))
    code, checks = ready(client)
    assert (code, checks["retries"]["state"]) == (503, "failed")
    assert checks["retries"]["text"] == "The oldest due retry is 11 min late."


def test_lateness_is_in_real_time_on_a_fast_clock(client: Client, beating: Beat, settings: Any) -> None:
    real = datetime.now(UTC)
    settings.CLOCK_SPEED = 1000
    settings.CLOCK_ANCHOR = clock.ClockAnchor(real=real, virtual=real)
    World(at=real - timedelta(days=2)).fail()  # a day late on the fast clock, under two minutes in real time
    code, checks = ready(client)
    assert code == 200
    assert 0 < checks["retries"]["seconds"] < 120


def test_redis_down_is_told_but_stops_nothing(client: Client, beating: Beat, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(alias: str) -> redis.Redis:
        return redis.Redis(host="127.0.0.1", port=9, socket_connect_timeout=0.2)

    monkeypatch.setattr("recovery_site.health.get_redis_connection", refuse)
    code, checks = ready(client)
    assert (code, checks["status"], checks["redis"]["state"]) == (200, "degraded", "degraded")


def test_database_down_is_a_clean_answer(client: Client, db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> datetime:
        raise DatabaseError("connection refused: user=secret")

    monkeypatch.setattr("recovery_site.common.clock.database_now", refuse)
    response = client.get("/health/ready")
    assert response.status_code == 503
    assert [check["name"] for check in response.json()["checks"]] == ["database", "redis"]
    assert "secret" not in response.content.decode()


def test_answers_are_never_cached_and_name_nobody(client: Client, beating: Beat) -> None:
    World(name="Secret Merchant").fail(customer="cus_secret")
    response = client.get("/health/ready")
    assert "no-store" in response["Cache-Control"]
    assert "ecret" not in response.content.decode()
