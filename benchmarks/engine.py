"""The retry engine: claiming from millions of open jobs, and what it adds to the statements that it has to run.

`claim_5m_vs_10k`: claiming 500 due jobs in order, out of 5,000,000 open ones against 10,000, the worse of 1,000 and of
100,000 due. `engine_vs_bare_loop`: jobs per second of the whole engine in one process, on a provider that answers at
once, against one loop over bare cursors that replays the statements and commits of the same charges made one by one,
recorded from it. `engine_vs_its_statements`: the same against a replay of what it asks as it works, many in step, where
`statements_per_charge` are left. `charges_per_s_200ms`: two worker processes and a provider that takes 200 ms; the
floor is what their threads could do if nothing but the provider took time. `busy_share_200ms`: the share of their
threads' time in which they had a call to make; as many threads as two cores keep busy.
`worker_mb_1m_jobs`: the largest resident size of such a worker beside 1,000,000 open jobs. `fairness_batches`: how many
batches go out until ten due jobs of one merchant are all claimed beside 100,000 of another's.

    python benchmarks/engine.py [--quick]
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from _common import ROOT, Result, at_most, drop_database, own_database, quick, report, unguard

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
CLAIM = 500
MERCHANTS = 20
PROVIDER_SECONDS = 0.2
# Of each worker beside the slow provider.
THREADS = 18


# --- rows -------------------------------------------------------------------------------------------------------------

# Open jobs first+1 .. last of MERCHANTS merchants; every one beyond the first `due` lies in the future.
_JOBS = """
INSERT INTO retries_retryjob (id, merchant_id, connection_id, customer_id, invoice_id, transaction_id, public_id, kind,
    status, trigger, due_at, band, expected_value_minor, why, decision, requested_by, last_error)
SELECT n, %(merchant)s + n %% %(merchants)s, %(connection)s + n %% %(merchants)s, n, n, n, 'job_' || n, 'CHARGE',
    'SCHEDULED', 'automatic', %(now)s + make_interval(secs => (n::bigint * 7919 %% 2592000) + 60), n::bigint * 31 %% 10,
    100, '', '{}', 'bench', ''
FROM generate_series(%(first)s + 1, %(last)s) n
"""
_DUE = """
UPDATE retries_retryjob SET due_at = %(now)s - make_interval(secs => (id * 104729 %% 86400) + 1)
WHERE id %% %(every)s = 0 AND due_at > %(now)s
"""


class Jobs:
    """Rows of the queue alone: what they point at is never read by a claim."""

    def __init__(self) -> None:
        from django.db import connection

        from accounts.services import merchant_create
        from invoices.services.parties import connection_create

        self.merchants = [merchant_create(name=f"Benchmark {n}").merchant for n in range(MERCHANTS)]
        self.connections = [
            connection_create(merchant=merchant, provider="simulator", config={}) for merchant in self.merchants
        ]
        self.database, self.filled = connection, 0
        unguard()
        self.run("TRUNCATE retries_retryjob CASCADE")

    def run(self, statement: str, **values: Any) -> None:
        with self.database.cursor() as cursor:
            cursor.execute(statement, values or None)

    def fill_to(self, rows: int) -> None:
        first, connection = self.merchants[0].pk, self.connections[0].pk
        for start in range(self.filled, rows, 250_000):
            self.run(
                _JOBS,
                merchant=first,
                connection=connection,
                merchants=MERCHANTS,
                now=NOW,
                first=start,
                last=min(start + 250_000, rows),
            )
        self.filled = rows

    def make_due(self, number: int) -> None:
        self.run(_DUE, now=NOW, every=max(1, self.filled // number))
        self.run("VACUUM ANALYZE retries_retryjob")

    def claim_ms(self, times: int) -> float:
        """Median of claiming in order, each taken back."""
        from django.db import transaction

        from retries.engine.claim import jobs_claim

        taken = []
        for _ in range(times):
            with transaction.atomic():
                began = time.perf_counter()
                claims = jobs_claim(now=NOW, lease=timedelta(minutes=5), limit=CLAIM)
                taken.append((time.perf_counter() - began) * 1000)
                transaction.set_rollback(True)
            assert len(claims) == CLAIM
        self.run("VACUUM retries_retryjob")
        return statistics.median(taken)


def claims(jobs: Jobs, *, large: int, backlog: int, times: int) -> list[Result]:
    jobs.fill_to(10_000)
    jobs.make_due(1_000)
    jobs.claim_ms(5)
    floor = jobs.claim_ms(times)
    jobs.fill_to(large)
    costs = []
    for due in (1_000, backlog):
        jobs.make_due(due)
        jobs.claim_ms(5)
        costs.append(jobs.claim_ms(times))
    return [
        at_most("claim_5m_vs_10k", max(costs), "ms", floor=floor, target=1.5),
        Result("claim_backlog_vs_few_due", costs[1], "ms", costs[0], costs[1] / costs[0], None, None),
    ]


def fairness(jobs: Jobs, *, backlog: int, batch: int) -> Result:
    """Batches until ten jobs that have just become due are all claimed, beside another merchant's backlog."""
    from retries.engine.claim import jobs_claim
    from retries.models import RetryJob

    crowd, lonely = jobs.merchants[0], jobs.merchants[1]
    jobs.run("TRUNCATE retries_retryjob CASCADE")
    jobs.filled = 0
    jobs.fill_to(backlog + 10)
    rows = RetryJob.objects.all()
    rows.update(merchant=crowd, connection=jobs.connections[0], due_at=NOW - timedelta(days=1), band=0)
    few = rows.filter(pk__gt=backlog)
    few.update(merchant=lonely, connection=jobs.connections[1], due_at=NOW, band=9)
    jobs.run("VACUUM ANALYZE retries_retryjob")
    waiting, batches = set(few.values_list("pk", flat=True)), 0
    while waiting:
        waiting -= {claim.job_pk for claim in jobs_claim(now=NOW, lease=timedelta(minutes=5), limit=batch)}
        batches += 1
    return Result("fairness_batches", batches, "batches", 1, batches, 1, batches <= 1)


