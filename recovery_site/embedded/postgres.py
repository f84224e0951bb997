"""The embedded PostgreSQL 18: made once by initdb, then started and stopped like any other cluster."""

import shutil
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
    end_processes,
    kill_processes,
    processes_in,
    run_as,
    wait_until_gone,
)
from recovery_site.embedded.state import ServerState

MAJOR_VERSION = "18"
DATABASE = USER = "recovery"
SUPERUSER = "postgres"
START_SECONDS = 60
STOP_SECONDS = 60
_PROCESS_NAME = "postgres"
# SSLRequest of the wire protocol: any live postmaster answers S or N before it asks who we are.
_SSL_REQUEST = bytes.fromhex("00000008 04d2162f")

# Durable like production: crash tests must mean something. Sized for a laptop running workers and tests.
_SETTINGS = {
    "listen_addresses": LOOPBACK,
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "256MB",
    "effective_cache_size": "1GB",
    "work_mem": "8MB",
    "maintenance_work_mem": "128MB",
    "max_wal_size": "2GB",
    "checkpoint_timeout": "15min",
    "random_page_cost": "1.1",
    "jit": "off",
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
    "lc_messages": "C",
}


@dataclass(frozen=True, slots=True)
class Postgres:
    """One cluster: `data` its directory, `log` its log, `programs` the directory of its binaries."""

    data: Path
    log: Path
    programs: Path
    account: Account
    password: str

    def url(self, port: int) -> str:
        return f"postgresql://{USER}:{self.password}@{LOOPBACK}:{port}/{DATABASE}"

    def ensure(self, ports: Iterator[int]) -> ServerState:
        """Make, repair or adopt the cluster; on return it answers and holds role and database."""
        self._make_cluster()
        state = self._adopt() or self._start(ports)
        self._make_database(state.port)
        return state

    def stop(self) -> None:
        """Fast shutdown (open transactions roll back, everything is written); leftovers are ended too."""
        postmaster = self._postmaster()
        if postmaster is not None:
            with suppress(psutil.Error):
                postmaster.send_signal(2)
            if not wait_until_gone(postmaster, timeout_seconds=STOP_SECONDS):
                raise EmbeddedServiceError(
                    f"PostgreSQL (process {postmaster.pid}) did not stop within {STOP_SECONDS} s."
                    f" Its log is {self.log}; run `make stop` again."
                )
        end_processes(processes_in(self.data, _PROCESS_NAME), patience_seconds=5)

    def _make_cluster(self) -> None:
        if self.data.is_dir():
            found = (self.data / "PG_VERSION").read_text(encoding="ascii").strip()
            if found != MAJOR_VERSION:
                raise EmbeddedServiceError(
                    f"The development database was made by PostgreSQL {found}, this checkout runs"
                    f" {MAJOR_VERSION}. Run `make clean` to start with an empty one."
                )
            return
        # Servers whose directory was deleted under them would write into the new one's shared memory.
        kill_processes(processes_in(self.data, _PROCESS_NAME))
        unfinished = self.data.with_name(f"{self.data.name}.part")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        password_file = unfinished.with_name("initdb-password")
        password_file.touch(mode=0o600)
        password_file.write_text(self.password, encoding="ascii")
        self.account.own(unfinished, password_file)
        try:
            self._initdb(unfinished, password_file)
        finally:
            password_file.unlink()
        # Only a finished cluster gets the real name: an interrupted initdb leaves nothing to trip over.
        unfinished.rename(self.data)

    def _initdb(self, directory: Path, password_file: Path) -> None:
        command = [str(self.programs / "initdb"), "--pgdata=.", f"--username={SUPERUSER}"]
        command += [f"--pwfile={password_file}", "--auth=scram-sha-256", "--encoding=UTF8"]
        command += ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        done = run_as(self.account, command, cwd=directory)
        if done.returncode != 0:
            raise EmbeddedServiceError(
                f"PostgreSQL's initdb failed:\n{done.stdout.strip()}\n"
                "Free some disk space or fix what it names, then run the command again."
            )

    def _postmaster(self) -> psutil.Process | None:
        """The running postmaster, if any: named by the pid file and working in the cluster's directory."""
        pid = self._pid_file_line(0)
        for process in processes_in(self.data, _PROCESS_NAME):
            if process.pid == pid:
                return process
        return None

    def _pid_file_line(self, number: int) -> int | None:
        try:
            return int((self.data / "postmaster.pid").read_text(encoding="utf-8").splitlines()[number])
        except (FileNotFoundError, IndexError, ValueError):
            return None

    def _adopt(self) -> ServerState | None:
        """A postmaster that already runs (services.json was lost, or another process just started it)."""
        postmaster = self._postmaster()
        if postmaster is None:
            self._clear_remains()
            return None
        port = self._pid_file_line(3)
        deadline = time.monotonic() + START_SECONDS
        while port is not None and time.monotonic() < deadline:
            if answers(port, _SSL_REQUEST, b""):
                return ServerState(port=port, process=ServerProcess.of(postmaster))
            if wait_until_gone(postmaster, timeout_seconds=0.1):
                return self._adopt()
        raise EmbeddedServiceError(
            f"PostgreSQL (process {postmaster.pid}) runs but does not answer. Run `make stop`, then try"
            f" again. The end of its log {self.log}:\n{log_tail(self.log)}"
        )

    def _clear_remains(self) -> None:
        """After a kill -9: end orphaned backends, and drop a pid file whose number now means another process.

        PostgreSQL itself recognises a pid that no longer exists, but takes a recycled one for a
        live postmaster.
        """
        end_processes(processes_in(self.data, _PROCESS_NAME), patience_seconds=5)
        pid = self._pid_file_line(0)
        if pid is not None and psutil.pid_exists(pid):
            (self.data / "postmaster.pid").unlink(missing_ok=True)

    def _start(self, ports: Iterator[int]) -> ServerState:
        for port in ports:
            settings = {**_SETTINGS, "port": str(port)}
            options = " ".join(f"-c {name}='{value}'" for name, value in settings.items())
            command = [str(self.programs / "pg_ctl"), "start", "--wait", f"--timeout={START_SECONDS}"]
            command += ["--pgdata=.", f"--log={self.log}", f"--options={options}"]
            done = run_as(self.account, command, cwd=self.data)
            postmaster = self._postmaster()
            if done.returncode == 0 and postmaster is not None:
                return ServerState(port=port, process=ServerProcess.of(postmaster))
            # Somebody took the port between our look and the bind: the next one.
            if "could not create any TCP/IP sockets" not in log_tail(self.log, lines=4):
                break
        raise EmbeddedServiceError(
            "PostgreSQL did not start. Fix what the end of its log names, then run the command again"
            f" ({self.log}):\n{log_tail(self.log)}"
        )

    def _make_database(self, port: int) -> None:
        """Role and database of the application; the role is no superuser, as in production."""
        import psycopg  # only the first start needs it
        from psycopg import sql

        address = f"postgresql://{SUPERUSER}:{self.password}@{LOOPBACK}:{port}/postgres"
        role, database = sql.Identifier(USER), sql.Identifier(DATABASE)
        with psycopg.connect(address, autocommit=True, connect_timeout=10) as admin:
            if admin.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [USER]).fetchone() is None:
                password = sql.Literal(self.password)
                admin.execute(sql.SQL("CREATE ROLE {} LOGIN CREATEDB PASSWORD {}").format(role, password))
                admin.execute(sql.SQL("GRANT pg_monitor TO {}").format(role))
            if admin.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]).fetchone() is None:
                admin.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(database, role))


def is_alive(state: ServerState) -> bool:
    """The recorded process lives and a PostgreSQL answers at its port; about a millisecond."""
    return state.process is not None and state.process.handle() is not None and answers(state.port, _SSL_REQUEST, b"N")
