"""The HTTP side: one thread per connection, keep-alive, and the ways in which a reply can get lost."""

import json
import socket
import struct
import sys
import threading
import traceback
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer, ThreadingMixIn
from typing import Any, cast
from urllib.parse import parse_qsl, unquote, urlsplit

from providers.sandbox.server import answers
from providers.sandbox.server.answers import Answer, Delivery, Problem
from providers.sandbox.server.api import Api, Request
from providers.sandbox.server.engine import Engine
from providers.sandbox.server.ledger import LedgerError
from providers.sandbox.server.parking import Parking

MAX_BODY_BYTES = 1 << 20
# Each open connection has a thread; held requests leave theirs and are not counted.
MAX_CONNECTIONS = 1024
IDLE_SECONDS = 120.0
_LINGER_RESET = struct.pack("ii", 1, 0)


class SandboxHttpServer(ThreadingMixIn, TCPServer):
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    request_queue_size = 1024

    def __init__(self, address: tuple[str, int], engine: Engine, parking: Parking) -> None:
        self.engine = engine
        self.api = Api(engine)
        self.parking = parking
        self._free = threading.BoundedSemaphore(MAX_CONNECTIONS)
        self._quiet: set[socket.socket] = set()
        self._busy = 0
        self._idle = threading.Condition()
        super().__init__(address, Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Refuse connections beyond the limit instead of starting ever more threads."""
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            request.sendall(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def end_quietly(self, connection: socket.socket) -> None:
        """Close this connection without the orderly goodbye: it is parked, or to be reset."""
        self._quiet.add(connection)

    def shutdown_request(self, request: Any) -> None:
        if request in self._quiet:
            self._quiet.discard(request)
            self.close_request(request)
        else:
            super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is everyday life here; anything else is a bug worth its traceback."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            traceback.print_exc()

    def begin(self) -> None:
        with self._idle:
            self._busy += 1

    def finish(self) -> None:
        with self._idle:
            self._busy -= 1
            self._idle.notify_all()

    def wait_idle(self, seconds: float) -> None:
        """Let requests that are at work finish."""
        with self._idle:
            self._idle.wait_for(lambda: self._busy == 0, seconds)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "SandboxPSP"
    sys_version = ""
    timeout = IDLE_SECONDS
    # Head and body leave in one segment; two would meet Nagle and the delayed ACK (40 ms each).
    wbufsize = -1
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def do_PUT(self) -> None:
        self._serve()

    def do_DELETE(self) -> None:
        self._serve()

    def do_PATCH(self) -> None:
        self._serve()

    def _serve(self) -> None:
        owner = cast(SandboxHttpServer, self.server)
        owner.begin()
        try:
            answer = self._answer(owner)
            owner.engine.pause(answer.delay_seconds)
            self._deliver(owner, answer)
            self.wfile.flush()
        finally:
            owner.finish()

    def handle_expect_100(self) -> bool:
        """The client waits for this line before it sends its body."""
        proceed = super().handle_expect_100()
        self.wfile.flush()
        return proceed

    def _answer(self, owner: SandboxHttpServer) -> Answer:
        try:
            return owner.api.dispatch(self._read())
        except Problem as problem:
            return answers.error(problem.status, problem.code, problem.message)
        except LedgerError as error:
            return answers.error(503, "ledger_unavailable", str(error))

    def _read(self) -> Request:
        body = self._read_body()
        url = urlsplit(self.path)
        query = dict(parse_qsl(url.query, keep_blank_values=True))
        return Request(self.command, unquote(url.path), query, self.headers.get("Idempotency-Key"), body)

    def _read_body(self) -> dict[str, Any]:
        length = self.headers.get("Content-Length", "0")
        if "Transfer-Encoding" in self.headers or not (length.isascii() and length.isdigit()):
            self.close_connection = True
            raise Problem(411, "length_required", "Send the body with a Content-Length.")
        if int(length) > MAX_BODY_BYTES:
            self.close_connection = True
            raise Problem(413, "too_large", f"Send a body of at most {MAX_BODY_BYTES} bytes.")
        data = self.rfile.read(int(length))
        if len(data) < int(length):
            raise ConnectionResetError("The client went away within its request.")
        if self.command not in ("POST", "PUT"):
            return {}
        try:
            body = json.loads(data)
        except (ValueError, RecursionError):
            raise Problem(400, "invalid_json", "The body must be a JSON object.") from None
        if not isinstance(body, dict):
            raise Problem(400, "invalid_json", "The body must be a JSON object.")
        return body

    def _deliver(self, owner: SandboxHttpServer, answer: Answer) -> None:
        if answer.delivery is Delivery.NORMAL:
            self._write(answer)
            return
        self.close_connection = True
        owner.end_quietly(self.connection)
        if answer.delivery is Delivery.HOLD:
            owner.parking.park(self.connection)
        else:
            # Lingering for zero seconds makes the close a RST.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_RESET)

    def _write(self, answer: Answer) -> None:
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(answer.body)))
        if answer.retry_after_seconds is not None:
            self.send_header("Retry-After", str(answer.retry_after_seconds))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(answer.body)

    def log_message(self, *args: Any) -> None:
        """Silent: the ledger is the record, and a line per request would drown it."""
