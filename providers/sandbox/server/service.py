"""Starts and stops the sandbox provider."""

import json
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from providers.sandbox.server.engine import Engine
from providers.sandbox.server.http import SandboxHttpServer
from providers.sandbox.server.ledger import Ledger
from providers.sandbox.server.parking import Parking
from providers.sandbox.server.webhook_sender import WebhookSender

KEY_TTL_SECONDS = 24 * 3600.0
HOLD_SECONDS = 60.0
STOP_SECONDS = 5.0
_ENDS = frozenset({signal.SIGTERM, signal.SIGINT})


class SandboxServer:
    """A running sandbox provider: `start`, use `url`, `stop`. Port 0 takes a free one.

    `key_ttl_seconds`: how long an Idempotency-Key is kept; `hold_seconds`: how long a timeout step holds.
    Raises LedgerError if the ledger is damaged or in use, OSError if the port is taken.
    """

    def __init__(
        self,
        host: str,
        port: int,
        ledger_path: str | Path,
        *,
        key_ttl_seconds: float = KEY_TTL_SECONDS,
        hold_seconds: float = HOLD_SECONDS,
    ) -> None:
        self._engine = Engine(Ledger(ledger_path), key_ttl_seconds=key_ttl_seconds)
        self._parking = Parking(hold_seconds)
        self._http = SandboxHttpServer((host, port), self._engine, self._parking)
        self._sender = WebhookSender(lambda: self._engine.state.hook, self._engine.record_delivery)
        self._thread = threading.Thread(
            target=self._http.serve_forever, kwargs={"poll_interval": 0.1}, name="sandbox-http", daemon=True
        )
        bound_host, bound_port = self._http.server_address[:2]
        self.url = f"http://{bound_host!s}:{bound_port}"

    def start(self) -> None:
        for event in list(self._engine.state.undelivered.values()):
            self._sender.enqueue(event)
        self._engine.on_event = self._sender.enqueue
        self._sender.start()
        self._parking.start()
        self._thread.start()

    def stop(self) -> None:
        """Take no more connections, let requests at work finish, write the ledger out."""
        self._http.shutdown()
        self._http.server_close()
        self._engine.wake()
        self._http.wait_idle(STOP_SECONDS)
        self._parking.stop()
        self._sender.stop()
        self._engine.close()


def print_url(url: str) -> None:
    """One JSON line on stdout, which says that requests are answered from now on."""
    sys.stdout.write(json.dumps({"url": url}) + "\n")
    sys.stdout.flush()


def serve(
    host: str,
    port: int,
    ledger_path: str | Path,
    *,
    key_ttl_seconds: float = KEY_TTL_SECONDS,
    hold_seconds: float = HOLD_SECONDS,
    on_ready: Callable[[str], None] = print_url,
) -> None:
    """Run until SIGTERM or SIGINT, on the main thread; `on_ready` gets the URL, by default it is printed.

    The two are waited for, not handled: a handler runs within whatever this thread does just then, and would wait for
    itself if that held the lock it needs.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDS)  # the server's threads inherit it
    try:
        server = SandboxServer(host, port, ledger_path, key_ttl_seconds=key_ttl_seconds, hold_seconds=hold_seconds)
        try:
            server.start()
            on_ready(server.url)
            signal.sigwait(_ENDS)
        finally:
            server.stop()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
