"""Tells a seed's story: starts its processes, lets blows and mishaps fall where the plan says, and asks the judge."""

import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import redis

from providers.sandbox.server.tokens import parse_token
from recovery_site.embedded import ServiceUrls, ensure_services
from tests.contract.sandbox_process import ROOT, Psp, eventually
from tests.durability.chaos.plan import Debt, Plan, Run
from tests.recovery_site.embedded_servers import kill_hard, recorded

START = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
# A sleeper's lease; all others have one that nobody outlasts by accident.
SHORT_LEASE, LONG_LEASE = 1.0, 60.0
# How long a stopped process may hold the others up before the mishap comes.
PATIENCE = 0.7
_serial = count(1)


class Host:
    """The host process and the workers it has forked."""

    def __init__(self, environment: Mapping[str, str], log: Path) -> None:
        self.log = log
        with log.open("ab") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.durability.chaos.host"],
                cwd=ROOT,
                env={**environment, "LOG_LEVEL": "WARNING"},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
            )
        self.workers: dict[int, Worker] = {}
        self.answers: queue.Queue[dict[str, Any]] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        assert self.answers.get(timeout=120) == {"ready": True}
        self.numbers = count(1)

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.answers.put(json.loads(line))
        self.answers.put({"gone": True})

    def start(self, role: str, **order: Any) -> "Worker":
        worker = Worker(self, next(self.numbers), role)
        self.workers[worker.number] = worker
        self._order({"id": worker.number, "role": role, **order})
        return worker

    def _order(self, order: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(order).encode() + b"\n")
        self.process.stdin.flush()

    def wake(self, pid: int) -> None:
        self._order({"wake": pid})

    def follow(self, until: Callable[[], bool], seconds: float = 240.0) -> bool:
        """Take in what is told of the workers until the condition holds; False if the time is over first."""
        end = time.monotonic() + seconds
        while not until():
            try:
                answer = self.answers.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                return False
            assert "gone" not in answer, f"the host died: {self.trouble()}"
            self.workers[answer["id"]].take(answer)
        return True

    def run(self, role: str, **order: Any) -> Any:
        """One worker that must do its work to the end."""
        worker = self.start(role, **order)
        assert self.follow(lambda: worker.code is not None), f"{role} does not end"
        assert worker.code == 0, f"{role} ended with {worker.code}: {self.trouble()}"
        return worker.result

    def trouble(self) -> str:
        """The end of what the workers have logged."""
        return self.log.read_text()[-3000:]

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(30)


@dataclass
class Worker:
    """One forked process as the host tells of it."""

    host: Host
    number: int
    role: str
    pid: int = 0
    stopped: bool = False
    code: int | None = None
    result: Any = None

    def take(self, answer: Mapping[str, Any]) -> None:
        self.pid = answer.get("pid", self.pid)
        self.stopped = "stopped" in answer or (self.stopped and "exit" not in answer)
        self.code = answer.get("exit", self.code)
        self.result = answer.get("result", self.result)

    @property
    def still(self) -> bool:
        return self.stopped or self.code is not None

    def wake(self) -> None:
        if self.stopped:
            self.stopped = False
            self.host.wake(self.pid)


@dataclass
class Stage:
    """PostgreSQL, Redis, the sandbox and the host, all of the harness's own: it may break any of them."""

    services: Path
    folder: Path
    urls: ServiceUrls
    host: Host
    psp: Psp

    def break_postgres(self) -> None:
        kill_hard(recorded(self.services, "postgres"))
        assert ensure_services(self.services) == self.urls

    def flush_redis(self) -> None:
        with redis.Redis.from_url(self.urls.redis_url) as client:
            client.flushall()

    def break_redis(self) -> None:
        kill_hard(recorded(self.services, "redis"))

    def mend_redis(self) -> None:
        assert ensure_services(self.services) == self.urls

    def break_sandbox(self) -> None:
        self.psp.end(9)

    def mend_sandbox(self) -> None:
        self.psp.start("--port", self.psp.url.rpartition(":")[2])

    def new_sandbox(self, name: str) -> None:
        """A provider that has never charged anybody: the reverse scan reads all that one has."""
        self.psp.abandon()
        self.psp = Psp(self.folder / f"sandbox-{name}.jsonl").start()


