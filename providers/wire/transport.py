"""HTTP that can tell a request that never left from one whose answer got lost.

The difference decides whether money may have moved. urllib3 reports a TLS failure in the same words before
and after the request was sent, so the connect phase is marked here, where it happens.
"""

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from http.cookiejar import DefaultCookiePolicy
from typing import Any
from urllib.request import getproxies

import requests
from requests.adapters import HTTPAdapter
from requests.exceptions import ConnectionError as RequestsConnectionError
from requests.utils import should_bypass_proxies
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError, HTTPError, MaxRetryError, NewConnectionError, ProxyError

MAX_ANSWER_BYTES = 1 << 20
MAX_CONNECTIONS = 32


class Unsent(Exception):
    """The connection never stood (refused, DNS, TLS, connect time-out): nothing reached the provider."""


class Unanswered(Exception):
    """The request may have arrived, the answer did not: time-out, reset, or more than MAX_ANSWER_BYTES."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer; `body` is the parsed JSON object, None if it is anything else."""

    status: int
    body: Mapping[str, Any] | None
    text: str
    retry_after_seconds: int | None


@contextmanager
def _connecting(connection: HTTPConnection) -> Iterator[None]:
    try:
        yield
    except ConnectTimeoutError:
        raise
    except (OSError, HTTPError) as error:
        raise NewConnectionError(connection, f"no connection ({type(error).__name__})") from error


class _PlainConnection(HTTPConnection):
    def connect(self) -> None:
        with _connecting(self):
            super().connect()


class _SecureConnection(HTTPSConnection):
    def connect(self) -> None:
        with _connecting(self):
            super().connect()


class _PlainPool(HTTPConnectionPool):
    ConnectionCls = _PlainConnection


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _SecureConnection


class _Adapter(HTTPAdapter):
    """Never retries: a second sending is the charge protocol's decision, not a library's."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _PlainPool, "https": _SecurePool}

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(*args, **kwargs)
        manager.pool_classes_by_scheme = {"http": _PlainPool, "https": _SecurePool}
        return manager


class Transport:
    """One session for one base URL. `timeout_seconds` bounds a call; only name resolution comes on top.

    `headers` go with every request and carry the credentials. `proxied`: use the proxies that the environment names.
    """

    def __init__(
        self, base_url: str, *, headers: Mapping[str, str], timeout_seconds: float, proxied: bool = True
    ) -> None:
        self._base_url = base_url.rstrip("/")
        self._connect_seconds = timeout_seconds / 4
        self._read_seconds = timeout_seconds - self._connect_seconds
        self._session = requests.Session()
        # .netrc would put passwords of its own over our credentials; proxies alone are taken from the environment.
        self._session.trust_env = False
        if proxied and not should_bypass_proxies(self._base_url, no_proxy=None):
            self._session.proxies.update(getproxies())
        self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        self._session.headers.update(headers)
        adapter = _Adapter(pool_connections=1, pool_maxsize=MAX_CONNECTIONS, max_retries=0)
        self._session.mount("http://", adapter)
        self._session.mount("https://", adapter)

    def send(self, method: str, path: str, **options: Any) -> Answer:
        """One request with the body and header options of `requests`. Raises Unsent or Unanswered."""
        started = time.monotonic()
        try:
            response = self._session.request(
                method,
                f"{self._base_url}{path}",
                timeout=(self._connect_seconds, self._read_seconds),
                allow_redirects=False,
                stream=True,
                **options,
            )
            with response:
                text = self._read(response, started)
        except (requests.RequestException, HTTPError) as error:
            if _never_sent(error):
                raise Unsent(_name(error)) from None
            raise Unanswered(_name(error)) from None
        return Answer(response.status_code, _object(text), text, _seconds(response.headers.get("Retry-After")))

    def _read(self, response: requests.Response, started: float) -> str:
        """The whole body; a server that drips bytes must not outlast the time-out, nor flood the memory."""
        data = bytearray()
        # read1: what has arrived; a plain read would wait for whole chunks, however slowly they drip.
        while chunk := response.raw.read1(8192, decode_content=True):
            data += chunk
            if len(data) > MAX_ANSWER_BYTES:
                raise Unanswered("answer too large")
            if time.monotonic() - started > self._connect_seconds + self._read_seconds:
                raise Unanswered("answer too slow")
        return data.decode("utf-8", errors="replace")


def transport(base_url: str, headers: Mapping[str, str], timeout_seconds: float, *, proxied: bool = True) -> Transport:
    """The transport of a connection: clients come and go, connections are kept; per process, because a fork would
    share the sockets."""
    return _kept(os.getpid(), base_url, tuple(sorted(headers.items())), timeout_seconds, proxied)


@lru_cache(maxsize=64)
def _kept(
    process: int, base_url: str, headers: tuple[tuple[str, str], ...], timeout_seconds: float, proxied: bool
) -> Transport:
    return Transport(base_url, headers=dict(headers), timeout_seconds=timeout_seconds, proxied=proxied)


def _never_sent(error: requests.RequestException | HTTPError) -> bool:
    if isinstance(error, requests.ConnectTimeout):
        return True
    cause = error.args[0] if isinstance(error, RequestsConnectionError) and error.args else None
    # urllib3 speaks of a ProxyError only while the way through the proxy did not stand yet.
    return isinstance(cause, MaxRetryError) and isinstance(cause.reason, ConnectTimeoutError | ProxyError)


def _name(error: requests.RequestException | HTTPError) -> str:
    """What went wrong as a class name: messages of the HTTP libraries repeat addresses and headers."""
    cause: Any = error.args[0] if error.args else error
    reason = getattr(cause, "reason", None)
    return type(reason if isinstance(reason, Exception) else error).__name__


def _object(text: str) -> Mapping[str, Any] | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _seconds(header: str | None) -> int | None:
    """Whole seconds of a Retry-After header; its other form, a date, is not used here."""
    return int(header) if header and header.isascii() and header.isdigit() and len(header) < 9 else None
