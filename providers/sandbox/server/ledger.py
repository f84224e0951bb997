"""The ledger file: append-only JSON lines that survive a restart, kill -9 and a torn last line.

Every entry has `type` and `at`. Those that use up script or fault positions name them in `counters`, those
that answer an Idempotency-Key carry `key`, `fingerprint` and `reply` (HTTP status), those with a webhook
its id in `event`.

| type | further fields |
|---|---|
| charge, refund | the record as an object of the same name |
| step | `step`: used up without moving money |
| settle, settle_refund | `id`, `status` and the decline's codes |
| script, faults, webhook | the setting as sent |
| delivered | `id`, `ok`: a webhook that needs no further sending |
"""

import fcntl
import json
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

Entry = dict[str, Any]


class LedgerError(Exception):
    """The ledger cannot be read or written; nothing may count as moved any more."""


class Ledger:
    """Append under the caller's lock, then `commit`: the first to commit writes and syncs for all."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # 0600: the file holds the webhook secret.
        self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._fd)
            raise LedgerError(
                f"Ledger {self.path} is in use by another server; stop it or name another file."
            ) from None
        self._sync_directory()
        self._write_lock = threading.Lock()
        self._buffer_lock = threading.Lock()
        self._buffer: list[tuple[bytes, Entry]] = []
        self._appended = 0
        self._committed = 0
        self._broken: str | None = None

    def _sync_directory(self) -> None:
        fd = os.open(self.path.parent, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def replay(self) -> Iterator[Entry]:
        """Every entry from the start; a torn last line was never acknowledged to anybody and is cut off."""
        good = 0
        with self.path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                entry = _parse(line)
                if entry is None:
                    if lines.read(1):
                        raise LedgerError(
                            f"Ledger {self.path} is damaged in line {number}; restore it or name a new file."
                        )
                    os.ftruncate(self._fd, good)
                    os.fsync(self._fd)
                    return
                good += len(line)
                yield entry

    def append(self, entry: Entry) -> int:
        """Queue an entry, in the order of calls, and return the number to `commit`. Raises LedgerError."""
        line = json.dumps(entry, separators=(",", ":")).encode() + b"\n"
        with self._buffer_lock:
            if self._broken:
                raise LedgerError(self._broken)
            self._buffer.append((line, entry))
            self._appended += 1
            return self._appended

    def commit(self, number: int, publish: Callable[[Sequence[Entry]], None]) -> None:
        """Return once entry `number` is on disk and published, in order; raises LedgerError."""
        with self._write_lock:
            if self._committed >= number:
                return
            with self._buffer_lock:
                if self._broken:
                    raise LedgerError(self._broken)
                batch, self._buffer = self._buffer, []
            try:
                self._write(b"".join(line for line, _ in batch))
                os.fsync(self._fd)
            except OSError as error:
                # A half-written line must stay the last one, so nothing may follow it.
                reason = f"Ledger {self.path} cannot be written ({error.strerror}); restart with room on the disk."
                self._refuse(reason)
                raise LedgerError(reason) from error
            publish([entry for _, entry in batch])
            self._committed += len(batch)

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd, view) :]

    def close(self, publish: Callable[[Sequence[Entry]], None]) -> None:
        """Write what is queued and let the file go."""
        try:
            self.commit(self._appended, publish)
        finally:
            # Refuse first: the number of a closed descriptor may soon name another file.
            self._refuse(f"Ledger {self.path} is closed; start the server again.")
            with self._write_lock:
                os.close(self._fd)

    def _refuse(self, reason: str) -> None:
        with self._buffer_lock:
            self._broken = reason


def _parse(line: bytes) -> Entry | None:
    if not line.endswith(b"\n"):
        return None
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) and "type" in entry else None
