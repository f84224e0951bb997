"""Runs `run_worker` as a process for tests, and gives it failed payments to work on."""

import base64
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import psutil
from standardwebhooks import Webhook

from accounts.services import merchant_create
from invoices.models import Connection, Invoice
from invoices.services.parties import connection_create
from providers.base import InboundRequest
from webhooks.models import WebhookEndpoint
from webhooks.services import endpoint_create, inbox_receive

ROOT = Path(__file__).resolve().parents[2]
SECRET = "whsec_" + base64.b64encode(b"a secret of the tests only").decode()
_serial = count(1)


def eventually(probe: Callable[[], Any], seconds: float = 60.0) -> Any:
    """Poll until `probe` is truthy, and return that; fails after `seconds`."""
    end = time.monotonic() + seconds
    while not (found := probe()):
        assert time.monotonic() < end, "gave up waiting"
        time.sleep(0.05)
    return found


class Worker:
    """A `run_worker` process with its log; `start` may be called again after it ended."""

    def __init__(self, environment: Mapping[str, str], log: Path, **variables: str) -> None:
        self.environment = {**environment, "LOG_LEVEL": "INFO", **variables}
        self.log_path = log
        self.process: subprocess.Popen[bytes] | None = None
        self.groups: set[int] = set()

    def start(self) -> "Worker":
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "manage.py", "run_worker"],
                cwd=ROOT,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.groups.add(self.process.pid)
        return self

    def log(self) -> str:
        return self.log_path.read_text()

    def restarts(self, name: str) -> list[str]:
        """The supervisor's lines about restarts of a cluster, each with its reason."""
        return [line for line in self.log().splitlines() if "cluster_restarts" in line and f"cluster={name} " in line]

    def cluster(self, name: str) -> psutil.Process:
        """The newest main process of a cluster, once its guard has all its children (workers, monitor, pusher)."""

        def ready() -> psutil.Process | None:
            lines = [line for line in self.log().splitlines() if f"cluster={name} " in f"{line} "]
            starts = [line for line in lines if "cluster_started" in line]
            if not starts:
                return None
            try:
                found = psutil.Process(int(starts[-1].rpartition("pid=")[2]))
                guards = found.children()
                return found if guards and len(guards[0].children()) >= 3 else None
            except psutil.NoSuchProcess:
                return None

        found: psutil.Process = eventually(ready)
        self.groups.add(found.pid)
        return found

    def guard(self, name: str) -> psutil.Process:
        return self.cluster(name).children()[0]

    def workers(self, name: str, number: int) -> list[psutil.Process]:
        """q2's worker processes: the guard starts them before its monitor and its pusher."""
        return sorted(self.guard(name).children(), key=lambda process: process.pid)[:number]

    def end(self, number: int = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(timeout=60)

    def left_over(self) -> list[int]:
        """Live processes of the worker and of its clusters."""
        found = []
        for process in psutil.process_iter(["status"]):
            try:
                if os.getpgid(process.pid) in self.groups and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process.pid)
            except (ProcessLookupError, psutil.NoSuchProcess):
                continue
        return found

    def abandon(self) -> None:
        for pid in self.left_over():
            os.kill(pid, signal.SIGKILL)
        if self.process is not None:
            self.process.wait(timeout=30)


@contextmanager
def workers(environment: Mapping[str, str], folder: Path) -> Iterator[Callable[..., Worker]]:
    """A function that starts a worker; all of them end with the block."""
    made: list[Worker] = []

    def make(**variables: str) -> Worker:
        made.append(Worker(environment, folder / f"worker-{len(made)}.log", **variables))
        return made[-1].start()

    try:
        yield make
    finally:
        for worker in made:
            worker.abandon()


class Biller:
    """A merchant at the sandbox provider whose billing system reports failed payments."""

    def __init__(self, base_url: str, *, timeout_seconds: float = 10) -> None:
        merchant = merchant_create(name=f"Biller {next(_serial)}").merchant
        self.connection: Connection = connection_create(
            merchant=merchant,
            provider="sandbox",
            config={"base_url": base_url, "timeout_seconds": timeout_seconds},
        )
        self.endpoint: WebhookEndpoint = endpoint_create(
            merchant=merchant, provider="generic", secret=SECRET, connection=self.connection
        )

    def fails(self, token: str = "tok_ok") -> str:
        """Report a payment that failed for want of money a day and an hour ago: its retry is due at once."""
        number = next(_serial)
        at = datetime.now(UTC) - timedelta(hours=25)
        body = json.dumps(
            {
                "type": "payment.failed",
                "occurred_at": at.isoformat(),
                "customer": {"id": f"cus_{number}"},
                "invoice": {"id": f"in_{number}", "amount": 4900, "currency": "EUR"},
                "payment": {"charge_id": f"ch_{number}", "amount": 4900, "currency": "EUR"},
                "payment_method": {
                    "token": f"{token}__{number}",
                    "card": {"fingerprint": f"fp_{number}", "network": "visa"},
                },
                "error": {"code": "insufficient_funds"},
            }
        ).encode()
        now = datetime.now(UTC)
        headers = {
            "webhook-id": f"evt_{number}",
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": Webhook(SECRET).sign(f"evt_{number}", now, body.decode()),
        }
        request = InboundRequest(body=body, headers=headers)
        stored = inbox_receive(
            endpoint=self.endpoint, request=request, now=now, clock=now.timestamp(), tolerance_seconds=300
        )
        assert stored == 1
        return f"in_{number}"

    def status(self, invoice: str) -> str:
        found = Invoice.objects.filter(connection=self.connection, provider_invoice_id=invoice)
        return found.values_list("status", flat=True).first() or ""
