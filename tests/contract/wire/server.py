"""What the imitations share: a server that remembers keys as the provider does, and misbehaves when told to."""

import base64
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import parse_qsl, unquote, urlsplit

from providers.base import ChargeRequest, ChargeResult, ProviderClient, RefundRequest
from providers.billing import CollectionSought
from providers.registry import client

SECRET = "kept_from_everybody"
RETRY_AFTER = 7
REQUEST = ChargeRequest(
    amount_minor=4900,
    currency="EUR",
    token="pm_1",
    customer="cus_1",
    reference="att_01k9zq0000000000000000000a",
    idempotency_key="recovery-att_01k9zq0000000000000000000a",
    metadata={"invoice": "inv_01", "transaction": "txn_01", "attempt": "att_01k9zq0000000000000000000a"},
)


@dataclass(frozen=True)
class Answer:
    """`how`: whole | hang (no answer at all) | reset."""

    status: int = 200
    body: object = None
    headers: Mapping[str, str] = field(default_factory=dict)
    how: str = "whole"

    @property
    def content(self) -> bytes:
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


HANG = Answer(how="hang")


@dataclass(frozen=True)
class Seen:
    method: str
    path: str
    query: Mapping[str, str]
    body: bytes
    headers: Mapping[str, str]

    @property
    def json(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)
        return found

    @property
    def form(self) -> dict[str, str]:
        return dict(parse_qsl(self.body.decode()))

    @property
    def parts(self) -> list[str]:
        return [unquote(part) for part in self.path.strip("/").split("/")]

    def basic(self) -> str:
        """User and password of Basic authentication, joined by a colon."""
        scheme, _, encoded = self.headers.get("authorization", "").partition(" ")
        return base64.b64decode(encoded).decode() if scheme == "Basic" else ""


@dataclass
class Payment:
    """One payment or refund (`of` a payment) as the imitation keeps it; `status` in our words."""

    id: str
    reference: str
    amount: int
    currency: str
    token: str
    status: str
    of: str = ""
    invoice: str = ""
    noted: bool = False
    taken: int | None = None
    at: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def received(self) -> int:
        return self.amount if self.taken is None else self.taken


