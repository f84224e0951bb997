"""`services.json`: what runs where. Replaced whole, private because it holds a password."""

import json
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recovery_site.embedded.processes import ServerProcess

FILE_NAME = "services.json"


@dataclass(frozen=True, slots=True)
class ServerState:
    """One server: its loopback port, kept over restarts, and its process, None when stopped."""

    port: int
    process: ServerProcess | None


@dataclass(frozen=True, slots=True)
class ServicesState:
    """Everything a process needs to reach this checkout's servers."""

    root: Path
    note: str
    password: str
    postgres: ServerState | None
    redis: ServerState | None


def read_state(data_dir: Path) -> ServicesState | None:
    """The recorded state; None if there is none that can be understood (it is then rebuilt).

    A record that was copied along with a whole checkout describes the other checkout's servers, not ours.
    """
    try:
        raw = json.loads((data_dir / FILE_NAME).read_text(encoding="utf-8"))
        if raw["data_dir"] != os.path.realpath(data_dir):
            return None
        return ServicesState(
            root=Path(raw["data_root"]),
            note=raw["note"],
            password=raw["password"],
            postgres=_server(raw["postgres"]),
            redis=_server(raw["redis"]),
        )
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def write_state(data_dir: Path, state: ServicesState, urls: dict[str, str]) -> None:
    """Replace the file in one step, so that no reader ever sees half of it."""
    content = {
        **urls,
        "data_dir": os.path.realpath(data_dir),
        "data_root": str(state.root),
        "note": state.note,
        "password": state.password,
        "postgres": _raw(state.postgres),
        "redis": _raw(state.redis),
    }
    write_private(data_dir / FILE_NAME, json.dumps(content, indent=2) + "\n")


def write_private(path: Path, text: str) -> None:
    """Write `text` to `path` atomically with mode 0600, owned like the directory it lies in."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    handle = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(handle, "w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    keep_owner(unfinished)
    unfinished.replace(path)


def keep_owner(path: Path) -> None:
    """Root working in a user's checkout leaves its files to that user."""
    if os.geteuid() == 0:
        folder = path.parent.stat()
        with suppress(PermissionError):
            os.chown(path, folder.st_uid, folder.st_gid)


def _server(raw: dict[str, Any] | None) -> ServerState | None:
    if raw is None:
        return None
    process = raw["process"]
    return ServerState(
        port=int(raw["port"]),
        process=process and ServerProcess(pid=int(process["pid"]), started=float(process["started"])),
    )


def _raw(server: ServerState | None) -> dict[str, Any] | None:
    if server is None:
        return None
    process = server.process and {"pid": server.process.pid, "started": server.process.started}
    return {"port": server.port, "process": process}
