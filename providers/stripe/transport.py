"""How requests reach Stripe: the SDK's HTTP client with hard limits, and proof of what was never sent.

The SDK reports every network trouble as one error. Whether a charge may be sent again depends on a finer
question: could a byte of the request have left? The connection knows, so it is asked.
"""

import threading
import time
from collections.abc import Mapping
from http.client import HTTPException
from typing import Any

import requests
import stripe
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError

# Else the SDK leaves an id in the home directory and tells Stripe with every request what machine this is.
stripe.enable_telemetry = False

_MAX_CONNECT_SECONDS = 5.0
# A page of a hundred charges is a few hundred kilobytes.
_MAX_BODY = 32 * 1024 * 1024

_progress = threading.local()


class NotSent(Exception):
    """No byte of the request left this machine. The text is safe to show: it holds no header and no body."""


class NoReply(Exception):
    """The request may have arrived, but no whole answer came back. The text is safe to show."""


class _NotingConnection(HTTPConnection):
    def send(self, data: Any) -> None:
        _note_before_sending(self)
        super().send(data)


class _NotingTLSConnection(HTTPSConnection):
    def send(self, data: Any) -> None:
        _note_before_sending(self)
        super().send(data)


class _NotingPool(HTTPConnectionPool):
    ConnectionCls = _NotingConnection


class _NotingTLSPool(HTTPSConnectionPool):
    ConnectionCls = _NotingTLSConnection


class _NotingAdapter(HTTPAdapter):
    """Connections that note the moment before the first byte: name look-up, TCP and TLS are done by then."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _NotingPool, "https": _NotingTLSPool}

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(*args, **kwargs)
        manager.pool_classes_by_scheme = {"http": _NotingPool, "https": _NotingTLSPool}
        return manager


class BoundedHTTPClient(stripe.HTTPClient):
    """Sends one request of the SDK: no redirects, no retries, one limit to connect and one for the answer.

    Raises NotSent or NoReply; both pass through the SDK untouched.
    """

    name = "requests"

    def __init__(self, timeout_seconds: float) -> None:
        super().__init__()
        self._connect_seconds = min(_MAX_CONNECT_SECONDS, timeout_seconds / 4)
        self._answer_seconds = timeout_seconds - self._connect_seconds
        self._sessions = threading.local()

    # The SDK's own clients return bytes too; only its base class says text.
    def request(  # type: ignore[override]
        self, method: str, url: str, headers: Mapping[str, str] | None, post_data: Any = None, **_usage: Any
    ) -> tuple[bytes, int, Mapping[str, str]]:
        """The answer's body, status and headers, whatever the status is."""
        _progress.sent = False
        failure = ""
        try:
            return self._exchange(method, url, headers, post_data)
        except (requests.RequestException, HTTPError, HTTPException, OSError, ValueError) as error:
            failure = type(error).__name__
        # Out here, so that the exception above, whose text may quote headers, is no part of any traceback.
        raise NoReply(failure) if _progress.sent else NotSent(failure)

    def close(self) -> None:
        session = getattr(self._sessions, "session", None)
        if session is not None:
            session.close()

    def _exchange(
        self, method: str, url: str, headers: Mapping[str, str] | None, post_data: Any
    ) -> tuple[bytes, int, Mapping[str, str]]:
        deadline = time.monotonic() + self._connect_seconds + self._answer_seconds
        with self._session().request(
            method,
            url,
            headers=headers,
            data=post_data,
            timeout=(self._connect_seconds, self._answer_seconds),
            allow_redirects=False,
            stream=True,
        ) as response:
            return _body(response, deadline), response.status_code, response.headers

    def _session(self) -> requests.Session:
        session: requests.Session | None = getattr(self._sessions, "session", None)
        if session is None:
            session = requests.Session()
            session.mount("https://", _NotingAdapter())
            session.mount("http://", _NotingAdapter())
            self._sessions.session = session
        return session


def _body(response: requests.Response, deadline: float) -> bytes:
    """All of the body; the time-out of requests bounds only the wait for the next piece."""
    body = bytearray()
    while piece := response.raw.read1(65536, decode_content=True):
        body += piece
        if len(body) > _MAX_BODY or time.monotonic() > deadline:
            raise requests.ReadTimeout("The answer is too long or takes too long.")
    return bytes(body)


def _note_before_sending(connection: HTTPConnection) -> None:
    if connection.sock is None:
        connection.connect()
    _progress.sent = True
