"""`rollups advance|rebuild [--merchant NAME] --json`: the figures behind the dashboards."""

import sys
from argparse import ArgumentParser
from collections.abc import Mapping
from functools import partial
from typing import Any

from tqdm import tqdm

from accounts.models import Merchant
from accounts.services import merchant_require
from analytics.rollups.advance import rollups_advance, rollups_build
from recovery_site.common.commands import RecoveryCommand


class Command(RecoveryCommand):
    help = "Bring the rollups up to the ledger, or compute them again from it. Dashboards are exact meanwhile."

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("action", choices=("advance", "rebuild"))
        parser.add_argument("--merchant", metavar="NAME", help="rebuild: only this merchant")

    def run(self, **options: Any) -> Mapping[str, Any]:
        if options["action"] == "advance":
            return rollups_advance().as_dict()
        name = options["merchant"]
        merchants = [merchant_require(name)] if name else list(Merchant.objects.order_by("pk"))
        for merchant in merchants:
            with tqdm(desc=str(merchant), unit="day", disable=None, file=sys.stderr) as bar:
                rollups_build(merchant, progress=partial(_show, bar))
        return {"built": len(merchants)}


def _show(bar: Any, done: int, total: int) -> None:
    bar.total = total
    bar.update(done - bar.n)
