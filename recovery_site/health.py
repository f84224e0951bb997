"""Is the web process alive, and is the service doing its work? Plain JSON, no log-in, no names and no
amounts.

`/health/live` answers without touching anything: restart the process if it does not. `/health/ready` looks at
what the service leans on. PostgreSQL, a dead worker and late work are failures (503): payments are not being
recovered. Redis is not: without it everything is slower and nothing is wrong (DESIGN section 2), so it is
reported as degraded.
"""

from dataclasses import asdict
from datetime import datetime

import redis
from django.db import DatabaseError
from django.http import HttpRequest, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe
from django_redis import get_redis_connection

from analytics.selectors.operations import Check, inbox_check, retries_check, worker_check
from recovery_site.common import clock


@require_safe
@never_cache
def live(request: HttpRequest) -> JsonResponse:
    """200 while this process can answer at all."""
    return JsonResponse({"status": "ok"})


@require_safe
@never_cache
def ready(request: HttpRequest) -> JsonResponse:
    """200 if everything is ok or merely degraded, else 503; the checks say what is wrong."""
    found = checks(clock.now())
    states = {check.state for check in found}
    status = "failed" if "failed" in states else "degraded" if "degraded" in states else "ok"
    body = {"status": status, "checks": [asdict(check) for check in found]}
    return JsonResponse(body, status=503 if status == "failed" else 200)


def checks(now: datetime) -> list[Check]:
    """Every check; `now` is the service's clock. Without a database nothing but Redis can be looked at."""
    try:
        database_now = clock.database_now()
        found = [
            Check("database", "ok", "PostgreSQL answers."),
            worker_check(database_now),
            retries_check(now),
            inbox_check(database_now),
        ]
    except DatabaseError:
        found = [Check("database", "failed", "PostgreSQL does not answer: check DATABASE_URL and the server.")]
    return [*found, redis_check()]


def redis_check() -> Check:
    """Redis answers a PING within its short time-out."""
    try:
        get_redis_connection("limits").ping()
    except (redis.RedisError, OSError):
        return Check("redis", "degraded", "Redis does not answer: check REDIS_URL; PostgreSQL ranks tokens meanwhile.")
    return Check("redis", "ok", "Redis answers.")
