"""The billing systems of the demo at work: webhooks over real HTTP, each when the demo's clock comes to it."""

import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import datetime, timedelta

import structlog

from providers.simulator.population import Delivery
from recovery_site.common import clock
from recovery_site.demo.cast import Cast, Player
from recovery_site.demo.delivery import signed

log = structlog.get_logger()
_TIMEOUT_SECONDS = 10
_RETRY_SECONDS = 2.0
_TRIES = 5


class Traffic(threading.Thread):
    """Sends `deliveries` to the web server at `base_url` until it is told to stop. Touches no database."""

    def __init__(self, cast: Cast, deliveries: Iterator[Delivery], base_url: str) -> None:
        super().__init__(name="traffic", daemon=True)
        self._cast, self._deliveries, self._base_url = cast, deliveries, base_url
        self._stopped = threading.Event()
        self.sent = 0

    def run(self) -> None:
        for delivery in self._deliveries:
            if not self._wait_until(delivery.at):
                return
            self._send(delivery)

    def stop(self) -> None:
        """Send nothing more; returns when the last webhook is through."""
        self._stopped.set()
        if self.is_alive():
            self.join(_TIMEOUT_SECONDS)

    def _wait_until(self, at: datetime) -> bool:
        """False if it was stopped before the demo's clock showed `at`."""
        while (left := at - clock.now()) > timedelta():
            if self._stopped.wait(min(clock.to_real_seconds(left), 5.0)):
                return False
        return not self._stopped.is_set()

    def _send(self, delivery: Delivery) -> None:
        """Post one webhook; a billing system tries again when it does not hear 200."""
        player = self._cast.players[delivery.merchant]
        for _ in range(_TRIES):
            try:
                self._post(delivery, player)
            except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
                log.warning("demo_webhook_failed", webhook=delivery.event_id, error=str(error))
                if self._stopped.wait(_RETRY_SECONDS):
                    return
            else:
                self.sent += 1
                return

    def _post(self, delivery: Delivery, player: Player) -> None:
        request = signed(delivery, player)
        address = f"{self._base_url}/webhooks/{player.endpoint.provider}/{player.endpoint.uuid}/"
        post = urllib.request.Request(address, data=request.body, headers=dict(request.headers))  # noqa: S310 - our own http address
        with urllib.request.urlopen(post, timeout=_TIMEOUT_SECONDS) as answer:  # noqa: S310 - as above
            answer.read()
