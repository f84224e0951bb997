"""Webhooks in: how many per second the door takes against a bare view, and how many two workers work off.

Both are served by granian with two workers on the same PostgreSQL, in turns; client, server and database share this
machine, so the ratios and the CPU per request are the figures to look at. The floor of `ingest_vs_bare_view` is a view
behind no middleware that verifies the same signature and does one INSERT ... ON CONFLICT DO NOTHING; the door does
what that view does not: it scrubs, splits, counts and logs. Bodies are signed, of 4 KB, each with an id of its own.

    python benchmarks/ingest.py [--quick]

`ingest_vs_djstripe` is the same against dj-stripe's endpoint on the same kind of server, in an environment of its own
that `make djstripe` sets up; without it this part is skipped. Its full mode asks Stripe for what an event names, here
an API that answers at once; its store-only mode is one whose callback does nothing.
"""

import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import psycopg
from psycopg import sql

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import _common as common
from benchmarks._common import Result
from benchmarks._webhooks import CREATED, SECRET, Replay, charge, event, failed_renewal, replay, request, signature

CONNECTIONS = 32
THREADS = "8"
TOLD_AT = datetime.fromtimestamp(CREATED, UTC) + timedelta(hours=1)
DOOR = ("--interface", "asgi", "recovery_site.web:application")
DJSTRIPE_PYTHON = common.ROOT / ".venv-djstripe" / "bin" / "python"
DJSTRIPE = ("--interface", "wsgi", "--blocking-threads", THREADS, "benchmarks._djstripe_site:application")
STRIPE_API = ("--interface", "wsgi", "--blocking-threads", THREADS, "benchmarks._djstripe_site:stripe_api")
BARE = ("--interface", "wsgi", "--blocking-threads", THREADS, "benchmarks._bare_site:application")


@contextmanager
def served(
    arguments: Sequence[str], python: str = sys.executable, **environment: str
) -> Iterator[tuple[int, psutil.Process]]:
    """A granian with two workers: its port, and its process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    command = [
        *(python, "-m", "granian", "--no-ws", "--log-level", "warning", "--workers", "2"),
        *("--host", "127.0.0.1", "--port", str(port), "--workers-kill-timeout", "5", *arguments),
    ]
    server = subprocess.Popen(command, cwd=common.ROOT, env=os.environ | environment, stdout=subprocess.DEVNULL)
    try:
        for _ in range(600):
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                time.sleep(0.1)
        else:
            raise SystemExit("The server did not come up within a minute.")
        time.sleep(2)  # the second worker
        yield port, psutil.Process(server.pid)
    finally:
        for process in [*psutil.Process(server.pid).children(recursive=True), psutil.Process(server.pid)]:
            process.send_signal(signal.SIGKILL)
        server.wait(timeout=30)


def cpu(server: psutil.Process) -> float:
    """Seconds of CPU of the server's processes."""
    return sum(sum(one.cpu_times()[:2]) for one in [server, *server.children(recursive=True)])


def cpu_database() -> float:
    """Seconds of CPU of the backends that work on the benchmark's database."""
    name, total = f"bench_ingest_{os.getpid()}", 0.0
    for one in psutil.process_iter(["name", "cmdline"]):
        if one.info["name"] == "postgres" and any(name in part for part in one.info["cmdline"] or ()):
            total += sum(one.cpu_times()[:2])
    return total


class Measured:
    """One kind of request over the rounds."""

    def __init__(self, port: int, server: psutil.Process) -> None:
        self.port, self.server = port, server
        self.rates: list[float] = []
        self.p99: list[float] = []
        self.cpu_us: list[float] = []
        self.database_us: list[float] = []

    def round(self, requests: Sequence[bytes], status: bytes = b"200") -> Replay:
        before, database_before = cpu(self.server), cpu_database()
        done = replay(self.port, requests, CONNECTIONS, status=status)
        self.rates.append(done.rate)
        self.p99.append(done.percentile_ms(0.99))
        self.cpu_us.append((cpu(self.server) - before) / len(requests) * 1e6)
        self.database_us.append((cpu_database() - database_before) / len(requests) * 1e6)
        return done


