"""Group commit: whatever waits is inserted by one statement, and every sender is answered after its commit.

The round trip to PostgreSQL and its fsync are what a webhook costs, and both cost the same for one row and for fifty.
While one INSERT is under way further webhooks gather, and the next one takes them all; so under light load each goes
alone and at once, and under heavy load a group grows by itself. Nothing is answered before it is durable:
synchronous_commit stays on. Measured: benchmarks/ingest.py.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import psycopg
import structlog
from django.db import connection as django_connection

from webhooks.door.answers import Busy
from webhooks.services.receiving import InboxRow

log = structlog.get_logger()
# A group is this many webhooks at most, so that one statement stays short.
_GROUP = 200
# More than this waiting: the database does not keep up, and senders had better come again.
_WAITING_AT_MOST = 2000
_STATEMENT_SECONDS = 10
_TYPES = {int: "bigint", str: "text", datetime: "timestamptz"}
_COLUMNS = ", ".join(InboxRow._fields)
# Binary arrays: the text form escapes every quote of every body, which makes a group slower than single inserts.
_ARRAYS = ", ".join(f"%b::{_TYPES[InboxRow.__annotations__[name]]}[]" for name in InboxRow._fields)
_INSERT = f"""
INSERT INTO webhooks_inboxevent ({_COLUMNS}, status, reason, attempts)
SELECT {_COLUMNS}, 'RECEIVED', '', 0 FROM unnest({_ARRAYS}) AS item ({_COLUMNS})
ON CONFLICT (endpoint_id, provider_event_id) DO NOTHING
RETURNING endpoint_id, provider_event_id
"""  # noqa: S608


class Database:
    """One connection of this event loop's own, opened when it is needed, and again after it broke."""

    def __init__(self) -> None:
        self._connection: psycopg.AsyncConnection[Any] | None = None
        self._lock = asyncio.Lock()

    async def fetch(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """The rows of a statement in autocommit. Raises psycopg.Error; a broken connection is opened anew next time."""
        async with self._lock:
            if self._connection is None or self._connection.closed:
                self._connection = await _connect()
            cursor = await self._connection.execute(statement.encode(), values)
            return await cursor.fetchall()


async def _connect() -> psycopg.AsyncConnection[Any]:
    known = django_connection.get_connection_params()
    parameters = {name: value for name, value in known.items() if name not in ("context", "cursor_factory")}
    connection = await psycopg.AsyncConnection.connect(**parameters, autocommit=True)
    await connection.execute(f"SET statement_timeout = '{_STATEMENT_SECONDS}s'".encode())
    return connection


class Waiting:
    """The rows of one webhook and who waits for them."""

    __slots__ = ("done", "rows")

    def __init__(self, rows: Sequence[InboxRow]) -> None:
        self.rows = rows
        self.done: asyncio.Future[int] = asyncio.get_running_loop().create_future()


class Committer:
    """Stores rows in groups; one per event loop."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: list[Waiting] = []
        self._running: asyncio.Task[None] | None = None

    async def store(self, rows: Sequence[InboxRow]) -> int:
        """How many of `rows` were new, once all of them are durable. Raises Busy, psycopg.Error: nothing is known then,
        and the sender sends again."""
        if not rows:
            return 0
        if len(self._waiting) >= _WAITING_AT_MOST:
            raise Busy("Too many webhooks wait for the database; it does not keep up.")
        waiting = Waiting(rows)
        self._waiting.append(waiting)
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._run())
        return await waiting.done

    async def _run(self) -> None:
        while self._waiting:
            group, self._waiting = self._waiting[:_GROUP], self._waiting[_GROUP:]
            await self._commit(group)

    async def _commit(self, group: list[Waiting]) -> None:
        """One statement for all. If it fails each webhook is tried by itself, so that one that cannot be stored hurts
        only its own sender; storing what was stored already does nothing."""
        try:
            new = await self._insert([row for waiting in group for row in waiting.rows])
        except (psycopg.Error, OSError, ValueError) as error:  # ValueError: text that the driver cannot encode
            if len(group) > 1:
                log.warning("webhook_group_failed", size=len(group), error=type(error).__name__)
                for waiting in group:
                    await self._commit([waiting])
                return
            _fail(group[0], error)
            return
        for waiting in group:
            _answer(waiting, new)

    async def _insert(self, rows: Sequence[InboxRow]) -> Counter[tuple[int, str]]:
        """The keys of the rows that were new."""
        columns: list[Any] = [list(column) for column in zip(*rows, strict=True)]
        found = await self._database.fetch(_INSERT, columns)
        return Counter((int(endpoint), str(event)) for endpoint, event in found)


def _answer(waiting: Waiting, new: Counter[tuple[int, str]]) -> None:
    """The first that brought an item is told that it was new."""
    count = 0
    for row in waiting.rows:
        key = (row.endpoint_id, row.provider_event_id)
        if new[key]:
            new[key] -= 1
            count += 1
    if not waiting.done.done():
        waiting.done.set_result(count)


def _fail(waiting: Waiting, error: Exception) -> None:
    if not waiting.done.done():
        waiting.done.set_exception(error)
