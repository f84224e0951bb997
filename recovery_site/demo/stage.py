"""Runs the web server, the worker and the traffic side by side, and takes them down together."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from django.conf import settings

from recovery_site.common.errors import RecoveryError
from recovery_site.worker.lineage import die_with_parent

_READY_SECONDS = 60.0
_STOP_SECONDS = 30.0
_LOG_LIMIT_BYTES = 10 * 1024 * 1024
HOST = "127.0.0.1"


class DemoBroken(RecoveryError):
    """A part of the demo has ended or cannot start."""

    code = "demo_broken"


@dataclass
class Part:
    """One process of the demo with its log file."""

    name: str
    title: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log_dir: Path
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @property
    def log(self) -> Path:
        return self.log_dir / f"{self.name}.log"

    def start(self) -> None:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        grown = self.log.exists() and self.log.stat().st_size > _LOG_LIMIT_BYTES
        with self.log.open("wb" if grown else "ab") as log:
            self._process = subprocess.Popen(
                self.command,
                cwd=settings.BASE_DIR,
                env=dict(self.environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C in the terminal is for us, who stop the parts in order
                preexec_fn=die_with_parent(signal.SIGTERM),
            )

    def check(self) -> None:
        """Raise DemoBroken if the process has ended."""
        code = self._process.poll() if self._process else None
        if code is not None:
            raise DemoBroken(f"The {self.title} has ended with code {code}; the last lines of {self.log} say why.")

    def terminate(self) -> None:
        if self._process is not None:
            self._process.terminate()

    def end(self, seconds: float) -> None:
        """Wait for the end, then make sure that nothing of its process group is left."""
        if self._process is None:
            return
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def web_part(port: int, environment: Mapping[str, str], log_dir: Path) -> Part:
    command = [
        *(sys.executable, "-m", "granian", "--interface", "asgi", "--no-ws", "--log-level", "warning"),
        *("--host", HOST, "--port", str(port), "--workers", "1", "--workers-kill-timeout", "5"),
        "recovery_site.web:application",
    ]
    return Part("web", "web server", command, environment, log_dir)


def stream_part(port: int, environment: Mapping[str, str], log_dir: Path) -> Part:
    command = [
        *(sys.executable, "-m", "granian", "--interface", "asgi", "--no-ws", "--log-level", "warning"),
        *("--host", HOST, "--port", str(port), "--workers", "1", "--workers-kill-timeout", "5"),
        "recovery_site.asgi:application",
    ]
    return Part("stream", "live stream", command, environment, log_dir)


def worker_part(environment: Mapping[str, str], log_dir: Path) -> Part:
    command = [sys.executable, str(Path(settings.BASE_DIR) / "manage.py"), "run_worker"]
    return Part("worker", "worker", command, environment, log_dir)


def port_require(port: int) -> None:
    """Raise DemoBroken if somebody listens on the port already."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise DemoBroken(
                f"Port {port} cannot be used ({error.strerror}): stop what listens there, or choose another one with"
                f" the setting PORT, as in `PORT={port + 1} make run`."
            ) from error


class Stop:
    """Becomes true at SIGINT or SIGTERM."""

    def __init__(self) -> None:
        self.asked = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._ask)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True


def wait_until_ready(web: Part, base_url: str, stop: Stop) -> None:
    """Until the web server answers. Raises DemoBroken if it ends or takes too long."""
    deadline = time.monotonic() + _READY_SECONDS
    while not stop.asked:
        web.check()
        with suppress(urllib.error.URLError, TimeoutError, ConnectionError):
            urllib.request.urlopen(f"{base_url}/health/live", timeout=5).close()  # noqa: S310 - our own http address
            return
        if time.monotonic() > deadline:
            raise DemoBroken(f"The web server does not answer; the last lines of {web.log} say why.")
        time.sleep(0.2)


def take_down(parts: Sequence[Part]) -> None:
    """Stop all parts at once and wait for them."""
    for part in parts:
        part.terminate()
    deadline = time.monotonic() + _STOP_SECONDS
    for part in parts:
        part.end(max(0.1, deadline - time.monotonic()))
