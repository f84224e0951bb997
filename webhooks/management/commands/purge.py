"""`purge`: delete what is kept only for a while. The worker does it every hour."""

from argparse import ArgumentParser
from collections.abc import Mapping
from typing import Any

from recovery_site.common.commands import RecoveryCommand
from webhooks.purging import purge_all


class Command(RecoveryCommand):
    help = "Delete what is older than the *_RETENTION settings say, in batches."

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        self.add_at(parser)
        parser.add_argument("--once", action="store_true", help="purge, then stop (the only way to run it)")

    def run(self, **options: Any) -> Mapping[str, Any]:
        return purge_all(now=self.now(options))
