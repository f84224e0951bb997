"""The supervisor's view of one cluster: a process group that is started, told to stop, or killed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field

import structlog
from django.conf import settings

from recovery_site.worker.lineage import die_with_parent

log = structlog.get_logger()


@dataclass
class ClusterProcess:
    """A q2 cluster in a process group of its own, so that nothing of it is left when it is killed.

    `workers` is the size of its pool. Not started until `start`; may be started again after it ended.
    """

    name: str
    workers: int
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "recovery_site.worker.cluster"],
            cwd=settings.BASE_DIR,
            env={**self.environment, "Q_CLUSTER_NAME": self.name},
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=die_with_parent(signal.SIGTERM),
        )
        log.info("cluster_started", cluster=self.name, pid=self._process.pid)

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def exit_code(self) -> int | None:
        return self._process.poll() if self._process else None

    def owns(self, pid: int) -> bool:
        """True if `pid` is a live process of this cluster."""
        with suppress(ProcessLookupError, PermissionError):
            return self._process is not None and os.getpgid(pid) == self._process.pid
        return False

    def terminate(self) -> None:
        """Ask it to finish what it does and end."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()

    def kill(self) -> None:
        """End every process of the group at once; what was being sent is resolved later (DESIGN section 6)."""
        if self._process is None:
            return
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def wait(self, seconds: float) -> bool:
        """True once it has ended, False if it still runs after `seconds`."""
        deadline = time.monotonic() + seconds
        while self.running() and time.monotonic() < deadline:
            time.sleep(0.05)
        return not self.running()