class Imitation(ThreadingHTTPServer):
    """Money moves once per key. The next writes come to `steps`, then all to "ok":

    ok, partial, decline, pending, timeout_before, timeout_after, 429, 401, 500_before, 500_after, malformed, foreign,
    currency.
    """

    daemon_threads = True
    provider: ClassVar[str]
    config: ClassVar[Mapping[str, Any]]
    # What a decline is told with: raw, network and advice code.
    declined_with: ClassVar[tuple[str, str, str]]
    key_header: ClassVar[str] = "idempotency-key"
    # The answers that an unknown id and trouble of its own come to.
    absent: ClassVar[Answer] = Answer(404, {})
    broken: ClassVar[Answer] = Answer(500, {})
    unauthorised: ClassVar[Answer] = Answer(401, {})
    request: ClassVar[ChargeRequest] = REQUEST

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.closing = threading.Event()
        self.lock = threading.Lock()
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02})
        self.reset()

    def reset(self) -> None:
        self.steps: list[str] = []
        self.payments: dict[str, Payment] = {}
        self.stored: dict[str, Answer] = {}
        self.seen: list[Seen] = []
        self.reads_fail = False

    def __enter__(self) -> "Imitation":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self.shutdown()
        self._thread.join()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is part of the test."""

    # --- seen from the test -----------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def client(self, *, timeout: float = 30, url: str = "", **more: Any) -> ProviderClient:
        return client(self.provider, {**self.config, "base_url": url or self.url, "timeout_seconds": timeout, **more})

    def moved(self) -> int:
        """Payments that moved money, or may yet."""
        with self.lock:
            return sum(one.status in ("ok", "pending") and not one.of for one in self.payments.values())

    def wait_for_moved(self, number: int) -> None:
        """A request whose sender has given up may still be on its way through this server."""
        deadline = time.monotonic() + 30
        while self.moved() < number:
            assert time.monotonic() < deadline, "the payment never arrived"
            time.sleep(0.02)

    def writes(self) -> list[Seen]:
        return [seen for seen in self.seen if self.is_charge(seen)]

    def settle(self, payment_id: str) -> None:
        self.payments[payment_id].status = "ok"

    def find(self, made: ProviderClient) -> ChargeResult | None:
        """Look the charge up the way the engine does."""
        if self.request.collect_invoice:
            sought = CollectionSought(
                invoice_id=self.request.collect_invoice,
                amount_minor=self.request.amount_minor,
                currency=self.request.currency,
                token=self.request.token,
                sent_at=datetime.now(UTC),
            )
            found: ChargeResult | None = made.collection_find(sought)  # type: ignore[attr-defined]
            return found
        return made.charge_find(self.request.reference)

    def refund_request(self, charge_id: str, number: str = "b") -> RefundRequest:
        reference = f"att_01k9zq0000000000000000000{number}"
        return RefundRequest(
            charge_id=charge_id,
            payment_id=charge_id,
            amount_minor=900,
            currency=self.request.currency,
            reference=reference,
            idempotency_key=f"recovery-{reference}",
        )

    # --- what an imitation says -------------------------------------------------------------------------------------

    def is_charge(self, seen: Seen) -> bool:
        raise AssertionError("every imitation knows its own charges")

    def answer(self, seen: Seen) -> Answer:
        raise AssertionError("every imitation knows its own paths")

    def authorised(self, seen: Seen) -> bool:
        raise AssertionError("every imitation knows its own credentials")

    def key_of(self, seen: Seen) -> str:
        return seen.headers.get(self.key_header, "")

    def play(self, seen: Seen) -> Answer:
        with self.lock:
            self.seen.append(seen)
            if not self.authorised(seen):
                return self.unauthorised
            if self.reads_fail and not self.is_charge(seen):
                return self.broken
            return self.answer(seen)

    def write(self, seen: Seen, show: Callable[[Payment], Answer], **facts: Any) -> Answer:
        """Make a payment or refund once per key, as the next step says; `show` is the provider's answer about it."""
        step = self.steps.pop(0) if self.steps else "ok"
        if step in ("timeout_before", "429", "401", "500_before"):
            return {
                "timeout_before": HANG,
                "429": replace(self.too_many, headers={"Retry-After": str(RETRY_AFTER)}),
                "401": self.unauthorised,
                "500_before": self.broken,
            }[step]
        key = self.key_of(seen)
        if not key or key not in self.stored:
            status = {"decline": "decline", "pending": "pending"}.get(step, "ok")
            made = Payment(id=self.new_id(seen, facts), status=status, **facts)
            made.taken = 2000 if step == "partial" else None
            self.payments[made.id] = made
            if key:
                self.stored[key] = show(made)
            fresh = show(made)
        else:
            fresh, made = self.stored[key], None
        if step == "timeout_after":
            return HANG
        if step == "500_after":
            return self.broken
        if step == "malformed":
            return Answer(200, b'{"id": "half of an ans')
        if step in ("foreign", "currency") and made is not None:
            other = {"reference": "att_other", "token": "pm_other", "invoice": "other", "id": "pay_of_somebody_else"}
            changes: dict[str, Any] = {"currency": "USD"} if step == "currency" else other
            return show(replace(made, **changes))
        return fresh

    too_many: ClassVar[Answer] = Answer(429, {})

    def new_id(self, seen: Seen, facts: Mapping[str, Any]) -> str:
        return f"{'re' if facts.get('of') else 'ch'}_{len(self.payments) + 1}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Imitation

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        url = urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        answer = self.server.play(Seen(self.command, url.path, dict(parse_qsl(url.query)), body, headers))
        if answer.how == "hang":
            self.server.closing.wait(30)
            self.close_connection = True
        elif answer.how == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True
        else:
            self.send_response(answer.status)
            self.send_header("Content-Length", str(len(answer.content)))
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer.content)

    def log_message(self, *_: object) -> None:
        """Quiet."""
