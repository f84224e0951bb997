"""Holds connections open without an answer, in one thread however many there are."""

import selectors
import socket
import threading
import time
from collections import OrderedDict, deque
from typing import cast

# More than this many held connections: the oldest is closed, so that descriptors never run out.
LIMIT = 512


class Parking(threading.Thread):
    """A parked connection is closed when its client goes away, at the latest after `hold_seconds`."""

    def __init__(self, hold_seconds: float) -> None:
        super().__init__(name="sandbox-held", daemon=True)
        self._hold_seconds = hold_seconds
        self._arrivals: deque[socket.socket] = deque()
        self._parked: OrderedDict[socket.socket, float] = OrderedDict()
        self._selector = selectors.DefaultSelector()
        self._wake_out, self._wake_in = socket.socketpair()
        self._wake_out.setblocking(False)
        self._selector.register(self._wake_out, selectors.EVENT_READ)
        self._stopping = False

    def park(self, connection: socket.socket) -> None:
        """Take over a connection; the caller may close its own handle but must not shut it down."""
        self._arrivals.append(connection.dup())
        self._wake_in.send(b"x")

    def stop(self) -> None:
        self._stopping = True
        self._wake_in.send(b"x")
        self.join(5)

    def run(self) -> None:
        while not self._stopping:
            first = next(iter(self._parked.values()), None)
            wait = None if first is None else max(0.0, first - time.monotonic())
            for ready, _ in self._selector.select(wait):
                self._read(cast(socket.socket, ready.fileobj))
            self._admit()
            now = time.monotonic()
            while self._parked and (len(self._parked) > LIMIT or next(iter(self._parked.values())) <= now):
                self._release(next(iter(self._parked)))
        for connection in list(self._parked):
            self._release(connection)

    def _admit(self) -> None:
        while self._arrivals:
            connection = self._arrivals.popleft()
            connection.setblocking(False)
            self._selector.register(connection, selectors.EVENT_READ)
            self._parked[connection] = time.monotonic() + self._hold_seconds

    def _read(self, connection: socket.socket) -> None:
        """Drop what a client still sends; nothing to read means that it went away."""
        try:
            if not connection.recv(65536):
                self._release(connection)
        except BlockingIOError:
            pass
        except OSError:
            self._release(connection)

    def _release(self, connection: socket.socket) -> None:
        if connection in self._parked:
            del self._parked[connection]
            self._selector.unregister(connection)
            connection.close()
