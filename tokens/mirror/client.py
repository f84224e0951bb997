"""The connection to Redis: short time-outs, three scripts, a breaker, and counters for metrics.

Every call here is best effort: None means that Redis gave no answer, for whatever reason, and PostgreSQL must.
"""

import hashlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import redis
import structlog
from django.conf import settings
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError, ResponseError
from redis.retry import Retry

from tokens.mirror.breaker import Breaker
from tokens.mirror.keys import CustomerKeys

log = structlog.get_logger()
# Redis may cost this much once, then the breaker opens; a healthy one answers in a tenth of a millisecond.
_TIMEOUT_SECONDS = 0.1
_FOLDER = Path(__file__).parent
_NAMES = ("calls", "failed", "skipped", "cold", "unreadable", "short", "written", "outdated", "repaired", "disagreed")
# What a script is given: keys, and what is behind them.
Argument: TypeAlias = bytes | str | int
Request: TypeAlias = tuple[Sequence[str], Sequence[Argument]]
_lock = threading.Lock()
_counters: Counter[str] = Counter()
breaker = Breaker()


def count(name: str, number: int = 1) -> None:
    """Add to one of this process's counters."""
    with _lock:
        _counters[name] += number


def mirror_counters() -> Mapping[str, int]:
    """What happened in this process since it started, for metrics.

    calls, failed, skipped (breaker open), opened (times the breaker opened), open (now: 1), cold, unreadable, short,
    written, outdated (a newer value stood there), repaired (keys with foreign content), disagreed (PostgreSQL took
    back what Redis said).
    """
    with _lock:
        return {name: _counters[name] for name in _NAMES} | {"opened": breaker.opened, "open": int(breaker.open)}


@cache
def connection(url: str) -> redis.Redis:
    """One pool per process and address. No retries: a second try would double the time-out."""
    return redis.Redis.from_url(
        url,
        socket_timeout=_TIMEOUT_SECONDS,
        socket_connect_timeout=_TIMEOUT_SECONDS,
        retry=Retry(NoBackoff(), 0),
    )


class Script:
    """A Lua file, run by its hash; sent whole only to a server that does not know it yet."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.text = (_FOLDER / f"{name}.lua").read_text(encoding="utf-8")
        self.sha = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()

    def run(self, keys: Sequence[str], *arguments: Argument) -> Any:
        """The reply, a ResponseError as a value. Raises RedisError."""
        server = connection(settings.REDIS_URL)
        try:
            try:
                return server.evalsha(self.sha, len(keys), *keys, *arguments)
            except NoScriptError:
                return server.eval(self.text, len(keys), *keys, *arguments)
        except ResponseError as error:
            return error

    def run_many(self, requests: Sequence[Request]) -> list[Any]:
        """As `run` for each, in one round trip."""
        server = connection(settings.REDIS_URL)
        replies = self._sent(server, requests)
        if any(isinstance(reply, NoScriptError) for reply in replies):
            server.script_load(self.text)
            replies = self._sent(server, requests)  # whatever was run before is run again: the newer value stays
        return replies

    def _sent(self, server: redis.Redis, requests: Sequence[Request]) -> list[Any]:
        pipeline: Any = server.pipeline(transaction=False)
        for keys, arguments in requests:
            pipeline.evalsha(self.sha, len(keys), *keys, *arguments)
        found: list[Any] = pipeline.execute(raise_on_error=False)
        return found


SELECT, WRITE, SLOT = Script("select"), Script("write"), Script("slot")


def call(script: Script, keys: Sequence[str], *arguments: Argument) -> Any | None:
    """Run a script through the breaker: its reply, a ResponseError as a value if it could not work with what it
    found, None if there is no answer. Never raises a Redis error."""
    (reply,) = _called(script, [keys], lambda: [script.run(keys, *arguments)])
    return reply


def call_many(script: Script, requests: Sequence[Request]) -> list[Any | None]:
    """As `call` for each, in one round trip, which counts as one for the breaker."""
    return _called(script, [keys for keys, _ in requests], lambda: script.run_many(requests)) if requests else []


def _called(script: Script, keys: Sequence[Sequence[str]], run: Callable[[], list[Any]]) -> list[Any | None]:
    if not breaker.allows():
        count("skipped", len(keys))
        return [None] * len(keys)
    count("calls", len(keys))
    started = time.monotonic()
    try:
        replies = run()
    except RedisError as error:
        breaker.failed()
        count("failed", len(keys))
        log.warning("mirror_failed", script=script.name, error=type(error).__name__, open=breaker.open)
        return [None] * len(keys)
    breaker.succeeded(time.monotonic() - started)
    for names, reply in zip(keys, replies, strict=True):
        if isinstance(reply, ResponseError):
            # Redis is well, but could not work with what it holds (or may not write): one customer, not an outage.
            count("failed")
            log.warning("mirror_refused", script=script.name, key=names[-1], error=str(reply)[:200])
    return replies


def slot_extend(keys: CustomerKeys, *, owner: str, milliseconds: int, fence: int | None = None) -> bool | None:
    """Keep the slot's entry longer; False, and nothing changed, unless this owner (with this fence) stands there."""
    return _slot(keys, owner, fence, max(1, milliseconds))


def slot_release(keys: CustomerKeys, *, owner: str, fence: int | None = None) -> bool | None:
    """Take the slot's entry away; False, and nothing changed, unless this owner (with this fence) stands there."""
    return _slot(keys, owner, fence, 0)


def _slot(keys: CustomerKeys, owner: str, fence: int | None, milliseconds: int) -> bool | None:
    reply = call(SLOT, [keys.status], owner, "" if fence is None else fence, milliseconds)
    return None if reply is None else reply == 1


def read(keys: CustomerKeys) -> tuple[bytes | None, dict[bytes, bytes], bytes | None] | None:
    """The three values as they stand, for people and repairs; None if Redis does not answer or a type is foreign."""
    if not breaker.allows():
        count("skipped")
        return None
    started = time.monotonic()
    try:
        pipeline: Any = connection(settings.REDIS_URL).pipeline(transaction=True)
        status, tokens, budget = pipeline.get(keys.status).hgetall(keys.tokens).get(keys.budget).execute()
    except RedisError as error:
        breaker.failed()
        log.warning("mirror_failed", script="read", error=type(error).__name__, open=breaker.open)
        return None
    breaker.succeeded(time.monotonic() - started)
    return status, tokens, budget


def forget(names: Sequence[str]) -> bool:
    """Remove keys; False if Redis did not answer."""
    if not breaker.allows():
        return False
    started = time.monotonic()
    try:
        connection(settings.REDIS_URL).unlink(*names)
    except RedisError as error:
        breaker.failed()
        log.warning("mirror_failed", script="forget", error=type(error).__name__, open=breaker.open)
        return False
    breaker.succeeded(time.monotonic() - started)
    return True
