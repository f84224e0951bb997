"""A process that has everything loaded and forks real workers: each may be killed, and costs no start of its own.

Reads one JSON order per line on stdin, answers with JSON lines: `{"order", "pid"}`, then `{"pid", "end"}` with the wait
status (negative: killed by that signal) or `{"pid", "stopped": true}`. It never talks to the database itself.
"""

import json
import os
import selectors
import signal
import sys
import traceback
from typing import Any

import django

django.setup()

from django.core.management import call_command  # noqa: E402  (Django must be set up first)
from django.db import connections  # noqa: E402

from tests.durability.chaos.guards import switch_off  # noqa: E402
from tests.durability.chaos.strikes import arm  # noqa: E402


def say(**words: Any) -> None:
    sys.stdout.write(json.dumps(words) + "\n")
    sys.stdout.flush()


def work(order: dict[str, Any]) -> None:
    """In the child: the command, armed with the strikes that are to hit it."""
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for name in order["guards_off"]:
        switch_off(name)
    arm(die=order["die"], stop=order["stop"], hazy=order["hazy"])
    call_command(*order["command"])
    connections.close_all()


def fork(order: dict[str, Any]) -> None:
    pid = os.fork()
    if pid:
        say(order=order["order"], pid=pid)
        return
    try:
        work(order)
    except BaseException:  # noqa: BLE001  (the child must end here, whatever happened)
        sys.stderr.write(f"{order['command']}\n{traceback.format_exc()}\n")
        sys.stderr.flush()
        os._exit(1)
    os._exit(0)


def reap() -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED)
        except ChildProcessError:
            return
        if pid == 0:
            return
        if os.WIFSTOPPED(status):
            say(pid=pid, stopped=True)
        else:
            say(pid=pid, end=os.waitstatus_to_exitcode(status))


def main() -> None:
    selector = selectors.DefaultSelector()
    selector.register(sys.stdin, selectors.EVENT_READ)
    read, write = os.pipe()
    os.set_blocking(read, False)
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    selector.register(read, selectors.EVENT_READ)
    say(ready=True)
    while True:
        for key, _ in selector.select(timeout=1):
            if key.fileobj == read:
                os.read(read, 4096)
                continue
            line = sys.stdin.readline()
            if not line:
                return
            fork(json.loads(line))
        reap()


if __name__ == "__main__":
    main()
