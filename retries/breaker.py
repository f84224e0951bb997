"""When a provider counts as down, and for how long nobody tries it. Pure.

Only failures of the provider itself put strain on it: no connection, no answer, an answer of 5xx. A decline is an
answer. Three refused connections in a row are proof enough; lost answers happen to healthy providers too, so they need
more.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import IntEnum

SHUT_AT = 20
# What built up longer ago than this says nothing about now.
FORGET_AFTER = timedelta(hours=1)
COOL_OFF = timedelta(seconds=30)
LONGEST_COOL_OFF = timedelta(minutes=15)
# A call that tries a shut provider has this long before somebody else may try it.
PROBE_TIME = timedelta(seconds=30)
# Too many requests, without a word on how long to wait.
BREATHER = timedelta(seconds=10)


class Trouble(IntEnum):
    """How much one failed call says against the provider."""

    NO_ANSWER = 1
    NO_CONNECTION = 7


@dataclass(frozen=True, slots=True)
class Health:
    """What is known of a provider. Shut while `shut_until` lies ahead; after that one call at a time tries it, until
    one is answered (`shut_times` says how often it was shut in a row)."""

    strain: int = 0
    strained_since: datetime | None = None
    shut_until: datetime | None = None
    shut_times: int = 0

    @property
    def on_trial(self) -> bool:
        """Shut, or open to a single call at a time."""
        return self.shut_times > 0

    def is_shut(self, now: datetime) -> bool:
        return self.shut_until is not None and self.shut_until > now


def cool_off(times: int) -> timedelta:
    """How long to leave a provider alone that was shut `times` times in a row: 30 s, doubling, at most 15 min."""
    return min(LONGEST_COOL_OFF, COOL_OFF * (1 << min(max(times - 1, 0), 10)))


def after_trouble(health: Health, trouble: Trouble, now: datetime, *, probe: bool) -> Health:
    """The health after a failed call. Of a provider that is shut already only the `probe` says anything new."""
    if health.on_trial:
        return _shut(health, now) if probe else health
    since = health.strained_since
    if since is None or now - since > FORGET_AFTER:
        health, since = replace(health, strain=0), now
    strained = replace(health, strain=min(SHUT_AT, health.strain + trouble), strained_since=since)
    return _shut(strained, now) if strained.strain >= SHUT_AT else strained


def _shut(health: Health, now: datetime) -> Health:
    times = health.shut_times + 1
    return replace(health, shut_until=now + cool_off(times), shut_times=times)


def after_probe_began(health: Health, now: datetime) -> Health:
    """Nobody else tries the provider while the probe is under way."""
    return replace(health, shut_until=now + PROBE_TIME)
