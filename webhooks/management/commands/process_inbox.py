"""`process_inbox --once --json`: drain the inbox."""

from argparse import ArgumentParser
from collections.abc import Mapping
from typing import Any

from recovery_site.common.commands import RecoveryCommand
from webhooks.services import inbox_drain


class Command(RecoveryCommand):
    help = "Process every inbound webhook that is waiting."

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        self.add_at(parser)
        parser.add_argument("--once", action="store_true", help="drain what is due, then stop (the only way to run it)")

    def run(self, **options: Any) -> Mapping[str, Any]:
        return inbox_drain(now=self.now(options)).as_dict()