# --- real charges -----------------------------------------------------------------------------------------------------


def model_case() -> Any:
    """One customer whose charge has just failed, told through the front door; its retry is due at NOW."""
    from accounts.services import merchant_create
    from invoices.services.parties import connection_create
    from providers.base import (
        CardFacts,
        CustomerFacts,
        DeclineFacts,
        EventKind,
        InvoiceFacts,
        MethodFacts,
        PaymentEvent,
        PaymentFacts,
    )
    from retries.handler import event_handle
    from retries.models import RetryJob

    merchant = merchant_create(name="Benchmark").merchant
    account = connection_create(merchant=merchant, provider="simulator", config={})
    failed_at = NOW - timedelta(days=2)
    event = PaymentEvent(
        kind=EventKind.PAYMENT_FAILED,
        provider="simulator",
        event_id="evt_0",
        event_type="payment.failed",
        occurred_at=failed_at,
        customer=CustomerFacts(id="cus_0"),
        invoice=InvoiceFacts(id="in_0", amount_minor=4_990, currency="USD"),
        payment=PaymentFacts(
            charge_id="ch_0",
            amount_minor=4_990,
            currency="USD",
            invoice_id="in_0",
            method=MethodFacts(token="pm_0", card=CardFacts(fingerprint="fp_0", network="visa", last4="4242")),
            decline=DeclineFacts(raw_code="insufficient_funds", network_code="51"),
        ),
    )
    event_handle(event=event, connection=account, cause="bench", now=failed_at)
    return RetryJob.objects.get(merchant=merchant)


# What the ledger tells of each copy; the chain's own columns do not matter here.
_HISTORY = """
INSERT INTO invoices_event (merchant_id, invoice_id, seq, subject_type, subject_id, kind, from_state, to_state, actor,
    cause, data, occurred_at, hash)
SELECT merchant_id, invoice_id + n, seq, subject_type, subject_id, kind, from_state, to_state, actor, cause, data,
    occurred_at, hash
FROM invoices_event, generate_series(1, %(copies)s) n WHERE invoice_id = %(invoice)s
"""


def copy_case(job: Any, copies: int) -> None:
    """That many customers like the model's, each with card, token, invoice, charge, decline, case and booked retry."""
    from django.db import connection

    from invoices.models import Attempt
    from tests.support.copies import copy_rows
    from tokens.models import Token

    token = Token.objects.get(pk=job.token_id)
    attempt = Attempt.objects.get(invoice=job.invoice_id)
    model = {
        "invoices_customer": job.customer_id,
        "tokens_card": token.card_id,
        "tokens_token": token.pk,
        "invoices_invoice": job.invoice_id,
        "invoices_transaction": job.transaction_id,
        "invoices_attempt": attempt.pk,
        "retries_case": job.case_id,
        "retries_retryjob": job.pk,
    }
    copy_rows(model, copies, after=0, later="0")
    with connection.cursor() as cursor:
        for table in model:
            cursor.execute(f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), max(id)) FROM {table}")  # noqa: S608
        cursor.execute(_HISTORY, {"invoice": job.invoice_id, "copies": copies})
        cursor.execute("VACUUM ANALYZE")


