"""What the benchmarks share: a database of their own, rounds in turn, and the one JSON line at the end.

The name begins with an underscore so that `make bench` does not take this file for a benchmark.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
from psycopg import sql

ROOT = Path(__file__).resolve().parents[1]
# What would look at every row of a fill; this database is dropped afterwards, and reading needs none of it.
_UNGUARD = """
DO $$ DECLARE found record; BEGIN
    FOR found IN SELECT conrelid::regclass AS name, conname FROM pg_constraint
        WHERE contype = 'f' AND connamespace = 'public'::regnamespace
    LOOP EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', found.name, found.conname); END LOOP;
    FOR found IN SELECT DISTINCT tgrelid::regclass AS name FROM pg_trigger WHERE NOT tgisinternal
    LOOP EXECUTE format('ALTER TABLE %s DISABLE TRIGGER USER', found.name); END LOOP;
END $$
"""


@dataclass(frozen=True, slots=True)
class Result:
    """One line of the report. `ratio` is value / floor; `ok` None where there is nothing to hold it against."""

    metric: str
    value: float
    unit: str
    floor: float
    ratio: float
    target: float | None
    ok: bool | None

    def as_dict(self) -> dict[str, Any]:
        return {
            "metric": self.metric,
            "value": round(self.value, 2),
            "unit": self.unit,
            "floor": round(self.floor, 2),
            "ratio": round(self.ratio, 3),
            "target": self.target,
            "ok": self.ok,
        }


def at_most(metric: str, value: float, unit: str, *, floor: float, target: float, ratio: float | None = None) -> Result:
    """A ratio that must not exceed `target`."""
    ratio = value / floor if ratio is None else ratio
    return Result(metric, value, unit, floor, ratio, target, ratio <= target)


def at_least(
    metric: str, value: float, unit: str, *, floor: float, target: float, ratio: float | None = None
) -> Result:
    """A ratio that must reach `target`."""
    ratio = value / floor if ratio is None else ratio
    return Result(metric, value, unit, floor, ratio, target, ratio >= target)


def report(bench: str, results: Sequence[Result]) -> None:
    """The line that machines read; people read the same on stderr before it."""
    for result in results:
        mark = {True: "ok", False: "MISSED", None: ""}[result.ok]
        wanted = f" (target {result.target})" if result.target is not None else ""
        print(
            f"{result.metric:32} {result.value:10.2f} {result.unit:14} floor {result.floor:10.2f}"
            f"  ratio {result.ratio:6.2f}{wanted} {mark}",
            file=sys.stderr,
        )
    print(json.dumps({"bench": bench, "results": [result.as_dict() for result in results]}))


def quick(description: str) -> bool:
    """Read the command line: True for a tenth of the size."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="a tenth of the size")
    return bool(parser.parse_args().quick)


def microseconds(call: Callable[[], object], times: int) -> float:
    """Median duration of one call."""
    taken = []
    for _ in range(times):
        started = time.perf_counter_ns()
        call()
        taken.append(time.perf_counter_ns() - started)
    return statistics.median(taken) / 1000


def in_turn(floor: Callable[[], object], value: Callable[[], object], *, rounds: int, times: int) -> tuple[float, ...]:
    """Median of the rounds' ratios, and the value and floor (us) of the round nearest to it.

    Both are measured in every round, one right after the other: what else runs on the machine then disturbs both.
    """
    for call in (floor, value):
        microseconds(call, times // 4 + 1)
    pairs = []
    for _ in range(rounds):
        low = microseconds(floor, times)
        pairs.append((microseconds(value, times), low))
    ratios = [one / low for one, low in pairs]
    middle = statistics.median(ratios)
    value_us, floor_us = pairs[min(range(rounds), key=lambda number: abs(ratios[number] - middle))]
    return middle, value_us, floor_us


def drop_database(admin: psycopg.Connection[Any], name: str) -> None:
    """Drop a database of a benchmark's and end who is connected to it, but for a vacuum of PostgreSQL's own, which has
    to be waited for."""
    for _ in range(300):
        try:
            admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
            return
        except (psycopg.errors.InsufficientPrivilege, psycopg.errors.ObjectInUse):
            time.sleep(1)
    raise SystemExit(f"The database {name} is still in use after five minutes; drop it by hand.")


@contextmanager
def own_database(bench: str) -> Iterator[None]:
    """Django set up on an empty, migrated database beside the application's; dropped at the end."""
    sys.path.insert(0, str(ROOT))
    told = subprocess.run(
        [sys.executable, "manage.py", "services", "--json"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    services = json.loads(told.stdout)
    name = f"bench_{bench}_{os.getpid()}"
    with psycopg.connect(services["DATABASE_URL"], autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        address = urlsplit(services["DATABASE_URL"])
        os.environ |= {
            "DATABASE_URL": address._replace(path=f"/{name}").geturl(),
            "REDIS_URL": services["REDIS_URL"],
            "DJANGO_SETTINGS_MODULE": "recovery_site.settings",
            "LOG_LEVEL": "ERROR",
        }
        try:
            import django
            from django.core.management import call_command
            from django.db import connections

            django.setup()
            call_command("migrate", verbosity=0, interactive=False)
            yield
            connections.close_all()
        finally:
            drop_database(admin, name)


def unguard() -> None:
    """Drop what would slow a fill of millions of rows down: foreign keys, and triggers of our own."""
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute(_UNGUARD)