def info(metric: str, value: float, unit: str, floor: float) -> Result:
    """A figure to look at beside another one, with no target."""
    return Result(metric, value, unit, floor, value / floor if floor else 0.0, None, None)


def ingest(endpoint: Any, rounds: int, size: int) -> list[Result]:
    """Accepted webhooks per second against the bare view, in turns; every one of them must be stored."""
    from webhooks.models import InboxEvent

    numbers = iter(range(10**9))
    path, bare_path = f"/webhooks/stripe/{endpoint.uuid}/", f"/bare/{endpoint.merchant_id}/{endpoint.pk}/"

    def bodies(path: str, count: int) -> list[bytes]:
        return [request(path, event("charge.failed", charge(next(numbers)), 1)) for _ in range(count)]

    with served(DOOR) as (door_port, door_server), served(BARE) as (bare_port, bare_server):
        door, bare, bad = (
            Measured(door_port, door_server),
            Measured(bare_port, bare_server),
            Measured(door_port, door_server),
        )
        sent = 0
        for number in range(rounds + 1):
            count = size if number else size // 5
            bare.round(bodies(bare_path, count))
            door.round(bodies(path, count))
            sent += 2 * count
            if not number:  # to warm up
                door, bare = Measured(door_port, door_server), Measured(bare_port, bare_server)
        broken = [one.replace(b"v1=", b"v1=00") for one in bodies(path, 250)]
        bad.round(broken, b"400")
    stored = InboxEvent.objects.count()
    if stored != sent:
        raise SystemExit(f"{sent} webhooks were accepted, but {stored} are stored.")
    ratio = statistics.median(mine / floor for mine, floor in zip(door.rates, bare.rates, strict=True))
    middle = statistics.median
    return [
        common.at_least(
            "ingest_vs_bare_view", middle(door.rates), "webhooks/s", floor=middle(bare.rates), target=0.9, ratio=ratio
        ),
        info("ingest_cpu_us", middle(door.cpu_us), "us", middle(bare.cpu_us)),
        info("ingest_database_cpu_us", middle(door.database_us), "us", middle(bare.database_us)),
        info("ingest_p99_ms", middle(door.p99), "ms", middle(bare.p99)),
        common.at_most("bad_signature_cpu_us", middle(bad.cpu_us), "us", floor=middle(door.cpu_us), target=1.0),
    ]


