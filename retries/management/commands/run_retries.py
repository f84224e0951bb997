"""`run_retries --once [--at T] [--dry-run] --json`: one sweep over the due retries."""

from argparse import ArgumentParser
from collections.abc import Mapping
from typing import Any

from recovery_site.common import clock
from recovery_site.common.commands import RecoveryCommand
from retries.engine.drain import DrainCounts, retries_drain
from retries.engine.explain import jobs_explain, lanes_held

_EXPLAINED = 1_000


class Command(RecoveryCommand):
    help = "Send every retry that is due, at most one attempt per case."

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        self.add_at(parser)
        parser.add_argument("--once", action="store_true", help="drain what is due, then stop (the only way to run it)")
        parser.add_argument("--dry-run", action="store_true", help="print what would happen and why, send nothing")
        parser.add_argument("--limit", type=int, default=_EXPLAINED, help=f"dry run: most jobs ({_EXPLAINED})")

    def run(self, **options: Any) -> Mapping[str, Any]:
        now = self.now(options)
        if options["dry_run"]:
            jobs = jobs_explain(now=now, limit=max(1, options["limit"]))
            told = {"due": len(jobs), "would": [one.as_dict() for one in jobs], "held": lanes_held(now=now)}
            return {**DrainCounts().as_dict(), **told}
        return retries_drain(now=now, clock=None if options["at"] else clock.now).as_dict()

    def human(self, result: Mapping[str, Any]) -> str:
        if "would" not in result:
            return super().human(result)
        lines = [f"{one['would']:<7} {one['invoice']}  {one['why']}" for one in result["would"]]
        lines += [f"passed over: {one['due']} due jobs of {one['connection']}: {one['why']}" for one in result["held"]]
        return "\n".join(lines) or "Nothing is due."
