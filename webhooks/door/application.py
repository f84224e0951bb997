"""`POST /webhooks/<provider>/<uuid>/` as an ASGI application; every other request is handed on."""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl
from uuid import UUID

import psycopg
import structlog
from django.conf import settings
from django.http.request import split_domain_port, validate_host

from providers.base import BodyMalformed, InboundRequest
from recovery_site.common.errors import RecoveryError
from webhooks.door.answers import BodyTooLarge, BodyTooSlow, EndpointUnknown, accepted, refused
from webhooks.door.commit import Committer, Database
from webhooks.door.endpoints import Endpoints
from webhooks.door.taking import rows_take

log = structlog.get_logger()
Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]
_ADDRESS = re.compile(r"/webhooks/([-a-zA-Z0-9_]+)/([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})/", re.ASCII)


class Door:
    """One per event loop: it owns a database connection."""

    def __init__(self) -> None:
        database = Database()
        self._endpoints = Endpoints(database)
        self._committer = Committer(database)

    async def handles(self, scope: Scope, receive: Receive, send: Send) -> bool:
        """True if the request was one for the door, and is answered. What is unusual about host, scheme or method is
        left to Django, which knows what to say."""
        found = _ADDRESS.fullmatch(scope["path"]) if scope["method"] == "POST" else None
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]} if found else {}
        if found is None or not _host_good(headers) or not _secure(scope, headers):
            return False
        where = {"provider": found[1], "endpoint": found[2]}
        status, extra = 200, list[tuple[bytes, bytes]]()
        try:
            told = accepted(await self._receive(UUID(found[2]), found[1], scope, headers, receive), where)
        except RecoveryError as error:
            status, told = error.http_status, refused(error, where)
            if "retry_after" in error.data:
                extra = [(b"retry-after", str(error.data["retry_after"]).encode())]
        except (psycopg.Error, OSError, ValueError) as error:
            log.error("webhook_not_stored", **where, error=type(error).__name__)
            status, told = 503, {"error": "not_stored", "message": "The webhook was not stored. Try again later."}
        await answer(send, status, told, extra)
        return True

    async def _receive(
        self, uuid: UUID, provider: str, scope: Scope, headers: Mapping[str, str], receive: Receive
    ) -> int:
        body = await body_read(
            receive, headers, limit=settings.WEBHOOK_MAX_BODY_BYTES, timeout=settings.WEBHOOK_READ_TIMEOUT
        )
        known = await self._endpoints.get(uuid)
        if known is None or known.endpoint.provider != provider or not known.endpoint.enabled:
            raise EndpointUnknown("There is no such endpoint, it is another provider's, or it is switched off.")
        query = dict(parse_qsl(scope["query_string"].decode("latin-1")))
        sent = InboundRequest(body=body, headers=headers, query=query)
        return await self._committer.store(rows_take(known.endpoint, known.secrets, sent))


async def body_read(receive: Receive, headers: Mapping[str, str], *, limit: int, timeout: Any) -> bytes:
    """The whole body. Raises BodyTooLarge (before reading, where the size is declared), BodyTooSlow, BodyMalformed."""
    declared = headers.get("content-length", "")
    if declared and not (declared.isascii() and declared.isdecimal()):
        raise BodyMalformed("The Content-Length is no number; send the body's size in bytes.")
    if len(declared) > 18 or (declared and int(declared) > limit):
        raise BodyTooLarge(f"The body is larger than {limit} bytes; send fewer items at once.")
    parts, size, more = [], 0, True
    try:
        async with asyncio.timeout(timeout.total_seconds()):
            while more:
                message = await receive()
                if message["type"] != "http.request":
                    raise BodyMalformed("The body broke off; send it again.")
                parts.append(message.get("body", b""))
                size, more = size + len(parts[-1]), message.get("more_body", False)
                if size > limit:
                    raise BodyTooLarge(f"The body is larger than {limit} bytes; send fewer items at once.")
    except TimeoutError:
        raise BodyTooSlow(f"The body did not come within {timeout.total_seconds():g} seconds.") from None
    return b"".join(parts)


async def answer(
    send: Send, status: int, document: Mapping[str, Any], extra: list[tuple[bytes, bytes]] | None = None
) -> None:
    body = json.dumps(document).encode()
    head = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *(extra or [])]
    if status in (408, 413):
        head.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": body})


def _host_good(headers: Mapping[str, str]) -> bool:
    domain, _port = split_domain_port(headers.get("host", ""))
    return bool(domain) and validate_host(domain, settings.ALLOWED_HOSTS)


def _secure(scope: Scope, headers: Mapping[str, str]) -> bool:
    if not settings.SECURE_SSL_REDIRECT or scope.get("scheme") == "https":
        return True
    told = getattr(settings, "SECURE_PROXY_SSL_HEADER", None)
    return told is not None and headers.get(told[0].removeprefix("HTTP_").replace("_", "-").lower()) == told[1]
