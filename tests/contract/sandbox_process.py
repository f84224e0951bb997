"""Runs the sandbox provider server as a process for tests, and receives its webhooks."""

import http.server
import json
import queue
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
from standardwebhooks import Webhook

ROOT = Path(__file__).resolve().parents[2]
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
_keys = (f"key-{number}" for number in count())


def eventually(probe: Callable[[], Any], seconds: float = 20.0) -> Any:
    """Poll until `probe` is truthy, and return that; fails after `seconds`."""
    end = time.monotonic() + seconds
    while not (found := probe()):
        assert time.monotonic() < end, "gave up waiting"
        time.sleep(0.01)
    return found


class Psp:
    """A server process on one ledger file; `start` may be called again after it ended."""

    def __init__(self, ledger: Path) -> None:
        self.ledger = ledger
        self.process: subprocess.Popen[str] | None = None
        self.session = requests.Session()

    def _command(self, *options: str) -> list[str]:
        return [sys.executable, "-m", "providers.sandbox.server", "--ledger", str(self.ledger), *options]

    def refusal(self) -> str:
        """Start another server on the same ledger, which must give up; returns what it wrote to stderr."""
        done = subprocess.run(self._command(), cwd=ROOT, text=True, capture_output=True, timeout=30, check=False)
        assert (done.returncode, done.stdout) == (1, "")
        return done.stderr

    def start(self, *options: str) -> "Psp":
        self.process = subprocess.Popen(
            self._command(*options),
            cwd=ROOT,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        assert self.process.stdout is not None
        assert select.select([self.process.stdout], [], [], 30)[0], "no ready line within 30 s"
        self.url = json.loads(self.process.stdout.readline())["url"]
        return self

    def end(self, number: int) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        self.process.communicate(timeout=30)
        code, self.process = self.process.returncode, None
        return code

    def abandon(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.communicate(timeout=30)

    def call(self, method: str, path: str, body: Any = None, **options: Any) -> requests.Response:
        return self.session.request(method, self.url + path, json=body, **{"timeout": 30, **options})

    def get(self, path: str, **params: Any) -> Any:
        reply = self.call("GET", path, params=params)
        assert reply.status_code == 200, reply.text
        return reply.json()

    def put(self, path: str, **body: Any) -> None:
        reply = self.call("PUT", path, body)
        assert reply.status_code == 200, reply.text

    def post(self, path: str, body: Any, *, key: str | None = None, **options: Any) -> requests.Response:
        return requests.post(
            self.url + path,
            json=body,
            headers={"Idempotency-Key": key or next(_keys)},
            **{"timeout": 30, **options},
        )

    def charge(self, token: str = "tok_ok", *, key: str | None = None, **fields: Any) -> requests.Response:
        options = {name: fields.pop(name) for name in ("timeout",) if name in fields}
        return self.post("/charges", {"amount": 1000, "currency": "EUR", "token": token, **fields}, key=key, **options)

    def refund(self, charge: str, amount: int, *, key: str | None = None, **fields: Any) -> requests.Response:
        return self.post("/refunds", {"charge": charge, "amount": amount, **fields}, key=key)

    def by_reference(self, reference: str) -> list[Any]:
        return list(self.get("/charges", reference=reference)["data"])

    def statuses(self, token: str, times: int) -> list[str]:
        return [self.charge(token).json()["status"] for _ in range(times)]


@contextmanager
def servers(folder: Path) -> Iterator[Callable[..., Psp]]:
    """A function that starts a server on a new ledger in `folder`; all end with the block."""
    made: list[Psp] = []

    def make(*options: str) -> Psp:
        made.append(Psp(folder / f"ledger-{len(made)}.jsonl"))
        return made[-1].start(*options)

    try:
        yield make
    finally:
        for psp in made:
            psp.abandon()


class Receiver:
    """A webhook endpoint: answers the first requests with `plan`, then 200, and keeps what it got."""

    def __init__(self, *plan: int) -> None:
        self.got: queue.Queue[tuple[bytes, dict[str, str]]] = queue.Queue()
        statuses = iter(plan)
        got = self.got

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                got.put((self.rfile.read(int(self.headers["Content-Length"])), dict(self.headers)))
                self.send_response(next(statuses, 200))
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *args: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def next(self) -> tuple[Any, str]:
        """The next event, verified, and its webhook-id."""
        body, headers = self.got.get(timeout=20)
        event = Webhook(SECRET).verify(body, headers)
        return event, {name.lower(): value for name, value in headers.items()}["webhook-id"]

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@contextmanager
def receivers() -> Iterator[Callable[..., Receiver]]:
    """A function that starts a webhook endpoint; all end with the block."""
    made: list[Receiver] = []

    def make(*plan: int) -> Receiver:
        made.append(Receiver(*plan))
        return made[-1]

    try:
        yield make
    finally:
        for receiver in made:
            receiver.close()


def all_at_once(number: int, work: Callable[[int], requests.Response]) -> list[requests.Response]:
    gate = threading.Barrier(number)

    def run(nth: int) -> requests.Response:
        gate.wait(20)
        return work(nth)

    with ThreadPoolExecutor(number) as pool:
        return list(pool.map(run, range(number)))


def raw_charge(psp: Psp, key: str, reference: str) -> socket.socket:
    """Send a charge and return the open socket, its answer unread."""
    address = urlsplit(psp.url)
    body = json.dumps({"amount": 5, "currency": "EUR", "token": "tok_ok", "reference": reference})
    head = f"POST /charges HTTP/1.1\r\nHost: x\r\nIdempotency-Key: {key}\r\nContent-Length: {len(body)}\r\n\r\n"
    connection = socket.create_connection((address.hostname, address.port), timeout=20)
    connection.sendall((head + body).encode())
    return connection
