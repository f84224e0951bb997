"""A server on a real socket that answers like Stripe, from a script; and the objects Stripe would send."""

import json
import socket
import ssl
import struct
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from providers.stripe.client import StripeClient

KEY = "sk_test_of_nobody_at_all"
CREATED = 1767258000  # 2026-01-01T09:00:00Z, a Thursday


@dataclass(frozen=True)
class Answer:
    """`how`: whole | reset (connection reset instead of an answer) | cut (half a body) | hang | drip."""

    status: int = 200
    body: object = None
    headers: Mapping[str, str] = field(default_factory=dict)
    how: str = "whole"

    @property
    def content(self) -> bytes:
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


@dataclass(frozen=True)
class Seen:
    method: str
    path: str
    params: Mapping[str, str]
    headers: Mapping[str, str]


class StripeWire(ThreadingHTTPServer):
    """Answers each `METHOD /path` with the next of its answers; the last one repeats. Notes what it saw."""

    daemon_threads = True

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        if context is not None:
            self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        self.scheme = "https" if context else "http"
        self.answers: dict[str, list[Answer]] = {}
        self.seen: list[Seen] = []
        self.closing = threading.Event()
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02})

    def __enter__(self) -> "StripeWire":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self.shutdown()
        self._thread.join()
        self.server_close()

    def script(self, request: str, *answers: Answer) -> None:
        self.answers[request] = list(answers)

    def next_answer(self, request: str) -> Answer:
        queue = self.answers.get(request)
        if not queue:
            return Answer(404, error("invalid_request_error", code="resource_missing"))
        return queue.pop(0) if len(queue) > 1 else queue[0]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up, or a handshake it refuses, is part of the test."""

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.server_address[1]}"

    def client(self, **config: Any) -> StripeClient:
        return StripeClient({"api_key": KEY, "base_url": self.url, "timeout_seconds": 10, **config})

    def lines(self) -> list[str]:
        return [f"{seen.method} {seen.path}" for seen in self.seen]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: StripeWire

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        form = self.rfile.read(int(self.headers.get("Content-Length", "0"))).decode()
        url = urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        params = dict(parse_qsl(form or url.query))
        self.server.seen.append(Seen(self.command, url.path, params, headers))
        answer = self.server.next_answer(f"{self.command} {url.path}")
        if answer.how == "reset":
            self._reset()
        elif answer.how == "hang":
            self.server.closing.wait(30)
            self.close_connection = True
        else:
            self._send(answer)

    def _send(self, answer: Answer) -> None:
        self.send_response(answer.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer.content)))
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.end_headers()
        if answer.how == "cut":
            self.wfile.write(answer.content[: len(answer.content) // 2])
            self.close_connection = True
        elif answer.how == "drip":
            for byte in answer.content:
                self.wfile.write(bytes([byte]))
                if self.server.closing.wait(0.05):
                    break
            self.close_connection = True
        else:
            self.wfile.write(answer.content)

    def _reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Quiet."""


def error(kind: str, **parts: object) -> dict[str, object]:
    return {"error": {"type": kind, "message": f"As Stripe words it, about {KEY}.", **parts}}


def charge(**changes: object) -> dict[str, Any]:
    card = {
        "brand": "visa",
        "country": "NL",
        "exp_month": 4,
        "exp_year": 2028,
        "fingerprint": "fp01",
        "funding": "debit",
        "last4": "0341",
        "network": "visa",
    }
    return {
        "id": "ch_1",
        "object": "charge",
        "amount": 4900,
        "amount_captured": 4900,
        "captured": True,
        "created": CREATED,
        "currency": "eur",
        "customer": "cus_1",
        "failure_code": None,
        "metadata": {"attempt": "att_01", "invoice": "inv_01"},
        "outcome": {"network_status": "approved_by_network", "type": "authorized"},
        "payment_intent": "pi_1",
        "payment_method": "pm_1",
        "payment_method_details": {"type": "card", "card": card},
        "status": "succeeded",
        **changes,
    }


def intent(**changes: object) -> dict[str, Any]:
    return {
        "id": "pi_1",
        "object": "payment_intent",
        "amount": 4900,
        "amount_received": 4900,
        "client_secret": "pi_1_secret_abc",
        "created": CREATED - 1,
        "currency": "eur",
        "customer": "cus_1",
        "last_payment_error": None,
        "latest_charge": charge(),
        "livemode": False,
        "metadata": {"attempt": "att_01", "invoice": "inv_01"},
        "next_action": None,
        "payment_method": "pm_1",
        "payment_method_types": ["card", "link"],
        "status": "succeeded",
        **changes,
    }


def declined_intent(**changes: object) -> dict[str, Any]:
    failure = {
        "type": "card_error",
        "code": "card_declined",
        "decline_code": "do_not_honor",
        "advice_code": "try_again_later",
        "network_decline_code": "05",
        "network_advice_code": "02",
        "message": "Your card was declined.",
        "charge": "ch_1",
        "payment_method": {
            "id": "pm_1",
            "object": "payment_method",
            "type": "card",
            "card": {"brand": "visa"},
        },
    }
    return intent(
        **{
            "amount_received": 0,
            "last_payment_error": failure,
            "latest_charge": "ch_1",
            "payment_method": None,
            "status": "requires_payment_method",
            **changes,
        }
    )


def page(*entries: object, has_more: bool = False) -> dict[str, Any]:
    return {"object": "list", "data": list(entries), "has_more": has_more}
