"""Webhooks in: how many per second the door takes against a bare view, and how many the inbox drain works off.

The server is granian as in production, in a process of its own on a free port; client, server and database share this
machine, so the ratio is the figure to look at. Floor of the first metric: a Django view in the same server, behind the
same middleware, that reads the body and returns 200. Floor of the second: the same drain over events that are left
alone, which is what finding, locking and finishing an item costs.

    python benchmarks/ingest.py [--quick]
"""

import argparse
import hmac
import json
import os
import selectors
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
from psycopg import sql

ROOT = Path(__file__).resolve().parents[1]
SECRET = "whsec_benchmark"
CONNECTIONS = 8
# Shares of the floor that a change must not fall below. A webhook is two round trips to PostgreSQL where the bare view
# has none; a failed renewal's first event is some eighty statements, one that is left alone five.
INGEST_TARGET = 0.2
DRAIN_TARGET = 0.05
CREATED = 1767258000  # the events' own time; the drain's `now` is an hour later


# --- what is sent -----------------------------------------------------------------------------------------------------


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


# --- the client: cheap, because it shares the machine with what it measures -------------------------------------------


def replay(port: int, requests: Sequence[bytes]) -> float:
    """Send every request once over CONNECTIONS kept-alive connections; requests per second. Any answer but 200 ends
    the run."""
    left = iter(requests)
    picked = selectors.DefaultSelector()
    for _ in range(min(CONNECTIONS, len(requests))):
        connection = socket.create_connection(("127.0.0.1", port))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        picked.register(connection, selectors.EVENT_READ)
    waiting = 0
    started = time.perf_counter()
    for key in list(picked.get_map().values()):
        key.fileobj.sendall(next(left))  # type: ignore[union-attr]
        waiting += 1
    while waiting:
        for key, _ in picked.select():
            answer = _answer(key.fileobj)  # type: ignore[arg-type]
            if not answer.startswith(b"HTTP/1.1 200"):
                raise SystemExit(f"The server did not answer 200: {answer[:300]!r}")
            following = next(left, None)
            if following is None:
                waiting -= 1
                picked.unregister(key.fileobj)
                key.fileobj.close()  # type: ignore[union-attr]
            else:
                key.fileobj.sendall(following)  # type: ignore[union-attr]
    return len(requests) / (time.perf_counter() - started)


def _answer(connection: socket.socket) -> bytes:
    """One response; the views measured here answer with a Content-Length."""
    got = connection.recv(65_536)
    while True:
        head, separator, body = got.partition(b"\r\n\r\n")
        if separator:
            fields = head.lower().split(b"\r\n")
            length = next(int(line[15:]) for line in fields if line.startswith(b"content-length:"))
            if len(body) >= length:
                return got
        part = connection.recv(65_536)
        if not part:
            return got
        got += part


# --- the server and its database --------------------------------------------------------------------------------------


