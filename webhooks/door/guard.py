"""How many of something in a window, per endpoint: counted in this process, without asking anybody."""

from functools import lru_cache
from math import ceil
from time import monotonic

from django.conf import settings

from webhooks.door.answers import TooMany


class Guard:
    """`limit` at once, and then as many as the window gives back: never more than twice `limit` in one window.

    Each name costs one number: the time at which it has used up nothing (the generic cell rate algorithm).
    """

    def __init__(self, limit: int, window: float) -> None:
        self._window = window
        self._each = window / limit
        self._free_at: dict[int, float] = {}

    def take(self, name: int, now: float | None = None) -> int:
        """0 if there was a place, which is taken; else the seconds until there is one. Refusals take none."""
        now = monotonic() if now is None else now
        free_at = max(self._free_at.get(name, now), now) + self._each
        if free_at - now > self._window + self._each / 2:
            return max(1, ceil(free_at - now - self._window))
        self._free_at[name] = free_at
        return 0


@lru_cache(maxsize=16)
def _guard(kind: str, limit: int, window: float) -> Guard:
    return Guard(limit, window)


def spend_good(endpoint_pk: int) -> None:
    """Count one webhook whose signature is good. Raises TooMany."""
    guard = _guard("good", settings.WEBHOOK_RATE_LIMIT, settings.WEBHOOK_RATE_WINDOW.total_seconds())
    if seconds := guard.take(endpoint_pk):
        raise TooMany("More webhooks than WEBHOOK_RATE_LIMIT came to this endpoint.", retry_after=seconds)


def spend_bad(endpoint_pk: int) -> None:
    """Count one that nobody signed: apart, so that it uses up no sender's place. Beyond their limit they are told to
    come later, and are not logged one by one. Raises TooMany."""
    guard = _guard("bad", settings.WEBHOOK_BAD_LIMIT, settings.WEBHOOK_RATE_WINDOW.total_seconds())
    if seconds := guard.take(endpoint_pk):
        raise TooMany("More bad signatures than WEBHOOK_BAD_LIMIT came here.", retry_after=seconds, unlogged=True)
