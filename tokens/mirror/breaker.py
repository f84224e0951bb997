"""Skips Redis while it is down or slow, and comes back by itself."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

# One answer later than this costs as much as PostgreSQL's own; several in a row are a Redis that does not help.
SLOW_SECONDS = 0.05
FAILURES_TO_OPEN = 3
FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 30.0


@dataclass(slots=True)
class Breaker:
    """Closed: every call goes through. After three failures in a row (errors or slow answers) it opens: calls are
    skipped for a second, then one call is let through as a probe; if that fails the pause doubles, up to 30 s.

    Shared by the threads of a process. `clock` is monotonic seconds.
    """

    clock: Callable[[], float] = time.monotonic
    opened: int = field(default=0, init=False)
    _failures: int = field(default=0, init=False)
    _pause: float = field(default=FIRST_PAUSE_SECONDS, init=False)
    _closed_from: float = field(default=0.0, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    @property
    def open(self) -> bool:
        return self._failures >= FAILURES_TO_OPEN

    @property
    def resting(self) -> bool:
        """Open, and not yet time for a probe. Takes none."""
        return self.open and self.clock() < self._closed_from

    def allows(self) -> bool:
        """True if a call may be made now; while open, for one probe per pause."""
        if not self.open:
            return True
        with self._lock:
            now = self.clock()
            if now < self._closed_from:
                return False
            self._closed_from = now + self._pause  # the probe's caller has this long to report
            return True

    def succeeded(self, seconds: float) -> None:
        """A call was answered after `seconds`; too late counts as a failure, though its answer is used."""
        if seconds > SLOW_SECONDS:
            self.failed()
        elif self._failures:
            with self._lock:
                self._failures, self._pause = 0, FIRST_PAUSE_SECONDS

    def failed(self) -> None:
        """A call brought no answer."""
        with self._lock:
            if self.open:
                self._pause = min(2 * self._pause, LONGEST_PAUSE_SECONDS)
            self._failures += 1
            if self._failures == FAILURES_TO_OPEN:
                self.opened += 1
            self._closed_from = self.clock() + self._pause
