"""`python -m tests.durability.chaos.host`: starts Django once and forks a worker process for every order.

Orders come as JSON lines on stdin; answers go as JSON lines to stdout: `{"id", "pid"}` once it runs, `{"id", "result"}`
from the worker itself, `{"id", "stopped"}` when it was stopped, `{"id", "exit"}` when it ended (negative: by a signal).
The host itself never opens a connection, so that no two processes share one. It ends with its stdin, and kills whoever
is left.
"""

import faulthandler
import json
import os
import select
import signal
import sys
from contextlib import suppress
from typing import Any

import django

from recovery_site.worker.lineage import die_with_parent


def main() -> int:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "recovery_site.settings")
    django.setup()
    from tests.durability.chaos import roles

    roles.warm_up()

    reading, writing = os.pipe()
    for end in (reading, writing):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(writing)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    os.register_at_fork(after_in_child=die_with_parent(signal.SIGKILL))
    host = Host(roles.perform)
    host.say(ready=True)
    buffer = b""
    while True:
        ready, _, _ = select.select([0, reading], [], [])
        if reading in ready:
            with suppress(BlockingIOError):
                os.read(reading, 4096)
            host.reap()
        if 0 in ready:
            chunk = os.read(0, 65536)
            if not chunk:
                host.end()
                return 0
            *lines, buffer = (buffer + chunk).split(b"\n")
            for line in lines:
                host.order(json.loads(line))


class Host:
    """Knows which order each of its processes works on."""

    def __init__(self, perform: Any) -> None:
        self.perform = perform
        self.orders: dict[int, int] = {}

    def say(self, **answer: Any) -> None:
        """One write, so that lines of several processes do not mix."""
        os.write(1, json.dumps(answer).encode() + b"\n")

    def order(self, order: dict[str, Any]) -> None:
        if "wake" in order:
            with suppress(ProcessLookupError):
                os.kill(order["wake"], signal.SIGCONT)
            return
        pid = os.fork()
        if pid == 0:
            self._work(order)
        self.orders[pid] = order["id"]
        self.say(id=order["id"], pid=pid)

    def _work(self, order: dict[str, Any]) -> None:
        """In the child: do it, say so, and leave without any of the parent's clean-up."""
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            faulthandler.dump_traceback_later(300, exit=True)
            self.say(id=order["id"], result=self.perform(order))
            code = 0
        except BaseException:  # noqa: BLE001  (the end of a process: its trace goes to the log)
            import traceback

            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)

    def reap(self) -> None:
        while self.orders:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if os.WIFSTOPPED(status):
                self.say(id=self.orders[pid], stopped=pid)
                continue
            self.say(id=self.orders.pop(pid), exit=os.waitstatus_to_exitcode(status))

    def end(self) -> None:
        for pid in self.orders:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
