"""The ASGI application of the live stream, a process of its own: open connections here hold up no page and no webhook.

GET /api/v1/stream                  with an API key that may read
GET /dashboard/stream/?merchant=ID  with the session of the dashboards
GET /health/live
"""

import asyncio
import json
import random
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from http.cookies import CookieError, SimpleCookie
from typing import Any, TypeVar
from urllib.parse import parse_qs

import structlog
from django.conf import settings
from django.db import close_old_connections
from django.http.request import split_domain_port, validate_host

from accounts.api.problems import CONTENT_TYPE, problem
from recovery_site.common.errors import InvalidInput, NotFound, RecoveryError
from webhooks.stream.access import Access, Unauthenticated, access_by_key, access_by_session, access_holds
from webhooks.stream.feeds import Hub, Limits, Reader
from webhooks.stream.reading import Position, Window, position_from, position_now, window_read

log = structlog.get_logger()
Answer = TypeVar("Answer")
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]
# Database work of all readers together: each thread holds one connection.
_THREADS = 4
# Clients come back after this long (milliseconds), spread out so that a restart is not followed by all of them at once.
_RETRY = (2_000, 5_000)


class StreamApplication:
    """One per process; the server must speak ASGI's lifespan protocol."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="stream")
        self._heartbeat = settings.STREAM_HEARTBEAT.total_seconds()
        self._hub = Hub(self._window, Limits(settings.STREAM_CONNECTIONS_PER_MERCHANT, settings.STREAM_BACKLOG))

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http":
            await self._answer(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        tasks = [
            asyncio.create_task(self._hub.listen()),
            asyncio.create_task(self._hub.watch(self._heartbeat, lambda access: self._work(access_holds, access))),
        ]
        await send({"type": "lifespan.startup.complete"})
        await receive()
        self._hub.end("stopping")
        for task in tasks:
            task.cancel()
        self._threads.shutdown(wait=False, cancel_futures=True)
        await send({"type": "lifespan.shutdown.complete"})

    async def _work(self, function: Callable[..., Answer], *arguments: Any) -> Answer:
        """Django's blocking database work in one of our threads."""

        def work() -> Answer:
            close_old_connections()
            try:
                return function(*arguments)
            finally:
                close_old_connections()

        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    async def _window(self, merchant_pk: int, after: Position) -> Window:
        return await self._work(window_read, merchant_pk, after)

    # --- one request ----------------------------------------------------------------------------------------------

    async def _answer(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        try:
            _check_host(headers.get("host", ""))
            if scope["path"] == "/health/live":
                await _plain(send, 200, {"status": "ok"}, "application/json", [])
                return
            access = await self._access(scope, headers)
            position = await self._position(headers.get("last-event-id", ""))
            reader = self._hub.admit(access)
        except RecoveryError as error:
            log.warning("stream_refused", code=error.code, status=error.http_status)
            await _refuse(send, error, scope["path"], _cors(headers))
            return
        try:
            await self._stream(reader, position, receive, send, _cors(headers))
        finally:
            self._hub.leave(reader)
            log.info("stream_closed", merchant=access.merchant, kind=access.kind, why=reader.ended or "gone")

    async def _access(self, scope: Mapping[str, Any], headers: Mapping[str, str]) -> Access:
        path = scope["path"]
        if path not in ("/api/v1/stream", "/dashboard/stream/"):
            raise NotFound("The live stream is at /api/v1/stream.")
        if scope["method"] != "GET":
            raise InvalidInput("The live stream is read with GET.")
        if path == "/api/v1/stream":
            return await self._work(access_by_key, headers.get("authorization", ""))
        merchant = parse_qs(scope["query_string"].decode("latin-1")).get("merchant", [""])[0]
        return await self._work(access_by_session, _session(headers.get("cookie", "")), merchant)

    async def _position(self, last_event_id: str) -> Position:
        """Where to begin. Raises InvalidInput for an id that this service cannot have told."""
        now = await self._work(position_now)
        if not last_event_id:
            return now
        wanted = position_from(last_event_id)
        if wanted is None or wanted > now:
            raise InvalidInput("This Last-Event-ID is none of ours; leave it out to begin with what comes next.")
        return wanted

    # --- one open stream ------------------------------------------------------------------------------------------

    async def _stream(
        self, reader: Reader, position: Position, receive: Receive, send: Send, cors: list[tuple[bytes, bytes]]
    ) -> None:
        head = [
            (b"content-type", b"text/event-stream; charset=utf-8"),
            (b"cache-control", b"no-store, no-transform"),
            (b"x-accel-buffering", b"no"),
            (b"x-content-type-options", b"nosniff"),
            *cors,
        ]
        log.info("stream_opened", merchant=reader.access.merchant, kind=reader.access.kind)
        leaving = asyncio.create_task(_until_gone(receive, reader))
        try:
            await send({"type": "http.response.start", "status": 200, "headers": head})
            await self._emit(reader, send, f"retry: {random.randint(*_RETRY)}\nid: {position}\n: welcome\n\n".encode())
            await self._catch_up(reader, position, send)
            while not reader.ended:
                messages = await reader.next(self._heartbeat)
                if messages:
                    await self._emit(reader, send, b"".join([message.encoded() for message in messages]))
                elif not reader.ended:
                    # The id moves on with it, so that a client that comes back has nothing to catch up with.
                    await self._emit(reader, send, f"id: {self._hub.told_until(reader)}\n: heartbeat\n\n".encode())
            if reader.ended != "gone":
                await self._emit(reader, send, b"", last=True)
        except _Stalled:
            reader.end("slow")
        finally:
            leaving.cancel()

    async def _catch_up(self, reader: Reader, position: Position, send: Send) -> None:
        """Tell what was missed, straight from the ledger and at the client's pace, then join the merchant's feed."""
        while not reader.ended:
            window = await self._window(reader.access.merchant_pk, position)
            for message in window.messages:
                await self._emit(reader, send, message.encoded())
            position = window.until
            if not window.more and self._hub.join(reader, position):
                return

    async def _emit(self, reader: Reader, send: Send, part: bytes, *, last: bool = False) -> None:
        """Raises _Stalled if the client takes nothing for two heartbeats."""
        try:
            async with asyncio.timeout(2 * self._heartbeat):
                await send({"type": "http.response.body", "body": part, "more_body": not last})
        except TimeoutError:
            raise _Stalled from None


class _Stalled(Exception):
    """The client does not read."""


async def _until_gone(receive: Receive, reader: Reader) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    reader.end("gone")


def _check_host(host: str) -> None:
    domain, _port = split_domain_port(host)
    if not domain or not validate_host(domain, settings.ALLOWED_HOSTS):
        raise InvalidInput("This host is not among ALLOWED_HOSTS.")


def _session(cookie: str) -> str:
    try:
        found = SimpleCookie(cookie).get(settings.SESSION_COOKIE_NAME)
    except CookieError:
        return ""
    return found.value if found else ""


def _cors(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    """Only our own pages may read the stream from another origin, as in the demo, where its port differs."""
    if headers.get("origin") != settings.PUBLIC_URL:
        return [(b"vary", b"Origin")]
    origin = settings.PUBLIC_URL.encode()
    return [
        (b"vary", b"Origin"),
        (b"access-control-allow-origin", origin),
        (b"access-control-allow-credentials", b"true"),
    ]


async def _refuse(send: Send, error: RecoveryError, path: str, cors: list[tuple[bytes, bytes]]) -> None:
    headers = list(cors)
    if isinstance(error, Unauthenticated):
        headers.append((b"www-authenticate", b'Bearer realm="api"'))
    if (seconds := error.data.get("retry_after")) is not None:
        headers.append((b"retry-after", str(seconds).encode()))
    told = problem(error.code, error.http_status, error.message, instance=path)
    await _plain(send, error.http_status, told, CONTENT_TYPE, headers)


async def _plain(
    send: Send, status: int, document: Mapping[str, Any], content_type: str, headers: list[tuple[bytes, bytes]]
) -> None:
    body = json.dumps(document).encode()
    head = [
        (b"content-type", content_type.encode()),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
        *headers,
    ]
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": body})
