"""System checks of the queue and the clock."""

from datetime import timedelta
from typing import Any

import pytest
from django.test import override_settings

from recovery_site import checks
from recovery_site.settings import Q_CLUSTER


def errors(**cluster: Any) -> list[str]:
    with override_settings(Q_CLUSTER={**Q_CLUSTER, **cluster}):
        return [error.msg for error in checks.queue_hands_out_once(None)]


def test_shipped_queue_settings_hand_a_task_out_once() -> None:
    assert checks.queue_hands_out_once(None) == []


@pytest.mark.parametrize(("retry", "wrong"), [(60, True), (360, True), (361, False), (1000, False)])
def test_retry_must_outlast_the_wait_in_a_worker_and_the_task(retry: int, wrong: bool) -> None:
    # 100 s per task, two tasks per worker in the queue: 100 * (4 / 2 + 1) + 60 s of slack = 360 s
    found = errors(timeout=100, workers=2, queue_limit=4, retry=retry, ALT_CLUSTERS={})
    sentence = (
        f"Cluster 'recovery' would hand out a waiting task twice: retry is {retry} s and must be above 360 s,"
        " which is timeout * (queue_limit / workers + 1) + slack."
    )
    assert found == ([sentence] if wrong else [])


def test_every_cluster_is_held_to_the_rule_with_what_it_inherits() -> None:
    found = errors(ALT_CLUSTERS={"inbox": {"timeout": 5000}})
    assert len(found) == 1
    assert found[0].startswith("Cluster 'inbox' would hand out a waiting task twice")


@override_settings(PRODUCTION=True, CLOCK_SPEED=2)
def test_fast_clock_is_refused_in_production() -> None:
    assert [error.id for error in checks.production_clock_is_real(None)] == ["recovery_site.E002"]


@override_settings(PRODUCTION=False, CLOCK_SPEED=2)
def test_fast_clock_is_what_the_demo_is_for() -> None:
    assert checks.production_clock_is_real(None) == []


@override_settings(PRODUCTION=True, QUEUE_TASK_TIMEOUT=timedelta(minutes=5), RETRY_LOCK_TIMEOUT=timedelta(minutes=5))
def test_task_as_long_as_the_lease_is_refused_in_production() -> None:
    assert [error.id for error in checks.lease_outlasts_task(None)] == ["recovery_site.E003"]
