"""429 exactly beyond the limit, also when everybody comes at once; DRF's own throttle shows what happens otherwise."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
import redis
from django.core.cache import caches
from django.db import connection
from rest_framework.throttling import SimpleRateThrottle

from accounts import limits
from accounts.limits import spend
from tests.api.door import Door

LIMIT, CALLERS = 20, 32
MINUTE = timedelta(minutes=1)


def at_once(call: Any, rounds: int) -> int:
    """How many of `CALLERS * rounds` calls from as many threads were let through."""

    def several(_: int) -> int:
        try:
            return sum(bool(call()) for _ in range(rounds))
        finally:
            connection.close()

    with ThreadPoolExecutor(CALLERS) as pool:
        return sum(pool.map(several, range(CALLERS)))


def test_drf_lets_too_many_through_who_ask_at_once(redis_client: Any) -> None:
    """Reading the list and writing it back are two steps: all read before the first one writes."""
    everybody = threading.Barrier(CALLERS)

    class Throttle(SimpleRateThrottle):
        rate = f"{LIMIT}/min"
        cache = caches["limits"]

        def get_cache_key(self, request: Any, view: Any) -> str:
            return "drf-race"

        def throttle_success(self) -> bool:
            everybody.wait(60)
            return bool(super().throttle_success())

    assert at_once(lambda: Throttle().allow_request(None, None), 1) == CALLERS > LIMIT  # type: ignore[arg-type]


def test_ours_lets_exactly_the_limit_through(redis_client: Any) -> None:
    assert at_once(lambda: spend("race", limit=LIMIT, window=MINUTE).allowed, 10) == LIMIT


@pytest.mark.django_db(transaction=True)
def test_without_redis_postgresql_counts_just_as_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*arguments: Any) -> Any:
        raise redis.ConnectionError

    monkeypatch.setattr(limits, "_spend_redis", gone)
    assert at_once(lambda: spend("race", limit=LIMIT, window=MINUTE).allowed, 3) == LIMIT


@pytest.mark.django_db
def test_the_answer_says_when_to_come_back(door: Door, settings: Any) -> None:
    settings.API_RATE_LIMIT = 2
    answers = [door.send("GET", "/invoices") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert [answer.headers["RateLimit-Remaining"] for answer in answers] == ["1", "0", "0"]
    assert {answer.headers["RateLimit-Limit"] for answer in answers} == {"2"}
    assert answers[2].json()["code"] == "rate_limited"
    assert answers[2].headers["RateLimit-Policy"] == "2;w=60"
    assert 1 <= int(answers[2].headers["Retry-After"]) <= 60
    assert Door().send("GET", "/invoices").status_code == 200