@contextmanager
def stage_set(services: Path, folder: Path) -> Iterator[Stage]:
    """Everything up and migrated."""
    urls = ensure_services(services)
    environment = {
        **os.environ,
        "ENVIRONMENT": "test",
        "DATABASE_URL": urls.database_url,
        "REDIS_URL": urls.redis_url,
    }
    environment.pop("PYTEST_CURRENT_TEST", None)
    command = [sys.executable, "manage.py", "migrate", "--no-input", "--verbosity", "0"]
    subprocess.run(command, cwd=ROOT, env=environment, check=True, timeout=300)
    stage = Stage(services, folder, urls, Host(environment, folder / "workers.log"), Psp(folder / "none.jsonl"))
    try:
        yield stage
    finally:
        stage.host.close()
        stage.psp.abandon()


@dataclass
class Story:
    """One telling of a plan, with none, one or several guards switched off."""

    stage: Stage
    plan: Plan
    guards_off: Sequence[str] = ()
    at: datetime = START
    name: str = field(default_factory=lambda: f"{os.getpid()}x{next(_serial)}")
    told: set[str] = field(default_factory=set)
    sleepers: list[Worker] = field(default_factory=list)
    log: list[str] = field(default_factory=list)

    def play(self) -> list[str]:
        """From the first failures to the verdict; returns what the judge found."""
        dice = Random(f"story {self.plan.seed}")
        self.stage.new_sandbox(self.name)
        self._host("begin", name=f"chaos {self.name}", timeout=1.0, failures=self._failures())
        self._put("/faults", {"seed": self.plan.seed, "rates": dict(self.plan.rates)})
        for number, each in enumerate(self.plan.rounds):
            self._jump(each.jump)
            self._host("between", webhooks=self._webhooks(dice, each.delivered), acts=self._acts(each.acts))
            self._round(each.runs, each.mishap)
            if number == self.plan.wakes_in:
                self._wake()
        self._put("/faults", {"seed": 0, "rates": {}})
        self._jump(timedelta(0))
        self._host("between", webhooks=self._webhooks(dice, 1.0), acts=[])
        self.at = datetime.fromisoformat(self._host("calm"))
        # Everything that was ever told is told once more; it must change nothing.
        self.told.clear()
        self._host("between", webhooks=self._webhooks(dice, 1.0), acts=[])
        self._host("inbox")
        found: list[str] = self._host("judge")
        return found

    def _jump(self, gap: timedelta) -> None:
        """The clock may jump by hours: no request is on its way to the provider for that long."""
        eventually(lambda: self.stage.psp.get("/health")["at_work"] == 0)
        self.at += gap

    # --- rounds ---------------------------------------------------------------------------------------------------

    def _round(self, runs: Sequence[Run], mishap: str) -> None:
        workers = [self._start(run) for run in runs]
        sleeping = [worker for worker, run in zip(workers, runs, strict=True) if _sleeps(run)]
        awake = [worker for worker in workers if worker not in sleeping]
        if mishap:
            self._break(mishap, workers)
        self._release(awake)
        if mishap:
            self._mend(mishap)
        assert self.stage.host.follow(lambda: all(one.still for one in sleeping)), self._stuck(sleeping)
        asleep = [worker for worker in sleeping if worker.stopped]
        if asleep:
            time.sleep(SHORT_LEASE)  # real time: a sleeper's lease runs on the database's clock
        self.sleepers += asleep
        self.log += [f"{run} -> {worker.code}" for run, worker in zip(runs, workers, strict=True)]
        # A worker ends well or by a blow; only one that has lost its database may end with an error.
        allowed = (0, -9, 1) if mishap == "postgres_killed" else (0, -9)
        assert all(worker.code in allowed for worker in awake), f"{self.log}: {self.stage.host.trouble()}"

    def _break(self, mishap: str, workers: Sequence[Worker]) -> None:
        """Wait until somebody stands at his place, and the others have come as far as they can; then break it."""
        follow = self.stage.host.follow
        follow(lambda: any(worker.stopped for worker in workers) or all(worker.still for worker in workers))
        follow(lambda: all(worker.still for worker in workers), PATIENCE)
        {
            "postgres_killed": self.stage.break_postgres,
            "redis_flushed": self.stage.flush_redis,
            "redis_killed": self.stage.break_redis,
            "sandbox_killed": self.stage.break_sandbox,
        }[mishap]()

    def _mend(self, mishap: str) -> None:
        if mishap == "redis_killed":
            self.stage.mend_redis()
        elif mishap == "sandbox_killed":
            self.stage.mend_sandbox()

    def _start(self, run: Run) -> Worker:
        blow = (run.fate.place, run.fate.nth, run.fate.blow) if run.fate else None
        lease = SHORT_LEASE if _sleeps(run) else LONG_LEASE
        at = (self.at + run.skew).isoformat()
        return self.stage.host.start(run.role, at=at, lease=lease, threads=run.threads, blow=blow, **self._standing())

    def _release(self, workers: Sequence[Worker]) -> None:
        """Whoever was stopped goes on, also one that stops only now."""

        def released() -> bool:
            for worker in workers:
                worker.wake()
            return all(worker.code is not None for worker in workers)

        assert self.stage.host.follow(released), self._stuck(workers)

    def _wake(self) -> None:
        """The sleepers go on with what they were about to do."""
        sleepers, self.sleepers = self.sleepers, []
        self._release(sleepers)
        lost = any(each.mishap == "postgres_killed" for each in self.plan.rounds)
        assert all(one.code in ((0, 1) if lost else (0,)) for one in sleepers), self.stage.host.trouble()

    def _stuck(self, workers: Sequence[Worker]) -> str:
        return f"workers hang: {[(one.role, one.pid, one.stopped, one.code) for one in workers]} {self.log}"

    # --- what is told ---------------------------------------------------------------------------------------------

    def _host(self, role: str, **order: Any) -> Any:
        return self.stage.host.run(
            role, at=self.at.isoformat(), **{"url": self.stage.psp.url, **self._standing(), **order}
        )

    def _standing(self) -> dict[str, Any]:
        return {"lookup": self.plan.lookup, "guards_off": list(self.guards_off)}

    def _put(self, path: str, body: dict[str, Any]) -> None:
        self.stage.psp.put(path, **body)

    def customer(self, number: int) -> str:
        return f"cus_{self.name}_{number}"

    def _failures(self) -> list[dict[str, Any]]:
        """Told by the merchant's own billing system; every second one twice."""
        events = [{"id": f"evt_{self.name}_{debt.number}", "event": self._failure(debt)} for debt in self.plan.debts]
        return events + events[::2]

    def _failure(self, debt: Debt) -> dict[str, Any]:
        card = f"_card_{self.name}" if debt.shares_card else ""
        token = f"{debt.token}__{self.name}x{debt.customer}{card}"
        shown = asdict(parse_token(token).card)
        number = f"{self.name}_{debt.number}"
        return {
            "type": "payment.failed",
            "occurred_at": self.at.isoformat(),
            "customer": {"id": self.customer(debt.customer)},
            "invoice": {"id": f"in_{number}", "amount": debt.amount_minor, "currency": "EUR"},
            "payment": {"charge_id": f"ch_{number}", "amount": debt.amount_minor, "currency": "EUR"},
            "payment_method": {"token": token, "card": {"network": shown.pop("brand"), **shown}},
            "error": {"code": debt.code},
        }

    def _acts(self, acts: Sequence[tuple[str, int]]) -> list[tuple[str, int]]:
        for act, number in acts:
            if act == "settle":
                self._settle_one(number)
        return [each for each in acts if each[0] != "settle"]

    def _settle_one(self, number: int) -> None:
        pending = [row for row in self._ledger()["charges"] if row["status"] == "pending"]
        if pending:
            row = pending[number % len(pending)]
            end = {"status": "succeeded"} if number % 3 else {"status": "declined", "decline_code": "do_not_honor"}
            self.stage.psp.call("POST", f"/charges/{row['id']}/settle", end)

    def _ledger(self) -> dict[str, list[dict[str, Any]]]:
        """What the sandbox has on this story's customers, oldest first."""
        ledger = self.stage.psp.get("/ledger")
        mine = f"cus_{self.name}_"
        charges = [row for row in ledger["charges"] if (row["customer"] or "").startswith(mine)]
        ids = {row["id"] for row in charges}
        return {"charges": charges, "refunds": [row for row in ledger["refunds"] if row["charge"] in ids]}

    def _webhooks(self, dice: Random, share: float) -> list[tuple[str, str]]:
        """Events about what moved since: a share of those not told yet, in any order, some of them twice."""
        ledger = self._ledger()
        events = [
            (f"evt_{row['id']}_{row['status']}", f"{kind}.{row['status']}", f"/{kind}s/{row['id']}")
            for kind in ("charge", "refund")
            for row in ledger[f"{kind}s"]
        ]
        chosen = [event for event in events if event[0] not in self.told and dice.random() < share]
        chosen += [event for event in chosen if dice.random() < 0.3]
        dice.shuffle(chosen)
        self.told.update(name for name, _, _ in chosen)
        found = []
        for name, kind, path in chosen:
            data = self.stage.psp.get(path)
            event = {"id": name, "type": kind, "timestamp": data["created_at"], "data": data}
            found.append((name, json.dumps(event, separators=(",", ":"))))
        return found


def _sleeps(run: Run) -> bool:
    return run.fate is not None and run.fate.blow == "sleep"
