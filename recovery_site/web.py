"""What the web server runs: the inbound door, and everything else by WSGI in threads, once its body is there.

`granian --interface asgi --workers 2 --no-ws recovery_site.web:application`

A WSGI server gives a request its thread before the body has come, so that a few clients that dribble theirs take every
thread. Here bodies are awaited without a thread, for so long and up to that size (docs/adr/0014-web-server.md).
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import django
from asgiref.sync import sync_to_async
from asgiref.wsgi import WsgiToAsgiInstance

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "recovery_site.settings")
django.setup()

from django.conf import settings  # noqa: E402  # Django must be set up first

from recovery_site.common.errors import RecoveryError  # noqa: E402
from recovery_site.wsgi import application as django_site  # noqa: E402
from webhooks.door.answers import refused  # noqa: E402
from webhooks.door.application import Door, answer, body_read  # noqa: E402

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]
# Larger than anything that a page or the API takes.
_LARGEST_BODY = 16 * 1024 * 1024


class Page(WsgiToAsgiInstance):
    """One request by WSGI. asgiref would run all of them in one thread."""

    run_wsgi_app = sync_to_async(vars(WsgiToAsgiInstance)["run_wsgi_app"].func, thread_sensitive=False)


def site(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterator[bytes]:
    """Django, with its response closed at the end, which asgiref does not do."""
    response = django_site(environ, start_response)
    try:
        yield from response
    finally:
        response.close()


class Web:
    """The ASGI application; the server must speak the lifespan protocol."""

    def __init__(self) -> None:
        self._door: Door | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await receive()
            self._door = Door()
            asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(settings.WEB_THREADS))
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
        elif scope["type"] == "http" and self._door and not await self._door.handles(scope, receive, send):
            await self._page(scope, receive, send)

    async def _page(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        try:
            body = await body_read(receive, headers, limit=_LARGEST_BODY, timeout=settings.WEB_READ_TIMEOUT)
        except RecoveryError as error:
            await answer(send, error.http_status, refused(error, {"provider": "", "endpoint": ""}))
            return

        async def whole() -> Mapping[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        await Page(site)(scope, whole, send)  # type: ignore[no-untyped-call]


application = Web()
