"""Sends webhooks from a thread of its own, signed by the Standard Webhooks specification."""

import heapq
import json
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import count

from standardwebhooks import Webhook

from providers.sandbox.server.records import Event, Hook

# Seconds before the second, third, ... try; after the last one the event is given up.
RETRY_SECONDS = (0.5, 1.0, 2.0, 4.0)
TIMEOUT_SECONDS = 5.0


class WebhookSender(threading.Thread):
    """One thread, so that events leave in the order they happened unless a try fails.

    `hook` tells where to send, `done(event id, delivered)` is called when an event needs no further sending.
    """

    def __init__(self, hook: Callable[[], Hook | None], done: Callable[[str, bool], None]) -> None:
        super().__init__(name="sandbox-webhooks", daemon=True)
        self._hook = hook
        self._done = done
        self._queue: list[tuple[float, int, int, Event]] = []
        self._order = count()
        self._changed = threading.Condition()
        self._stopping = False

    def enqueue(self, event: Event) -> None:
        self._push(0.0, 1, event)

    def stop(self) -> None:
        """End after the try under way; what is unsent is sent after the next start."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self.join(1.0)

    def _push(self, delay_seconds: float, attempt: int, event: Event) -> None:
        with self._changed:
            heapq.heappush(self._queue, (time.monotonic() + delay_seconds, next(self._order), attempt, event))
            self._changed.notify()

    def run(self) -> None:
        # Imported here because it takes longer than all the rest of the start.
        import requests

        session = requests.Session()
        session.trust_env = False  # a proxy of the environment must not see local traffic
        while (due := self._next()) is not None:
            attempt, event = due
            hook = self._hook()
            if hook is None:
                self._done(event.id, False)
                continue
            body, headers = signed(event, hook, datetime.now(UTC))
            try:
                reply = session.post(
                    hook.url, data=body, headers=headers, timeout=TIMEOUT_SECONDS, allow_redirects=False
                )
                delivered = reply.ok and not reply.is_redirect
            except requests.RequestException:
                delivered = False
            if delivered or attempt > len(RETRY_SECONDS):
                self._done(event.id, delivered)
            else:
                self._push(RETRY_SECONDS[attempt - 1], attempt + 1, event)

    def _next(self) -> tuple[int, Event] | None:
        """Wait for the next due event; None when stopping."""
        with self._changed:
            while not self._stopping:
                wait = self._queue[0][0] - time.monotonic() if self._queue else None
                if wait is not None and wait <= 0:
                    _, _, attempt, event = heapq.heappop(self._queue)
                    return attempt, event
                self._changed.wait(wait)
            return None


def signed(event: Event, hook: Hook, now: datetime) -> tuple[bytes, dict[str, str]]:
    """The body and headers of one try: same id and body on every try, a fresh timestamp and signature."""
    payload = {"id": event.id, "type": event.type, "timestamp": event.created_at, "data": event.data}
    body = json.dumps(payload, separators=(",", ":"))
    headers = {
        "content-type": "application/json",
        "webhook-id": event.id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(hook.secret).sign(event.id, now, body),
    }
    return body.encode(), headers
