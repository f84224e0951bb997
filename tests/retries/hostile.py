"""A provider that answers with what it likes, in the sandbox's wire format or in none."""

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Reply:
    """What goes back: `None` as body closes the connection without a word."""

    body: bytes | None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


def as_json(value: Any, status: int = 200) -> Reply:
    return Reply(json.dumps(value).encode(), status, {"Content-Type": "application/json"})


@dataclass
class Hostile:
    """`write` and `read` turn the honest answer into the one that is sent; `posts` are the requests that came."""

    url: str = ""
    write: Callable[[Body], Reply] = as_json
    read: Callable[[Body | None], Reply] = lambda record: as_json(record)
    posts: list[tuple[str, str, Body]] = field(default_factory=list)
    records: list[Body] = field(default_factory=list)

    def honest(self) -> None:
        self.write, self.read = as_json, as_json

    def record(self, path: str, body: Body) -> Body:
        """What an honest server would have written down for this request."""
        number = len(self.records) + 1
        status = {"status": "succeeded", "created_at": f"2026-03-03T09:00:00.{number:06d}Z"}
        if path == "/refunds":
            currency = next(row["currency"] for row in self.records if row["id"] == body["charge"])
            return {"id": f"re_{number}", "currency": currency, "failure_code": None, **status, **body}
        return {"id": f"ch_{number}", "decline_code": None, "network_code": None, "advice_code": None, **status, **body}

    def post(self, path: str, key: str, body: Body) -> Reply:
        self.posts.append((path, key, body))
        known = next((row for row in self.records if row["_key"] == key), None)
        if known is None:
            known = {**self.record(path, body), "_key": key, "_path": path}
            self.records.append(known)
        return self.write(_shown(known))

    def get(self, path: str, query: str) -> Reply:
        kind, _, name = path.strip("/").partition("/")
        rows = [row for row in self.records if row["_path"] == f"/{kind}"]
        if name:
            found = next((row for row in rows if row["id"] == name), None)
            return self.read(_shown(found) if found else None)
        if query.startswith("reference="):
            rows = [row for row in rows if row["reference"] == query.removeprefix("reference=")]
            answer = self.read(_shown(rows[0]) if rows else None)
            return _listed(answer)
        return as_json({"data": []})


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128  # a drain's threads all come at once


def _shown(row: Body) -> Body:
    return {name: value for name, value in row.items() if not name.startswith("_")}


def _listed(answer: Reply) -> Reply:
    """The sandbox looks up by reference in a list."""
    try:
        record = json.loads(answer.body or b"")
    except (ValueError, RecursionError):
        return answer
    if answer.status != 200 or not isinstance(record, dict) or "id" not in record:
        return answer
    return as_json({"data": [record]})


@contextmanager
def hostile_running() -> Iterator[Hostile]:
    """A server on a free port."""
    hostile = Hostile()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self._answer(hostile.post(self.path, self.headers["Idempotency-Key"], body))

        def do_GET(self) -> None:
            path, _, query = self.path.partition("?")
            self._answer(hostile.get(path, query))

        def _answer(self, reply: Reply) -> None:
            if reply.body is None:
                self.close_connection = True
                return
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(reply.body)))
            self.end_headers()
            self.wfile.write(reply.body)

        def log_message(self, *args: Any) -> None:
            pass

    server = _Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    hostile.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hostile
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
