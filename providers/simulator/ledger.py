"""The simulator's memory: one SQLite file that worker processes share.

Written with `synchronous=OFF`: a power cut may lose the last charges, which costs a simulator nothing and
keeps a charge under a millisecond. A killed process loses nothing.
"""

import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass, fields
from pathlib import Path

BUSY_SECONDS = 30.0

_SCHEMA = """
CREATE TABLE IF NOT EXISTS charges (
    key TEXT PRIMARY KEY, id TEXT UNIQUE, reference TEXT, token TEXT, customer TEXT, amount INTEGER,
    currency TEXT, status TEXT, raw_code TEXT, network_code TEXT, advice_code TEXT, created_at TEXT
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS charges_by_reference ON charges (reference);
CREATE INDEX IF NOT EXISTS charges_by_token ON charges (token, status);
CREATE INDEX IF NOT EXISTS charges_by_time ON charges (created_at);
CREATE TABLE IF NOT EXISTS refunds (
    key TEXT PRIMARY KEY, id TEXT UNIQUE, reference TEXT, charge TEXT, amount INTEGER, currency TEXT
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS refunds_by_reference ON refunds (reference);
CREATE INDEX IF NOT EXISTS refunds_by_charge ON refunds (charge);
CREATE TABLE IF NOT EXISTS confirmed (token TEXT PRIMARY KEY) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True)
class ChargeRow:
    """`amount` in minor units, `created_at` ISO 8601 in UTC with six decimals: text that sorts like time."""

    key: str
    id: str
    reference: str
    token: str
    customer: str
    amount: int
    currency: str
    status: str
    raw_code: str
    network_code: str
    advice_code: str
    created_at: str


@dataclass(frozen=True, slots=True)
class RefundRow:
    key: str
    id: str
    reference: str
    charge: str
    amount: int
    currency: str


_CHARGE = ", ".join(field.name for field in fields(ChargeRow))
_REFUND = ", ".join(field.name for field in fields(RefundRow))


class Ledger:
    """Methods raise sqlite3.Error. A connection belongs to one thread of one process, as SQLite demands."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._local = threading.local()

    def charge_add(self, row: ChargeRow) -> ChargeRow:
        """Add the charge unless its key is there; returns the row that counts."""
        database = self._connection()
        marks = ", ".join("?" * len(fields(ChargeRow)))
        database.execute(
            f"INSERT OR IGNORE INTO charges ({_CHARGE}) VALUES ({marks})",  # noqa: S608
            astuple(row),
        )
        found = self.charge_of_key(row.key)
        return found if found is not None else row

    def charge_of_key(self, key: str) -> ChargeRow | None:
        return self._charge("key = ?", key)

    def charge_of_id(self, charge_id: str) -> ChargeRow | None:
        return self._charge("id = ?", charge_id)

    def charge_of_reference(self, reference: str) -> ChargeRow | None:
        """The one that moved money, if the reference has several."""
        return self._charge("reference = ? ORDER BY status = 'succeeded' DESC, created_at", reference)

    def charges_after(self, created_at: str) -> Sequence[ChargeRow]:
        rows = self._connection().execute(
            f"SELECT {_CHARGE} FROM charges WHERE created_at > ? ORDER BY created_at, id",  # noqa: S608
            (created_at,),
        )
        return [ChargeRow(*row) for row in rows]

    def declines(self, token: str) -> int:
        """How many charges of this token were declined."""
        counted = self._connection().execute(
            "SELECT count(*) FROM charges WHERE token = ? AND status = 'declined'", (token,)
        )
        return int(counted.fetchone()[0])

    def refund_add(self, row: RefundRow) -> RefundRow:
        """Add the refund unless its key is there; returns the row that counts."""
        marks = ", ".join("?" * len(fields(RefundRow)))
        self._connection().execute(
            f"INSERT OR IGNORE INTO refunds ({_REFUND}) VALUES ({marks})",  # noqa: S608
            astuple(row),
        )
        found = self.refund_of_key(row.key)
        return found if found is not None else row

    def refund_of_key(self, key: str) -> RefundRow | None:
        return self._refund("key = ?", key)

    def refund_of_id(self, refund_id: str) -> RefundRow | None:
        return self._refund("id = ?", refund_id)

    def refund_of_reference(self, reference: str) -> RefundRow | None:
        return self._refund("reference = ?", reference)

    def refunded(self, charge_id: str) -> int:
        """Minor units refunded so far."""
        summed = self._connection().execute(
            "SELECT coalesce(sum(amount), 0) FROM refunds WHERE charge = ?", (charge_id,)
        )
        return int(summed.fetchone()[0])

    def confirm(self, token: str) -> None:
        """The payer has confirmed at the bank: the token needs no confirmation any more."""
        self._connection().execute("INSERT OR IGNORE INTO confirmed (token) VALUES (?)", (token,))

    def confirmed(self, token: str) -> bool:
        found = self._connection().execute("SELECT 1 FROM confirmed WHERE token = ?", (token,))
        return found.fetchone() is not None

    @contextmanager
    def alone(self) -> Iterator[None]:
        """One writer at a time over all processes, for answers that depend on what others wrote."""
        database = self._connection()
        database.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            database.execute("ROLLBACK")
            raise
        database.execute("COMMIT")

    def _charge(self, condition: str, value: str) -> ChargeRow | None:
        query = f"SELECT {_CHARGE} FROM charges WHERE {condition} LIMIT 1"  # noqa: S608
        row = self._connection().execute(query, (value,)).fetchone()
        return ChargeRow(*row) if row else None

    def _refund(self, condition: str, value: str) -> RefundRow | None:
        query = f"SELECT {_REFUND} FROM refunds WHERE {condition} LIMIT 1"  # noqa: S608
        row = self._connection().execute(query, (value,)).fetchone()
        return RefundRow(*row) if row else None

    def _connection(self) -> sqlite3.Connection:
        held: tuple[int, sqlite3.Connection] | None = getattr(self._local, "held", None)
        if held is None or held[0] != os.getpid():
            held = (os.getpid(), _open(self._path))
            self._local.held = held
        return held[1]


def _open(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(parents=True, exist_ok=True)
    database = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
    _write_ahead(database)
    database.execute("PRAGMA synchronous=OFF")
    database.executescript(_SCHEMA)
    return database


def _write_ahead(database: sqlite3.Connection) -> None:
    """Here SQLite does not wait by itself for others that open the new file at the same moment."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            database.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
