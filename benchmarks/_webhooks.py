"""What the ingest benchmark sends, and a client that is cheap, because it shares the machine with the server."""

import hmac
import json
import selectors
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

SECRET = "whsec_benchmark"
CREATED = 1767258000  # the events' own time; a drain's `now` is an hour later


def charge(number: int) -> dict[str, Any]:
    """One failed charge of one customer, as large as Stripe's own."""
    return {
        "id": f"ch_{number}",
        "object": "charge",
        "amount": 4900,
        "amount_captured": 0,
        "amount_refunded": 0,
        "captured": False,
        "created": CREATED,
        "currency": "eur",
        "customer": f"cus_{number}",
        "description": "Subscription update " + "x" * 1500,
        "failure_code": "card_declined",
        "failure_message": "Your card has insufficient funds.",
        "invoice": f"in_{number}",
        "metadata": {f"key_{n}": "v" * 20 for n in range(20)},
        "outcome": {
            "network_status": "declined_by_network",
            "reason": "insufficient_funds",
            "type": "issuer_declined",
            "network_decline_code": "51",
        },
        "payment_intent": f"pi_{number}",
        "payment_method": f"pm_{number}",
        "payment_method_details": {
            "type": "card",
            "card": {
                "brand": "visa",
                "country": "NL",
                "exp_month": 4,
                "exp_year": 2028,
                "fingerprint": f"fp_{number}",
                "funding": "debit",
                "last4": "0341",
                "network": "visa",
            },
        },
        "status": "failed",
    }


def intent(number: int) -> dict[str, Any]:
    error = {"charge": f"ch_{number}", "code": "card_declined", "decline_code": "insufficient_funds"}
    return {
        "id": f"pi_{number}",
        "object": "payment_intent",
        "amount": 4900,
        "currency": "eur",
        "customer": f"cus_{number}",
        "invoice": f"in_{number}",
        "latest_charge": f"ch_{number}",
        "last_payment_error": error,
        "status": "requires_payment_method",
    }


def invoice(number: int) -> dict[str, Any]:
    return {
        "id": f"in_{number}",
        "object": "invoice",
        "amount_due": 4900,
        "amount_paid": 0,
        "amount_remaining": 4900,
        "attempt_count": 1,
        "charge": f"ch_{number}",
        "created": CREATED - 60,
        "currency": "eur",
        "customer": f"cus_{number}",
        "number": f"N-{number}",
        "payment_intent": f"pi_{number}",
        "status": "open",
        "subscription": f"sub_{number}",
    }


def event(kind: str, about: dict[str, Any], after: int) -> bytes:
    body = {
        "id": f"evt_{kind}_{about['id']}",
        "object": "event",
        "api_version": "2022-11-15",
        "created": CREATED + after,
        "data": {"object": about},
        "livemode": True,
        "type": kind,
    }
    return json.dumps(body, indent=2).encode()


def failed_renewal(number: int) -> list[bytes]:
    """The four events by which Stripe tells one failed renewal."""
    subscription = {"id": f"sub_{number}", "object": "subscription", "customer": f"cus_{number}", "status": "past_due"}
    return [
        event("charge.failed", charge(number), 1),
        event("payment_intent.payment_failed", intent(number), 2),
        event("invoice.payment_failed", invoice(number), 3),
        event("customer.subscription.updated", subscription, 4),
    ]


def signature(body: bytes) -> str:
    stamp = int(time.time())
    return f"t={stamp},v1={hmac.new(SECRET.encode(), f'{stamp}.'.encode() + body, 'sha256').hexdigest()}"


def request(path: str, body: bytes) -> bytes:
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"Stripe-Signature: {signature(body)}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


@dataclass
class Replay:
    """What came of sending: how long it took, each request's own time, and which were answered 200."""

    seconds: float = 0.0
    took: list[float] = field(default_factory=list)
    accepted: list[int] = field(default_factory=list)

    @property
    def rate(self) -> float:
        return len(self.accepted) / self.seconds

    def percentile_ms(self, share: float) -> float:
        return sorted(self.took)[int(len(self.took) * share)] * 1000


def replay(
    port: int, requests: Sequence[bytes], connections: int, *, status: bytes = b"200", mortal: bool = False
) -> Replay:
    """Send every request once over kept-alive connections. Another status than `status` ends the run; so does a server
    that goes away, unless it is `mortal`: then what was answered until then is told."""
    result, left, asked = Replay(), iter(range(len(requests))), dict[Any, tuple[int, float]]()
    picked = selectors.DefaultSelector()

    def send(connection: socket.socket) -> None:
        number = next(left, None)
        if number is None:
            picked.unregister(connection)
            connection.close()
            return
        asked[connection] = (number, time.perf_counter())
        connection.sendall(requests[number])

    started = time.perf_counter()
    for _ in range(min(connections, len(requests))):
        connection = socket.create_connection(("127.0.0.1", port))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        picked.register(connection, selectors.EVENT_READ)
        send(connection)
    while picked.get_map():
        for key, _ in picked.select():
            connection: Any = key.fileobj
            number, at = asked[connection]
            try:
                told = _answer(connection)
                if not told and mortal:
                    raise ConnectionResetError
                if not told.startswith(b"HTTP/1.1 " + status):
                    raise SystemExit(f"The server did not answer {status!r}: {told[:300]!r}")
                result.took.append(time.perf_counter() - at)
                result.accepted.append(number)
                send(connection)
            except OSError:
                if not mortal:
                    raise
                picked.unregister(connection)
                connection.close()
    result.seconds = time.perf_counter() - started
    return result


def _answer(connection: socket.socket) -> bytes:
    """One response; the views measured here answer with a Content-Length."""
    got = connection.recv(65_536)
    while got:
        head, separator, body = got.partition(b"\r\n\r\n")
        if separator:
            fields = head.lower().split(b"\r\n")
            length = next(int(line[15:]) for line in fields if line.startswith(b"content-length:"))
            if len(body) >= length:
                return got
        part = connection.recv(65_536)
        if not part:
            return b""
        got += part
    return b""
