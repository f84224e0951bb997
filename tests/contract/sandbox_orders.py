"""Requests for the sandbox client, and servers that answer them in ways the sandbox never would."""

import contextlib
import dataclasses
import json
import socket
import threading
from collections.abc import Iterator
from itertools import count
from typing import Any

from providers.base import ChargeRequest, RefundRequest

TIMEOUT_SECONDS = 1.0
numbers = count(1)


def order(token: str = "tok_ok", **changes: Any) -> ChargeRequest:
    number = next(numbers)
    request = ChargeRequest(
        amount_minor=1250,
        currency="EUR",
        token=token,
        customer="cus_1",
        reference=f"att_{number}",
        idempotency_key=f"key-{number}",
        metadata={"invoice": "inv_1"},
    )
    return dataclasses.replace(request, **changes)


def refund_order(charge_id: str, **changes: Any) -> RefundRequest:
    number = next(numbers)
    request = RefundRequest(
        charge_id=charge_id,
        amount_minor=500,
        currency="EUR",
        reference=f"att_{number}",
        idempotency_key=f"key-{number}",
        reason="requested_by_customer",
    )
    return dataclasses.replace(request, **changes)


@contextlib.contextmanager
def answering(*answers: bytes, hold: bool = False) -> Iterator[tuple[str, list[bytes]]]:
    """Serve each connection one raw answer to one request; yields the URL and the requests received."""
    received: list[bytes] = []
    done = threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        for answer in answers:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                received.append(read_request(connection))
                connection.sendall(answer)
                if hold:
                    done.wait(20)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", received
    finally:
        done.set()
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)


def read_request(connection: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(65536)
    head, _, body = data.partition(b"\r\n\r\n")
    length = next(
        (int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")),
        0,
    )
    while len(body) < length:
        body += connection.recv(65536)
    return head + b"\r\n\r\n" + body


def http(status: str, body: object = "", *headers: str) -> bytes:
    content = (body if isinstance(body, str) else json.dumps(body)).encode()
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(content)}", "Connection: close", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + content
