"""A worker of benchmarks/engine.py in a process of its own: the engine with a provider in the same process.

    python benchmarks/_engine_worker.py LATENCY_SECONDS NOW

Prints "ready", waits for a line, drains, and prints one JSON line.
"""

import json
import os
import sys
import threading
import time
from datetime import datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def provider(latency: float) -> Any:
    """A client whose provider takes every charge after `latency` seconds."""
    from datetime import timedelta

    from providers.base import ChargeResult, ClientTraits, Lookup, Outcome, Settles

    class Instant:
        traits = ClientTraits(
            key_ttl=timedelta(hours=24), lookup=Lookup.AUTHORITATIVE, settles=Settles.NOW, timeout_seconds=5
        )

        def charge(self, request: Any) -> Any:
            if latency:
                time.sleep(latency)
            return ChargeResult(
                outcome=Outcome.SUCCEEDED,
                provider_id=f"ch_{request.reference}",
                amount_minor=request.amount_minor,
                currency=request.currency,
                reference=request.reference,
            )

    client = Instant()
    return lambda connection: client


def install(latency: float) -> None:
    """Put that provider behind every connection."""
    from retries.engine import biller, drain, precheck, send

    for module in (drain, send, precheck, biller):
        module.connection_client = provider(latency)  # type: ignore[attr-defined]


def busy_meter() -> list[float]:
    """The seconds that threads spend on what they are given, one entry each."""
    from retries.engine import drain

    work, lock, spent = drain._work, threading.Lock(), list[float]()

    def timed(*args: Any) -> Any:
        began = time.monotonic()
        try:
            return work(*args)
        finally:
            with lock:
                spent.append(time.monotonic() - began)

    drain._work = timed
    return spent


def megabytes() -> float:
    """The most that this process has held; what getrusage says begins with the size of the process that forked it."""
    with Path("/proc/self/status").open(encoding="utf-8") as told:
        return next(int(line.split()[1]) for line in told if line.startswith("VmHWM:")) / 1024


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "recovery_site.settings")
    import django

    django.setup()
    from django.conf import settings

    from retries.engine.drain import retries_drain

    install(float(sys.argv[1]))
    spent = busy_meter()
    print("ready", flush=True)
    sys.stdin.readline()
    began = time.time()
    counts = retries_drain(now=datetime.fromisoformat(sys.argv[2]))
    ended = time.time()
    print(
        json.dumps(
            {
                "succeeded": counts.succeeded,
                "claimed": counts.claimed,
                "began": began,
                "ended": ended,
                "busy": sum(spent),
                "threads": settings.RETRY_THREADS,
                "megabytes": megabytes(),
            }
        )
    )


if __name__ == "__main__":
    main()
