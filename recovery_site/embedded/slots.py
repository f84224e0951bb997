"""Several test runs of one checkout side by side: each takes a slot, and with it databases of its own."""

import fcntl
from pathlib import Path
from typing import IO

WORKERS_PER_SLOT = 16
SLOTS = 32
# Open for the life of the process that claimed the slot; the kernel gives the lock back when it ends.
_held: list[IO[str]] = []


def claim_test_slot(data_dir: Path) -> int:
    """The lowest slot no other live test run holds; the last one is shared when all are taken."""
    data_dir.mkdir(parents=True, exist_ok=True)
    for slot in range(SLOTS):
        stream = (data_dir / f"test-slot-{slot}.lock").open("w", encoding="ascii")
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            stream.close()
            continue
        _held.append(stream)
        return slot
    return SLOTS - 1


def slot_database_name(database: str, slot: int) -> str:
    """The test database of `slot`; pytest-django adds the worker's name to it."""
    return f"test_{database}" if slot == 0 else f"test_{database}_{slot}"


def slot_redis_number(slot: int, worker: str) -> int:
    """The Redis database of a pytest-xdist worker (`gw3`, or `master` without xdist); never the app's 0."""
    number = int(worker.removeprefix("gw")) if worker.startswith("gw") else 0
    return 1 + slot * WORKERS_PER_SLOT + number % WORKERS_PER_SLOT
