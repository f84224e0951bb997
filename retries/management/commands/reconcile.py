"""`reconcile --once [--at T] --json`: find and end what got stuck."""

from argparse import ArgumentParser
from collections.abc import Mapping
from typing import Any

from recovery_site.common.commands import RecoveryCommand
from retries.reconciliation import reconcile


class Command(RecoveryCommand):
    help = "Resolve stuck charges and refunds, repair missing next steps, release slots. Never starts a charge."

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        self.add_at(parser)
        parser.add_argument("--once", action="store_true", help="drain what is due, then stop (the only way to run it)")

    def run(self, **options: Any) -> Mapping[str, Any]:
        return reconcile(now=self.now(options), drain=True).as_dict()
