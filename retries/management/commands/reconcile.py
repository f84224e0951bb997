"""`reconcile --once [--at T] [--dry-run] --json`: find and end what got stuck."""

from argparse import ArgumentParser
from collections.abc import Mapping
from typing import Any

from recovery_site.common.commands import RecoveryCommand
from retries.reconciliation import ReconcileCounts, reconcile
from retries.reconciliation.explain import reconcile_explain


class Command(RecoveryCommand):
    help = "Resolve stuck charges and refunds, repair missing next steps, release slots. Never starts a charge."

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        self.add_at(parser)
        parser.add_argument("--once", action="store_true", help="drain what is due, then stop (the only way to run it)")

        parser.add_argument("--dry-run", action="store_true", help="print what would happen and why, ask nobody")

    def run(self, **options: Any) -> Mapping[str, Any]:
        now = self.now(options)
        if options["dry_run"]:
            return {**ReconcileCounts().as_dict(), "would": reconcile_explain(now=now)}
        return reconcile(now=now, drain=True).as_dict()

    def human(self, result: Mapping[str, Any]) -> str:
        if "would" not in result:
            return super().human(result)
        lines = [f"{one['phase']:<8} {one['row']}  {one['would']} ({one['why']})" for one in result["would"]]
        return "\n".join(lines) or "Nothing is stuck."