@contextmanager
def djstripe_database() -> Iterator[dict[str, Any]]:
    """An empty database beside the benchmark's: what Django's settings say of it."""
    address = urlsplit(os.environ["DATABASE_URL"])
    name = f"{address.path[1:]}_djstripe"
    with psycopg.connect(address.geturl(), autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            yield {
                "NAME": name,
                "USER": address.username,
                "PASSWORD": address.password,
                "HOST": address.hostname,
                "PORT": address.port,
            }
        finally:
            common.drop_database(admin, name)


def djstripe(endpoint: Any, rounds: int, size: int) -> list[Result]:
    """Accepted webhooks per second against dj-stripe's endpoint, in turns."""
    if not DJSTRIPE_PYTHON.exists():
        print("ingest_vs_djstripe: skipped, make djstripe sets up what it needs", file=sys.stderr)
        return []
    numbers = iter(range(2 * 10**9, 3 * 10**9))
    python = str(DJSTRIPE_PYTHON)

    def bodies(path: str, count: int) -> list[bytes]:
        return [request(path, event("charge.failed", charge(next(numbers)), 1)) for _ in range(count)]

    with djstripe_database() as database:
        settings = {"DJSTRIPE_DATABASE": json.dumps(database), "DJSTRIPE_API": "http://127.0.0.1:1"}
        made = subprocess.run(
            [python, "-m", "benchmarks._djstripe_site"],
            cwd=common.ROOT,
            env=os.environ | settings | {"DJSTRIPE_MODE": "full"},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        theirs, ours = made.stdout.strip(), f"/webhooks/stripe/{endpoint.uuid}/"
        with served(STRIPE_API, python, DJSTRIPE_MODE="full", **settings) as (api_port, _):
            settings["DJSTRIPE_API"] = f"http://127.0.0.1:{api_port}"
            with (
                served(DOOR) as door_at,
                served(DJSTRIPE, python, DJSTRIPE_MODE="full", **settings) as full_at,
                served(DJSTRIPE, python, DJSTRIPE_MODE="store", **settings) as store_at,
            ):
                for number in range(rounds + 1):
                    if number < 2:  # the first round warms up
                        door, full, store = Measured(*door_at), Measured(*full_at), Measured(*store_at)
                    full.round(bodies(theirs, size // 20))
                    store.round(bodies(theirs, size // 2))
                    door.round(bodies(ours, size))
    middle = statistics.median

    def ratio(floor: Measured) -> float:
        return middle(mine / low for mine, low in zip(door.rates, floor.rates, strict=True))

    rate = middle(door.rates)
    return [
        common.at_least(
            "ingest_vs_djstripe", rate, "webhooks/s", floor=middle(full.rates), target=25, ratio=ratio(full)
        ),
        common.at_least(
            "ingest_vs_djstripe_store", rate, "webhooks/s", floor=middle(store.rates), target=3, ratio=ratio(store)
        ),
    ]


def killed(endpoint: Any, size: int) -> Result:
    """Of a server that is killed while webhooks come in: how many that it acknowledged are missing."""
    from webhooks.models import InboxEvent

    told = [charge(10**9 + number) for number in range(size)]
    path = f"/webhooks/stripe/{endpoint.uuid}/"
    requests = [request(path, event("charge.failed", one, 1)) for one in told]
    with served(DOOR) as (port, server):
        workers = server.children(recursive=True)
        with get_context("fork").Pool(1) as pool:
            sending = pool.apply_async(replay, (port, requests, CONNECTIONS), {"mortal": True})
            while InboxEvent.objects.filter(provider_event_id__contains="_ch_1000").count() < size // 4:
                time.sleep(0.01)
            for process in [*workers, server]:
                process.kill()
            done: Replay = sending.get(timeout=60)
    stored = set(InboxEvent.objects.values_list("provider_event_id", flat=True))
    missing = [number for number in done.accepted if f"evt_charge.failed_{told[number]['id']}" not in stored]
    # A little more is stored than answered at any moment.
    if not size // 8 <= len(done.accepted) < size:
        raise SystemExit(f"The server was not killed in the middle: {len(done.accepted)} of {size} were accepted.")
    return Result("acknowledged_and_missing", len(missing), "webhooks", len(done.accepted), 0.0, 0.0, not missing)


# --- the drain --------------------------------------------------------------------------------------------------------

_HISTORY = """
INSERT INTO webhooks_inboxevent (merchant_id, endpoint_id, provider_event_id, event_type, order_key, body, body_hash,
    received_at, proof, status, reason, attempts, processed_at)
SELECT %s, %s, 'old_' || n, 'charge.failed', 'in_old_' || n, '{}', '', now(), 'signed', 'PROCESSED', '', 0, now()
FROM generate_series(%s, %s) n
"""


def drained(endpoint: Any, bodies: Sequence[bytes], expected: dict[str, int]) -> float:
    """Events per second of two processes that drain side by side."""
    from django.db import connections

    from providers.base import InboundRequest
    from webhooks.services import inbox_receive

    for body in bodies:
        inbox_receive(
            endpoint=endpoint,
            request=InboundRequest(body, {"stripe-signature": signature(body)}),
            now=TOLD_AT,
            clock=time.time(),
            tolerance_seconds=300,
        )
    connections.close_all()
    context = get_context("fork")
    together, results = context.Barrier(2), context.SimpleQueue()
    workers = [context.Process(target=_drain, args=(together, results)) for _ in range(2)]
    for worker in workers:
        worker.start()
    ended = [results.get() for _ in workers]
    for worker in workers:
        worker.join(timeout=60)
    counts = {name: sum(one[0][name] for one in ended) for name in ended[0][0]}
    if counts != {"processed": 0, "failed": 0, "ignored": 0} | expected:
        raise SystemExit(f"The drain ended otherwise than expected: {counts}.")
    return len(bodies) / (max(one[2] for one in ended) - min(one[1] for one in ended))


def _drain(together: Any, results: Any) -> None:
    from django.db import connection

    from webhooks.services import inbox_drain

    connection.ensure_connection()
    together.wait(60)
    started = time.monotonic()
    counts = inbox_drain(now=TOLD_AT).as_dict()
    results.put((counts, started, time.monotonic()))
    connection.close()


def bills(number: int) -> None:
    """That many customers more, each with a bill that failed: seven rows of the ledger."""
    from django.db import connection

    from invoices.models import Attempt
    from retries.models import Case
    from tests.support.copies import copy_rows

    case = Case.objects.latest("pk")
    attempt = Attempt.objects.filter(invoice=case.invoice_id).latest("pk")
    copy_rows(
        {
            "invoices_customer": attempt.customer_id,
            "tokens_card": attempt.card_id,
            "tokens_token": attempt.token_id,
            "invoices_invoice": attempt.invoice_id,
            "invoices_transaction": attempt.transaction_id,
            "invoices_attempt": attempt.pk,
            "retries_case": case.pk,
        },
        number,
        after=10**9,
    )
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE")


def drain(endpoint: Any, renewals: int, small: int, large: int) -> list[Result]:
    """Failed renewals, told by four events each, beside `small` and then `large` events in the inbox, and a tenth as
    many other bills."""
    from django.db import connection

    def history(first: int, last: int) -> None:
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE webhooks_inboxevent DISABLE TRIGGER USER")
            cursor.execute(_HISTORY, [endpoint.merchant_id, endpoint.pk, first, last])
            cursor.execute("ALTER TABLE webhooks_inboxevent ENABLE TRIGGER USER")
            cursor.execute("VACUUM ANALYZE")

    def renewed(start: int) -> float:
        told = [body for number in range(start, start + renewals) for body in failed_renewal(number)]
        return drained(endpoint, told, {"processed": renewals * 3, "ignored": renewals})

    with connection.cursor() as cursor:
        cursor.execute("TRUNCATE webhooks_inboxevent CASCADE")
    history(1, small)
    renewed(0)  # plans and caches
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")  # as autovacuum does within a minute of the first rows
    few = renewed(renewals)
    history(small + 1, large)
    bills(large // 10)
    renewed(2 * renewals)  # as before
    many = renewed(3 * renewals)
    return [
        common.at_least("drain_events_per_s", few, "events/s", floor=1000, target=1.0),
        common.at_most("drain_1m_vs_10k", 1e6 / many, "us/event", floor=1e6 / few, target=1.2),
    ]


def main() -> None:
    quick = common.quick(__doc__.splitlines()[0])
    with common.own_database("ingest"):
        from accounts.services import merchant_create
        from webhooks.services import endpoint_create

        merchant = merchant_create(name="Benchmark").merchant
        endpoint = endpoint_create(merchant=merchant, provider="stripe", secret=SECRET)
        results = ingest(endpoint, rounds=3 if quick else 5, size=1000 if quick else 10_000)
        results += djstripe(endpoint, rounds=3 if quick else 5, size=2000 if quick else 4000)
        results.append(killed(endpoint, 2000 if quick else 20_000))
        results += drain(endpoint, 50 if quick else 500, 10_000, 100_000 if quick else 1_000_000)
    common.report("ingest", results)


if __name__ == "__main__":
    main()
