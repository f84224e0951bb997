"""Loopback ports that several checkouts, and whatever else runs on the machine, do not fight over."""

import hashlib
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

LOOPBACK = "127.0.0.1"
# Below the range from which Linux and macOS hand out ports to outgoing connections.
_FIRST, _COUNT = 20_000, 12_000


def is_free(port: int) -> bool:
    """True if nothing listens on the loopback port right now."""
    with closing(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        return True


def free_ports(directory: Path, salt: str, last: int | None) -> Iterator[int]:
    """Free ports to try, best first: the one used last, then a run that starts at a hash of the directory.

    A stable port lets processes that were running before a restart reconnect.
    """
    if last is not None and is_free(last):
        yield last
    digest = hashlib.sha256(f"{salt}:{directory}".encode()).digest()
    start = int.from_bytes(digest[:4], "big")
    for step in range(200):
        port = _FIRST + (start + step * 7) % _COUNT
        if port != last and is_free(port):
            yield port


def answers(port: int, send: bytes, expect: bytes, *, timeout_seconds: float = 1.0) -> bool:
    """True if a server on the loopback port answers `send` with something that begins with `expect`."""
    try:
        with socket.create_connection((LOOPBACK, port), timeout=timeout_seconds) as connection:
            connection.sendall(send)
            return connection.recv(64).startswith(expect)
    except OSError:
        return False
