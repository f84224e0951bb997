"""Start, find and stop this checkout's servers; safe to call from any number of processes at once."""

import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from recovery_site.embedded import postgres as postgres_module
from recovery_site.embedded.errors import EmbeddedServiceError
from recovery_site.embedded.location import choose_root, find_programs
from recovery_site.embedded.ports import free_ports
from recovery_site.embedded.postgres import Postgres
from recovery_site.embedded.processes import Account, service_account
from recovery_site.embedded.redis_server import Redis
from recovery_site.embedded.state import ServicesState, keep_owner, read_state, write_private, write_state

_LOG_LIMIT_BYTES = 20 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class ServiceUrls:
    """Addresses of the running servers; they contain a password of this checkout."""

    database_url: str
    redis_url: str


def ensure_services(data_dir: Path) -> ServiceUrls:
    """Addresses of this checkout's PostgreSQL and Redis, both running and answering on return.

    The usual call finds them running and costs a few milliseconds. Otherwise one process starts what is
    missing while the others wait for it. Raises EmbeddedServiceError with a sentence that says what to do.
    """
    with _readable_errors(data_dir):
        state = read_state(data_dir)
        if state is not None and _is_alive(state):
            return _urls(state)
        _make_data_dir(data_dir)
        with _lock(data_dir):
            state = _ensure_locked(data_dir, read_state(data_dir))
            urls = _urls(state)
            addresses = {"DATABASE_URL": urls.database_url, "REDIS_URL": urls.redis_url}
            write_state(data_dir, state, addresses)
            return urls


def stop_services(data_dir: Path) -> bool:
    """Stop both servers cleanly; False if there was nothing to stop. Their data stays."""
    with _readable_errors(data_dir):
        if not data_dir.is_dir():
            return False
        with _lock(data_dir):
            state = read_state(data_dir)
            if state is None:
                return False
            running = any(server and server.process for server in (state.postgres, state.redis))
            account = service_account(state.root / "postgres")
            # Only the paths matter for stopping, so the programs are not looked for.
            _postgres(state, account, Path()).stop()
            _redis(state, account, Path()).stop()
            stopped = replace(
                state,
                postgres=state.postgres and replace(state.postgres, process=None),
                redis=state.redis and replace(state.redis, process=None),
            )
            write_state(data_dir, stopped, {})
            return running


def remove_services(data_dir: Path) -> None:
    """Stop both servers and delete `data_dir`, and their data also where it lies elsewhere."""
    state = read_state(data_dir) if data_dir.is_dir() else None
    stop_services(data_dir)
    with _readable_errors(data_dir):
        if state is not None and state.root != data_dir and state.root.is_dir():
            shutil.rmtree(state.root)
        if data_dir.is_dir():
            shutil.rmtree(data_dir)


def _ensure_locked(data_dir: Path, known: ServicesState | None) -> ServicesState:
    account = service_account((known.root if known else data_dir) / "postgres")
    location = choose_root(data_dir, account, known.root if known else None)
    root = location.root
    state = ServicesState(
        root=root,
        note=location.note,
        password=_password(root),
        postgres=known.postgres if known else None,
        redis=known.redis if known else None,
    )
    programs = None
    if state.postgres is None or not postgres_module.is_alive(state.postgres):
        programs = find_programs(root, account)
        server = _postgres(state, account, programs.postgres_bin)
        _open_log(server.log, account)
        last = state.postgres.port if state.postgres else None
        state = replace(state, postgres=server.ensure(free_ports(root, "postgres", last)))
    if state.redis is None or not _redis(state, account, Path()).is_alive(state.redis):
        programs = programs or find_programs(root, account)
        cache = _redis(state, account, programs.redis_server)
        _open_log(cache.log, account)
        last = state.redis.port if state.redis else None
        state = replace(state, redis=cache.ensure(free_ports(root, "redis", last)))
    return state


def _postgres(state: ServicesState, account: Account, programs: Path) -> Postgres:
    return Postgres(
        data=state.root / "postgres",
        log=state.root / "postgres.log",
        programs=programs,
        account=account,
        password=state.password,
    )


def _redis(state: ServicesState, account: Account, program: Path) -> Redis:
    return Redis(
        directory=state.root / "redis",
        log=state.root / "redis.log",
        program=program,
        account=account,
        password=state.password,
    )


def _is_alive(state: ServicesState) -> bool:
    if state.postgres is None or state.redis is None:
        return False
    account = Account(name=None, uid=None, gid=None)
    return postgres_module.is_alive(state.postgres) and _redis(state, account, Path()).is_alive(state.redis)


def _urls(state: ServicesState) -> ServiceUrls:
    if state.postgres is None or state.redis is None:
        raise EmbeddedServiceError("The embedded services were not started. Run the command again.")
    account = Account(name=None, uid=None, gid=None)
    return ServiceUrls(
        database_url=_postgres(state, account, Path()).url(state.postgres.port),
        redis_url=_redis(state, account, Path()).url(state.redis.port),
    )


def _password(root: Path) -> str:
    """The password of both servers, kept beside the data it opens."""
    path = root / "password"
    if not path.exists():
        write_private(path, secrets.token_hex(24))
    return path.read_text(encoding="ascii").strip()


def _open_log(log: Path, account: Account) -> None:
    mode = "w" if log.exists() and log.stat().st_size > _LOG_LIMIT_BYTES else "a"
    with log.open(mode, encoding="utf-8"):
        account.own(log)
        log.chmod(0o600)


def _make_data_dir(data_dir: Path) -> None:
    if not data_dir.is_dir():
        data_dir.mkdir(parents=True, exist_ok=True)
        keep_owner(data_dir)
        # The servers' account must be able to walk through; what lies inside has modes of its own.
        data_dir.chmod(0o711)


@contextmanager
def _lock(data_dir: Path) -> Iterator[None]:
    """Exclusive between processes; the kernel frees it when its holder dies."""
    path = data_dir / "services.lock"
    with open(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "w", encoding="utf-8") as stream:
        keep_owner(path)
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


@contextmanager
def _readable_errors(data_dir: Path) -> Iterator[None]:
    try:
        yield
    except PermissionError as error:
        raise EmbeddedServiceError(
            f"The embedded services' files below {data_dir} belong to another account ({error.filename})."
            " Run as that account, or let it run `make clean`, or set DATABASE_URL and REDIS_URL."
        ) from error
    except OSError as error:
        raise EmbeddedServiceError(
            f"The embedded services cannot be run: {error}. Fix that, or set DATABASE_URL and REDIS_URL to"
            " servers of your own."
        ) from error
