"""The stream's process for tests, and clients that read it line by line."""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests
from django.conf import settings

from tests.contract.sandbox_process import eventually
from tests.support.ports import free_port


@dataclass
class Served:
    """A running stream process. `log` is what it wrote so far."""

    address: str
    log_path: Path
    process: "subprocess.Popen[bytes]"

    def log(self) -> str:
        return self.log_path.read_text()

    def open(self, key: str, after: str = "", **headers: str) -> "Client":
        known = {"Authorization": f"Bearer {key}", **({"Last-Event-ID": after} if after else {}), **headers}
        return Client(requests.get(f"{self.address}/api/v1/stream", headers=known, stream=True, timeout=60))


@dataclass(frozen=True)
class Told:
    """One event of the stream."""

    id: str
    name: str
    data: dict[str, Any]


@dataclass
class Client:
    """An open stream. `last` is the newest id, as a browser would keep it."""

    answer: requests.Response
    last: str = ""
    _lines: Iterator[str] = field(init=False)

    def __post_init__(self) -> None:
        self._lines = self.answer.iter_lines(chunk_size=1, decode_unicode=True)

    def blocks(self) -> Iterator[dict[str, str]]:
        """Every block of lines as its fields, also those without an event; until the server ends the stream."""
        known: dict[str, str] = {}
        for line in self._lines:
            if line:
                name, _, value = line.partition(":")
                known[name or "comment"] = value.removeprefix(" ")
                continue
            self.last = known.get("id", self.last)
            yield known
            known = {}

    def comment(self, wanted: str) -> "Client":
        """Read on until this comment."""
        for block in self.blocks():
            if block.get("comment") == wanted:
                return self
        raise AssertionError(f"the stream ended without {wanted}")

    def events(self, count: int) -> list[Told]:
        """The next `count` events."""
        found: list[Told] = []
        for block in self.blocks() if count else ():
            if "data" in block:
                found.append(Told(block["id"], block["event"], json.loads(block["data"])))
            if len(found) == count:
                return found
        assert not count, f"the stream ended after {found}"
        return found

    def close(self) -> None:
        self.answer.close()


@contextmanager
def streaming(environment: Mapping[str, str], folder: Path, **variables: str) -> Iterator[Served]:
    """The stream on this test's database, served as in production."""
    port = free_port()
    log = folder / f"stream-{port}.log"
    with log.open("wb") as written:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "granian", "--interface", "asgi", "--workers", "1", "--no-ws"),
                *("--workers-kill-timeout", "5", "--log-level", "warning", "--host", "127.0.0.1", "--port", str(port)),
                "recovery_site.asgi:application",
            ],
            cwd=settings.BASE_DIR,
            env={**environment, "LOG_LEVEL": "INFO", "STREAM_HEARTBEAT": "1s", **variables},
            stdout=written,
            stderr=written,
        )
    served = Served(f"http://127.0.0.1:{port}", log, process)
    try:
        eventually(lambda: process.poll() is not None or _alive(served.address), seconds=60)
        assert process.poll() is None, served.log()
        yield served
    finally:
        process.terminate()
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(timeout=30)


def _alive(address: str) -> bool:
    try:
        return requests.get(f"{address}/health/live", timeout=5).status_code == 200
    except requests.ConnectionError:
        return False
