"""`run_retries --once [--at T] [--dry-run] --json`: one sweep over the due retries."""

from argparse import ArgumentParser
from collections.abc import Mapping
from typing import Any

from recovery_site.common.commands import RecoveryCommand
from retries.engine.claim import jobs_due
from retries.engine.drain import DrainCounts, retries_drain


class Command(RecoveryCommand):
    help = "Send every retry that is due, at most one attempt per case."

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        self.add_at(parser)
        parser.add_argument("--once", action="store_true", help="drain what is due, then stop (the only way to run it)")
        parser.add_argument("--dry-run", action="store_true", help="count what is due, send nothing")

    def run(self, **options: Any) -> Mapping[str, Any]:
        now = self.now(options)
        if options["dry_run"]:
            return {**DrainCounts().as_dict(), "due": len(jobs_due(now=now, limit=1_000_000))}
        return retries_drain(now=now).as_dict()
