"""One reader per merchant and process, however many listen: what it reads is offered to each of them.

The processes are woken by PostgreSQL's NOTIFY over one connection. A notification only says that there is something to
read, so losing one costs seconds and nothing else: each feed also looks by itself now and then.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import psycopg
import structlog
from django.db import Error as DatabaseFailure
from django.db import connection as database

from recovery_site.common.errors import RecoveryError
from webhooks.stream.access import Access
from webhooks.stream.reading import Message, Position, Window
from webhooks.stream.waking import CHANNEL

log = structlog.get_logger()
# A feed looks by itself after this long, in case its notification was lost.
_LOOK_SECONDS = 5.0
_RECONNECT_SECONDS = 1.0


class TooManyReaders(RecoveryError):
    code = "rate_limited"
    http_status = 429
    retryable = True


@dataclass(frozen=True, slots=True)
class Limits:
    """Readers per merchant, and how many messages a reader may lag behind."""

    readers: int
    backlog: int


class Reader:
    """One client. `ended` says why it is over, once it is."""

    def __init__(self, access: Access, backlog: int) -> None:
        self.access = access
        self.position = Position(0, 0)
        self.ended = ""
        self._backlog = backlog
        self._waiting: deque[Message] = deque()
        self._stirred = asyncio.Event()

    def offer(self, message: Message) -> None:
        """Take a message unless it was told already. Who lags too far behind is dropped: nothing is kept for them, and
        they resume where they were by Last-Event-ID."""
        if self.ended or message.position <= self.position:
            return
        if len(self._waiting) >= self._backlog:
            self.end("slow")
            return
        self._waiting.append(message)
        self._stirred.set()

    def end(self, why: str) -> None:
        if not self.ended:
            self.ended = why
            self._waiting.clear()
            self._stirred.set()

    async def next(self, seconds: float) -> list[Message]:
        """What has come, as soon as there is something; empty after `seconds` of silence, or once it has ended."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stirred.wait()
        self._stirred.clear()
        found = list(self._waiting)
        self._waiting.clear()
        return found


Read = Callable[[int, Position], Awaitable[Window]]


class Feed:
    """A merchant's events, read once for all its readers. Everything up to `position` was offered."""

    def __init__(self, merchant_pk: int, position: Position, read: Read) -> None:
        self.position = position
        self.readers: set[Reader] = set()
        self._merchant_pk = merchant_pk
        self._read = read
        self._woken = asyncio.Event()
        self.task = asyncio.create_task(self._run())
        self.task.add_done_callback(self._over)

    def wake(self) -> None:
        self._woken.set()

    async def _run(self) -> None:
        while True:
            self._woken.clear()
            try:
                while await self._pull():
                    pass
            except DatabaseFailure as error:
                log.warning("stream_database_lost", error=type(error).__name__)
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_SECONDS):
                    await self._woken.wait()

    def _over(self, task: asyncio.Task[None]) -> None:
        """A feed that broke must not leave its readers with heartbeats only: they come back, and it begins anew."""
        if not task.cancelled() and (error := task.exception()):
            log.error("stream_feed_broken", exc_info=error)
            for reader in self.readers:
                reader.end("broken")

    async def _pull(self) -> bool:
        window = await self._read(self._merchant_pk, self.position)
        for message in window.messages:
            for reader in self.readers:
                reader.offer(message)
        self.position = window.until
        return window.more


class Hub:
    """Everybody who listens in this process."""

    def __init__(self, read: Read, limits: Limits) -> None:
        self._read = read
        self._limits = limits
        self._feeds: dict[int, Feed] = {}
        self._readers: set[Reader] = set()
        self._counts: Counter[int] = Counter()

    def admit(self, access: Access) -> Reader:
        """Count a client in. Raises TooManyReaders; whoever was admitted must `leave`."""
        if self._counts[access.merchant_pk] >= self._limits.readers:
            raise TooManyReaders(
                f"This merchant has {self._limits.readers} open streams already; close one first.", retry_after=30
            )
        self._counts[access.merchant_pk] += 1
        reader = Reader(access, self._limits.backlog)
        self._readers.add(reader)
        return reader

    def join(self, reader: Reader, position: Position) -> bool:
        """Hand over to the merchant's feed whoever has been told everything up to `position`.

        False if the feed has gone past it meanwhile: read on and ask again. Nothing is awaited between the look and
        the entry, so nothing falls between them.
        """
        merchant_pk = reader.access.merchant_pk
        feed = self._feeds.get(merchant_pk)
        if feed is None:
            feed = self._feeds[merchant_pk] = Feed(merchant_pk, position, self._read)
        if feed.position > position:
            return False
        reader.position = position
        feed.readers.add(reader)
        return True

    def told_until(self, reader: Reader) -> Position:
        """Where a reader stands to whom nothing is waiting to be sent."""
        return max(reader.position, self._feeds[reader.access.merchant_pk].position)

    def leave(self, reader: Reader) -> None:
        merchant_pk = reader.access.merchant_pk
        self._readers.discard(reader)
        self._counts[merchant_pk] -= 1
        feed = self._feeds.get(merchant_pk)
        if feed is not None:
            feed.readers.discard(reader)
        if not self._counts[merchant_pk]:
            del self._counts[merchant_pk]
            if feed is not None:
                feed.task.cancel()
                del self._feeds[merchant_pk]

    def end(self, why: str) -> None:
        for reader in self._readers:
            reader.end(why)

    async def watch(self, seconds: float, holds: Callable[[Access], Awaitable[bool]]) -> None:
        """Ask about each credential again every `seconds`, once for all who listen with it."""
        while True:
            await asyncio.sleep(seconds)
            for access in {reader.access for reader in self._readers}:
                try:
                    good = await holds(access)
                except DatabaseFailure as error:
                    log.warning("stream_database_lost", error=type(error).__name__)
                    break
                if not good:
                    self._end_all(access)

    def _end_all(self, access: Access) -> None:
        for reader in self._readers:
            if reader.access == access:
                reader.end("revoked")

    async def listen(self) -> None:
        """Wake the feeds that PostgreSQL names, for ever; after a lost connection all of them."""
        while True:
            try:
                async with await _connect() as connection:
                    await connection.execute(f"LISTEN {CHANNEL}".encode())
                    self._wake(self._feeds)
                    async for notice in connection.notifies():
                        self._wake([int(notice.payload)])
            except (psycopg.Error, OSError) as error:
                log.warning("stream_database_lost", error=type(error).__name__)
            await asyncio.sleep(_RECONNECT_SECONDS)

    def _wake(self, merchants: Collection[int]) -> None:
        for merchant_pk in merchants:
            if feed := self._feeds.get(merchant_pk):
                feed.wake()


async def _connect() -> psycopg.AsyncConnection[Any]:
    """A connection with Django's settings, of this event loop's own; a server that is gone is noticed in a minute."""
    known = database.get_connection_params()
    parameters = {name: value for name, value in known.items() if name not in ("context", "cursor_factory")}
    alive = {"keepalives": 1, "keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}
    known_as = {"application_name": "recovery stream"}
    return await psycopg.AsyncConnection.connect(**{**alive, **parameters, **known_as}, autocommit=True)
