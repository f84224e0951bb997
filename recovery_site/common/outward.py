"""POST to addresses that people typed in: https only, never into private networks, small answers, short patience."""

import http.client
import ipaddress
import json
import socket
import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from recovery_site.common.errors import InvalidInput, RecoveryError

TIMEOUT_SECONDS = 10.0
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class Undelivered(RecoveryError):
    """The receiver could not be reached or did not answer with 2xx."""

    code = "undelivered"
    http_status = 502
    retryable = True


def address_check(url: str, *, allow_loopback: bool = False) -> str:
    """`url` if it may be posted to at all; raises InvalidInput in words. Where its name leads is asked when sending.

    `allow_loopback` lets development and tests use http on this machine.
    """
    parts = urlsplit(url.strip())
    host = (parts.hostname or "").lower()
    if parts.username or parts.password:
        raise InvalidInput("The address must not hold a user name or password.")
    if allow_loopback and host in _LOOPBACK:
        return url.strip()
    if parts.scheme != "https" or "." not in host:
        raise InvalidInput("Give an https address with a full host name.")
    return url.strip()


def post_json(url: str, body: Mapping[str, Any], *, allow_loopback: bool = False) -> int:
    """POST `body` as JSON and return the status, a 2xx. Follows no redirect. Raises Undelivered, InvalidInput."""
    parts = urlsplit(address_check(url, allow_loopback=allow_loopback))
    host = (parts.hostname or "").lower()
    secure = parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        target = _resolve(host, port, allow_loopback=allow_loopback)
        connection = _Connection(host, port, target, secure=secure)
        try:
            connection.request("POST", path, json.dumps(body).encode(), {"Content-Type": "application/json"})
            answer = connection.getresponse()
            answer.read(4096)
        finally:
            connection.close()
    except (OSError, http.client.HTTPException) as error:
        raise Undelivered(f"The receiver could not be reached ({type(error).__name__}).") from error
    if not 200 <= answer.status < 300:
        raise Undelivered(f"The receiver answered {answer.status}.", status=answer.status)
    return answer.status


def _resolve(host: str, port: int, *, allow_loopback: bool) -> str:
    """The IP address to connect to. All of a name's addresses must be public, so that none can be smuggled in."""
    found = {str(info[4][0]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)}
    if not (allow_loopback and host in _LOOPBACK):
        for address in found:
            if not ipaddress.ip_address(address.partition("%")[0]).is_global:
                raise Undelivered("The address leads into a private network, where nothing is sent.")
    return min(found)


class _Connection(http.client.HTTPConnection):
    """Connects to the address that was checked, not to whatever the name leads to a moment later."""

    def __init__(self, host: str, port: int, target: str, *, secure: bool) -> None:
        super().__init__(host, port, timeout=TIMEOUT_SECONDS)
        self._target, self._secure = target, secure

    def connect(self) -> None:
        self.sock = socket.create_connection((self._target, self.port), self.timeout)
        if self._secure:
            context = ssl.create_default_context()
            self.sock = context.wrap_socket(self.sock, server_hostname=self.host)