class Tape:
    """Statements as the engine runs them, with the begin and end of its transactions."""

    def __init__(self) -> None:
        self.steps: list[tuple[str, Any]] = []

    @contextmanager
    def recording(self) -> Iterator[None]:
        import psycopg
        from django.db import connection

        connection.ensure_connection()
        kept = connection.set_autocommit, connection._commit

        def autocommit(on: bool, *args: Any, **known: Any) -> None:
            self.steps.append(("autocommit", on))
            kept[0](on, *args, **known)

        def commit() -> None:
            self.steps.append(("commit", None))
            kept[1]()

        def execute(run: Callable[..., Any], sql: str, params: Any, many: bool, context: Any) -> Any:
            prepared = isinstance(context["cursor"].cursor, psycopg.Cursor) and not isinstance(
                context["cursor"].cursor, psycopg.ClientCursor
            )
            self.steps.append(("many" if many else "prepared" if prepared else "sql", (sql, params)))
            return run(sql, params, many, context)

        connection.set_autocommit, connection._commit = autocommit, commit
        try:
            with connection.execute_wrapper(execute):
                yield
        finally:
            connection.set_autocommit, connection._commit = kept

    @property
    def statements(self) -> int:
        return sum(kind in ("sql", "prepared", "many") for kind, _ in self.steps)

    def replay(self, address: str) -> float:
        """Seconds for the same statements over a bare cursor."""
        import psycopg

        with psycopg.connect(address, autocommit=True, cursor_factory=psycopg.ClientCursor) as bare:
            bare.prepare_threshold, bare.prepared_max = 2, 300
            began = time.perf_counter()
            for kind, what in self.steps:
                if kind == "autocommit":
                    bare.autocommit = what
                elif kind == "commit":
                    bare.commit()
                else:
                    with psycopg.Cursor(bare) if kind == "prepared" else bare.cursor() as cursor:
                        (cursor.executemany if kind == "many" else cursor.execute)(*what)
                        if cursor.description:
                            cursor.fetchall()
            return time.perf_counter() - began


class InlineCrew:
    """The engine's crew without threads, so that there is one order of statements to record."""

    def __init__(self, size: int, work: Callable[[Any], Any], name: str) -> None:
        self._work, self._results = work, list[Any]()

    def __class_getitem__(cls, item: Any) -> type["InlineCrew"]:
        return cls

    @property
    def open(self) -> int:
        return len(self._results)

    def give(self, task: Any) -> None:
        self._results.append(self._work(task))

    def take_all(self) -> list[Any]:
        taken, self._results = self._results, []
        return taken

    def __enter__(self) -> "InlineCrew":
        return self

    def __exit__(self, *error: object) -> None:
        pass


class Copies:
    """Databases made from the filled one, so that every run begins with the same rows and sequences."""

    def __init__(self) -> None:
        from django.db import connections

        self._connections = connections
        self.template = connections["default"].settings_dict["NAME"]
        self._address = urlsplit(os.environ["DATABASE_URL"])
        self._admin = self._address._replace(path="/postgres").geturl()

    @contextmanager
    def one(self) -> Iterator[str]:
        """The address of a fresh copy, in which Django works meanwhile."""
        import psycopg
        from psycopg import sql

        name = f"{self.template}_copy"
        self._use(self.template)
        with psycopg.connect(self._admin, autocommit=True) as admin:
            admin.execute(
                sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(self.template))
            )
            try:
                self._use(name)
                yield self._address._replace(path=f"/{name}").geturl()
            finally:
                self._use(self.template)
                drop_database(admin, name)

    def _use(self, name: str) -> None:
        self._connections.close_all()
        for known in (self._connections.settings["default"], self._connections["default"].settings_dict):
            known["NAME"] = name