@contextmanager
def own_database() -> Iterator[None]:
    """An empty database beside the application's, named in this process's environment; dropped at the end."""
    told = subprocess.run(
        [sys.executable, "manage.py", "services", "--json"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    services = json.loads(told.stdout)
    name = f"bench_ingest_{os.getpid()}"
    with psycopg.connect(services["DATABASE_URL"], autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        address = urlsplit(services["DATABASE_URL"])
        os.environ |= {
            "DATABASE_URL": address._replace(path=f"/{name}").geturl(),
            "REDIS_URL": services["REDIS_URL"],
            "DJANGO_SETTINGS_MODULE": "recovery_site.settings",
            "LOG_LEVEL": "WARNING",
        }
        try:
            yield
        finally:
            admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@contextmanager
def served() -> Iterator[int]:
    """The port of a granian with one worker; it has answered before this yields."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    command = [
        *(sys.executable, "-m", "granian", "--interface", "wsgi", "--no-ws", "--log-level", "warning"),
        *("--host", "127.0.0.1", "--port", str(port), "--workers", "1", "--blocking-threads", str(CONNECTIONS)),
        "benchmarks._bare_site:application",
    ]
    server = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(600):
            try:
                replay(port, [request("/bare/", b"{}")])
                break
            except OSError:
                time.sleep(0.1)
        else:
            raise SystemExit("The server did not come up within a minute.")
        yield port
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(timeout=30)


# --- the two measurements ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Result:
    """`ratio` is value / floor, and `ok` that it reaches `target`."""

    metric: str
    value: float
    unit: str
    floor: float
    target: float

    def as_dict(self) -> dict[str, Any]:
        ratio = self.value / self.floor
        return {
            "metric": self.metric,
            "value": round(self.value, 1),
            "unit": self.unit,
            "floor": round(self.floor, 1),
            "ratio": round(ratio, 3),
            "target": self.target,
            "ok": ratio >= self.target,
        }


def ingest(endpoint: Any, rounds: int, size: int) -> Result:
    """Webhooks per second against the bare view, in turns; the median of the rounds' ratios decides."""
    from webhooks.models import InboxEvent

    path = f"/webhooks/stripe/{endpoint.uuid}/"
    floors, values = [], []
    with served() as port:
        replay(port, [request("/bare/", b"{}") for _ in range(size // 10)])
        for number in range(rounds):
            bodies = [event("charge.failed", charge(number * size + n), 1) for n in range(size)]
            floors.append(replay(port, [request("/bare/", body) for body in bodies]))
            values.append(replay(port, [request(path, body) for body in bodies]))
    stored = InboxEvent.objects.count()
    if stored != rounds * size:
        raise SystemExit(f"{rounds * size} webhooks were accepted, but {stored} are stored.")
    InboxEvent.objects.all().delete()
    ratios = [value / floor for value, floor in zip(values, floors, strict=True)]
    middle = min(range(rounds), key=lambda number: abs(ratios[number] - statistics.median(ratios)))
    return Result("ingest_vs_bare_view", values[middle], "webhooks/s", floors[middle], INGEST_TARGET)


def drain(endpoint: Any, renewals: int) -> Result:
    """Events per second that one drain works off: failed renewals, told by four events each."""
    left_alone = [
        event("customer.created", {"id": f"cus_alone_{number}", "object": "customer"}, 1)
        for number in range(renewals * 4)
    ]
    floor = _drained(endpoint, left_alone, {"ignored": renewals * 4})
    told = [body for number in range(renewals) for body in failed_renewal(number)]
    value = _drained(endpoint, told, {"processed": renewals * 3, "ignored": renewals})
    return Result("drain_events_per_s", value, "events/s", floor, DRAIN_TARGET)


def _drained(endpoint: Any, bodies: Sequence[bytes], expected: dict[str, int]) -> float:
    from datetime import UTC, datetime, timedelta

    from providers.base import InboundRequest
    from webhooks.services import inbox_drain, inbox_receive

    told_at = datetime.fromtimestamp(CREATED, UTC) + timedelta(hours=1)
    for body in bodies:
        inbox_receive(
            endpoint=endpoint,
            request=InboundRequest(body, {"stripe-signature": signature(body)}),
            now=told_at,
            clock=time.time(),
            tolerance_seconds=300,
        )
    started = time.perf_counter()
    counts = inbox_drain(now=told_at).as_dict()
    seconds = time.perf_counter() - started
    if counts != {"processed": 0, "failed": 0, "ignored": 0} | expected:
        raise SystemExit(f"The drain ended otherwise than expected: {counts}.")
    return len(bodies) / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of the size")
    quick = parser.parse_args().quick
    sys.path.insert(0, str(ROOT))
    with own_database():
        import django

        django.setup()
        from django.core.management import call_command
        from django.db import connections

        from accounts.services import merchant_create
        from webhooks.services import endpoint_create

        call_command("migrate", verbosity=0, interactive=False)
        merchant = merchant_create(name="Benchmark").merchant
        endpoint = endpoint_create(merchant=merchant, provider="stripe", secret=SECRET)
        results = [ingest(endpoint, rounds=3 if quick else 5, size=300 if quick else 3000)]
        results.append(drain(endpoint, renewals=25 if quick else 250))
        connections.close_all()
    print(json.dumps({"bench": "ingest", "results": [result.as_dict() for result in results]}))


if __name__ == "__main__":
    main()
