"""The embedded Redis: no persistence, because everything in it can be rebuilt from PostgreSQL."""

import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from recovery_site.embedded.errors import EmbeddedServiceError, log_tail
from recovery_site.embedded.ports import LOOPBACK, answers
from recovery_site.embedded.processes import (
    Account,
    ServerProcess,
    kill_processes,
    processes_in,
    run_as,
    wait_until_gone,
)
from recovery_site.embedded.state import ServerState

START_SECONDS = 20
STOP_SECONDS = 20
# Database 0 is the application's; test runs take one per worker, several runs side by side (see slots.py).
DATABASES = 1024
_PROCESS_NAME = "redis-server"


@dataclass(frozen=True, slots=True)
class Redis:
    """One server working in `directory`."""

    directory: Path
    log: Path
    program: Path
    account: Account
    password: str

    def url(self, port: int) -> str:
        return f"redis://:{self.password}@{LOOPBACK}:{port}/0"

    def ensure(self, ports: Iterator[int]) -> ServerState:
        """Start the server; one that nobody recorded is ended first, for nobody knows its port."""
        kill_processes(processes_in(self.directory, _PROCESS_NAME))
        if not self.directory.is_dir():
            self.directory.mkdir(mode=0o700)
            self.account.own(self.directory)
        for port in ports:
            started = self._start(port)
            if started is not None:
                return started
        raise EmbeddedServiceError(
            "Redis did not start. Fix what the end of its log names, then run the command again"
            f" ({self.log}):\n{log_tail(self.log)}"
        )

    def stop(self) -> None:
        """Ask the server to end; there is nothing to save."""
        for process in processes_in(self.directory, _PROCESS_NAME):
            with suppress(psutil.Error):
                process.terminate()
            if not wait_until_gone(process, timeout_seconds=STOP_SECONDS):
                raise EmbeddedServiceError(
                    f"Redis (process {process.pid}) did not stop within {STOP_SECONDS} s. Run `make stop` again."
                )

    def _start(self, port: int) -> ServerState | None:
        config = self.directory / "redis.conf"
        config.touch(mode=0o600)
        config.write_text(self._config(port), encoding="utf-8")
        self.account.own(config)
        run_as(self.account, [str(self.program), str(config)], cwd=self.directory)
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            running = processes_in(self.directory, _PROCESS_NAME)
            if running and answers(port, *self._ping()):
                return ServerState(port=port, process=ServerProcess.of(running[0]))
            if not running:
                return None
            time.sleep(0.01)
        kill_processes(processes_in(self.directory, _PROCESS_NAME))
        return None

    def is_alive(self, state: ServerState) -> bool:
        """The recorded process lives and a Redis that knows our password answers at its port."""
        return state.process is not None and state.process.handle() is not None and answers(state.port, *self._ping())

    def _ping(self) -> tuple[bytes, bytes]:
        return f"AUTH {self.password}\r\nPING\r\n".encode("ascii"), b"+OK"

    def _config(self, port: int) -> str:
        return "\n".join(
            [
                f"bind {LOOPBACK}",
                f"port {port}",
                f"requirepass {self.password}",
                f"databases {DATABASES}",
                "daemonize yes",
                'save ""',
                "appendonly no",
                "maxmemory-policy noeviction",
                f'dir "{self.directory}"',
                f'logfile "{self.log}"',
                "",
            ]
        )