def engine_and_bare_loop(copies: Copies, jobs: int, rounds: int) -> list[Result]:
    from _engine_worker import install

    from retries.engine import drain

    install(0)
    one_by_one, in_step = recorded(copies, jobs, alone=True), recorded(copies, jobs, alone=False)
    bare, own, engine = [], [], []
    for _ in range(rounds):
        for tape, speeds in ((one_by_one, bare), (in_step, own)):
            with copies.one() as address:
                speeds.append(jobs / tape.replay(address))
        with copies.one():
            began = time.perf_counter()
            assert drain.retries_drain(now=NOW).succeeded == jobs
            engine.append(jobs / (time.perf_counter() - began))
    speed, floor, most = statistics.median(engine), statistics.median(bare), statistics.median(own)
    return [
        Result("engine_vs_bare_loop", speed, "charges/s", floor, speed / floor, 0.6, speed >= 0.6 * floor),
        Result("engine_vs_its_statements", speed, "charges/s", most, speed / most, None, None),
        Result("statements_per_charge", in_step.statements / jobs, "statements", one_by_one.statements / jobs,
               in_step.statements / one_by_one.statements, None, None),
    ]  # fmt: skip


def recorded(copies: Copies, jobs: int, *, alone: bool) -> Tape:
    """What the engine asks while it makes all charges, without threads, so that there is one order to record."""
    from retries.engine import drain

    tape, crew, only_sent = Tape(), drain.Crew, drain._is_only_sent
    with copies.one():
        drain.Crew = InlineCrew  # type: ignore[assignment,misc]
        if alone:
            drain._is_only_sent = lambda claim, owner, now: False  # every job is worked whole
        with tape.recording():
            assert drain.retries_drain(now=NOW).succeeded == jobs
        drain.Crew, drain._is_only_sent = crew, only_sent  # type: ignore[misc]
    return tape


def workers_drain(address: str, latency: float, number: int) -> list[dict[str, Any]]:
    """What that many worker processes report after they have drained everything."""
    command = [sys.executable, str(ROOT / "benchmarks" / "_engine_worker.py"), str(latency), NOW.isoformat()]
    environment = {**os.environ, "DATABASE_URL": address, "RETRY_THREADS": str(THREADS)}
    running = [
        subprocess.Popen(command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(number)
    ]
    reports = []
    for process in running:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "ready"
    for process in running:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in running:
        told, _ = process.communicate()
        reports.append(json.loads(told.splitlines()[-1]))
    return reports


def slow_provider(copies: Copies, jobs: int) -> list[Result]:
    with copies.one() as address:
        reports = workers_drain(address, PROVIDER_SECONDS, 2)
    seconds = max(one["ended"] for one in reports) - min(one["began"] for one in reports)
    charged = sum(one["succeeded"] for one in reports)
    assert charged == jobs
    threads = sum(one["threads"] for one in reports)
    rate, ideal = charged / seconds, threads / PROVIDER_SECONDS
    busy = sum(one["busy"] for one in reports) / sum(one["threads"] * (one["ended"] - one["began"]) for one in reports)
    return [
        Result("charges_per_s_200ms", rate, "charges/s", ideal, rate / ideal, 150, rate >= 150),
        Result("busy_share_200ms", 100 * busy, "%", 100, busy, 0.9, busy >= 0.9),
    ]


def memory(copies: Copies, open_jobs: int) -> Result:
    """The size of a worker that charges beside so many open jobs."""
    from django.db import connection

    with copies.one() as address:
        unguard()
        with connection.cursor() as cursor:
            cursor.execute("SELECT max(id), min(merchant_id), min(connection_id) FROM retries_retryjob")
            last, merchant, account = cursor.fetchone()
            values = {"merchant": merchant, "connection": account, "merchants": 1, "now": NOW}
            cursor.execute(_JOBS, {**values, "first": 10 * last, "last": 10 * last + open_jobs})
        (told,) = workers_drain(address, 0, 1)
    size = told["megabytes"]
    return Result("worker_mb_1m_jobs", size, "MB", 200, size / 200, 1.0, size < 200)


def main() -> None:
    small = quick(__doc__.splitlines()[0])
    results: list[Result] = []
    with own_database("engine"):
        copied = 400 if small else 4_000
        copy_case(model_case(), copied)
        jobs, copies = copied + 1, Copies()
        results += slow_provider(copies, jobs)
        results.append(memory(copies, 100_000 if small else 1_000_000))
        results = [*engine_and_bare_loop(copies, jobs, 3), *results]
        large, backlog = (500_000, 10_000) if small else (5_000_000, 100_000)
        with copies.one():
            rows = Jobs()
            results = [*claims(rows, large=large, backlog=backlog, times=15 if small else 40), *results]
            results.append(fairness(rows, backlog=backlog, batch=48))
    report("engine", results)


if __name__ == "__main__":
    main()
