"""POST to addresses that people typed in: checked ones only (targets.py), no redirects, small answers, a deadline."""

import http.client
import json
import socket
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from recovery_site.common.errors import RecoveryError
from recovery_site.common.targets import Target, TargetRefused, TargetUnknown, resolve, target_of

# From the first packet to the end of the answer, however the receiver spreads it.
TIMEOUT_SECONDS = 10.0
ANSWER_BYTES = 4096


class Undelivered(RecoveryError):
    """The receiver could not be reached or did not answer with 2xx."""

    code = "undelivered"
    http_status = 502
    retryable = True


@dataclass(frozen=True, slots=True)
class Answer:
    """What the receiver said, whatever the status; `body` is cut at ANSWER_BYTES."""

    status: int
    body: bytes
    retry_after: str

    @property
    def accepted(self) -> bool:
        return 200 <= self.status < 300


def post(url: str, body: bytes, headers: Mapping[str, str], *, timeout_seconds: float = TIMEOUT_SECONDS) -> Answer:
    """POST `body` and return the answer, also a redirect, which is not followed. Raises Undelivered, InvalidInput."""
    target = target_of(url)
    ends = time.monotonic() + timeout_seconds
    try:
        connection = _Connection(target, resolve(target), ends)
        try:
            connection.request("POST", target.path, body, {"Host": target.host_header, **headers})
            answer = connection.getresponse()
            return Answer(answer.status, answer.read(ANSWER_BYTES), answer.getheader("Retry-After", ""))
        finally:
            connection.close()
    except (TargetRefused, TargetUnknown) as error:
        raise Undelivered(error.message) from error
    except (OSError, http.client.HTTPException) as error:
        raise Undelivered(f"The receiver could not be reached ({type(error).__name__}).") from error


def post_json(url: str, body: Mapping[str, Any]) -> int:
    """POST `body` as JSON and return the status, a 2xx. Raises Undelivered, InvalidInput."""
    answer = post(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    if not answer.accepted:
        raise Undelivered(f"The receiver answered {answer.status}.", status=answer.status)
    return answer.status


def _left(ends: float) -> float:
    """Seconds until `ends`. Raises TimeoutError when there are none."""
    left = ends - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


class _PlainSocket(socket.socket):
    """Reads until a deadline: an ordinary time-out starts again with every byte, and a receiver that sends one every
    few seconds would hold a worker for hours."""

    ends = 0.0

    def recv_into(self, *args: Any, **known: Any) -> int:
        self.settimeout(_left(self.ends))
        return super().recv_into(*args, **known)


class _SecureSocket(ssl.SSLSocket):
    """The same under TLS."""

    ends = 0.0

    def recv_into(self, *args: Any, **known: Any) -> int:
        self.settimeout(_left(self.ends))
        return super().recv_into(*args, **known)


@lru_cache(maxsize=1)
def _tls() -> ssl.SSLContext:
    """The system's certificate authorities, read once: that takes longer than a request."""
    context = ssl.create_default_context()
    context.sslsocket_class = _SecureSocket
    return context


class _Connection(http.client.HTTPConnection):
    """Connects to an address that was checked, not to whatever the name leads to a moment later; the certificate must
    be the name's."""

    def __init__(self, target: Target, addresses: list[str], ends: float) -> None:
        super().__init__(target.host, target.port)
        self._target, self._addresses, self._ends = target, addresses, ends

    def connect(self) -> None:
        sock = self._reach()
        if self._target.scheme == "https":
            secure = _tls().wrap_socket(sock, server_hostname=self._target.host, do_handshake_on_connect=False)
            assert isinstance(secure, _SecureSocket)
            secure.ends = self._ends
            secure.settimeout(_left(self._ends))
            secure.do_handshake()
            self.sock = secure
        else:
            self.sock = sock

    def _reach(self) -> _PlainSocket:
        """The first address that answers, as a name with several has them for that."""
        failure: OSError = OSError("no address")
        for address in self._addresses:
            sock = _PlainSocket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
            sock.ends = self._ends
            try:
                sock.settimeout(_left(self._ends) / 2)
                sock.connect((address, self._target.port))
            except OSError as error:
                sock.close()
                failure = error
            else:
                sock.settimeout(_left(self._ends))
                return sock
        raise failure
