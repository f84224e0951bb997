"""Which process is ours: pids are recycled, so a number alone proves nothing."""

import os
import pwd
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from recovery_site.embedded.errors import EmbeddedServiceError

_SAME_START_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Account:
    """The system account the servers run under; None in both means the caller's own."""

    name: str | None
    uid: int | None
    gid: int | None

    def own(self, *paths: Path) -> None:
        """Hand `paths` to this account (nothing to do for the caller's own)."""
        if self.uid is not None and self.gid is not None:
            for path in paths:
                os.chown(path, self.uid, self.gid)


def service_account(existing_data: Path) -> Account:
    """PostgreSQL refuses to run as root, so root's servers run as `nobody`; everybody else's as themselves.

    Data that an ordinary user made in this checkout stays that user's, also when root starts its servers.
    """
    if os.geteuid() != 0:
        return Account(name=None, uid=None, gid=None)
    try:
        owner = existing_data.stat().st_uid if existing_data.is_dir() else 0
        entry = pwd.getpwuid(owner) if owner != 0 else pwd.getpwnam("nobody")
    except KeyError:
        raise EmbeddedServiceError(
            "PostgreSQL refuses to run as root and this system has no account 'nobody' to run it under."
            " Run as an ordinary user, or set DATABASE_URL and REDIS_URL to servers of your own."
        ) from None
    return Account(name=entry.pw_name, uid=entry.pw_uid, gid=entry.pw_gid)


@dataclass(frozen=True, slots=True)
class ServerProcess:
    """A running server: its pid is only meaningful together with the time that process was born."""

    pid: int
    started: float

    @classmethod
    def of(cls, process: psutil.Process) -> "ServerProcess":
        return cls(pid=process.pid, started=process.create_time())

    def handle(self) -> psutil.Process | None:
        """The live process, or None if it ended, is a zombie, or its pid now belongs to another one."""
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.started) < _SAME_START_SECONDS
            return process if same and process.status() != psutil.STATUS_ZOMBIE else None
        except psutil.Error:
            return None


def processes_in(directory: Path, name: str) -> list[psutil.Process]:
    """Live processes called `name` that work in `directory`, also when it has been deleted under them."""
    real = os.path.realpath(directory)
    wanted = {real, f"{real} (deleted)"}
    found = []
    for process in psutil.process_iter(["name"]):
        if process.info["name"] != name:
            continue
        with suppress(psutil.Error):
            if process.cwd() in wanted and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def kill_processes(processes: Sequence[psutil.Process]) -> None:
    """End `processes` at once, for those whose files are gone already."""
    for process in processes:
        with suppress(psutil.Error):
            process.kill()
    for process in processes:
        wait_until_gone(process, timeout_seconds=5)


def end_processes(processes: Sequence[psutil.Process], *, patience_seconds: float) -> None:
    """Let `processes` end by themselves for a while, then kill what is left."""
    deadline = time.monotonic() + patience_seconds
    kill_processes(
        [process for process in processes if not wait_until_gone(process, timeout_seconds=deadline - time.monotonic())]
    )


def run_as(account: Account, command: Sequence[str], *, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a short command under `account`, outside the caller's terminal session, without its environment.

    Output goes through a file: a daemon left behind by the command would keep a pipe open for ever.
    """
    environment = {"PATH": os.defpath, "LANG": "C", "LC_ALL": "C", "TZ": "UTC", "HOME": str(cwd)}
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as output:
        done = subprocess.run(
            command,
            cwd=cwd,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            umask=0o077,
            user=account.uid,
            group=account.gid,
            extra_groups=None if account.uid is None else [],
            check=False,
        )
        output.seek(0)
        return subprocess.CompletedProcess(list(command), done.returncode, stdout=output.read())


def wait_until_gone(process: psutil.Process, *, timeout_seconds: float) -> bool:
    """True once `process` has ended; a zombie counts, since whoever should reap it may take seconds."""
    deadline = time.monotonic() + timeout_seconds
    while True:
        try:
            if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.Error:
            return True
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.01)
