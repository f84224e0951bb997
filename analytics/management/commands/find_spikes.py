"""`find_spikes --once [--at T] [--dry-run] --json`: one look for failure rates above their own baseline."""

from argparse import ArgumentParser
from collections.abc import Mapping
from typing import Any

from accounts.models import Merchant
from analytics.spikes.sweep import SpikeCounts, spikes_plan, spikes_sweep
from recovery_site.common.commands import RecoveryCommand


class Command(RecoveryCommand):
    help = "Open, follow and end incidents: connections, card countries and codes that fail more than usual."

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        self.add_at(parser)
        parser.add_argument("--once", action="store_true", help="look once and end (the only way there is)")
        parser.add_argument(
            "--dry-run", action="store_true", help="print what would be told and to whom, change nothing"
        )

    def run(self, **options: Any) -> Mapping[str, Any]:
        now = self.now(options)
        if not options["dry_run"]:
            return spikes_sweep(now=now).as_dict()
        would = [
            {"merchant": merchant.name, "would": step.what, "subject": step.name, "text": step.text}
            for merchant in Merchant.objects.order_by("pk")
            for step in spikes_plan(merchant, now=now)
        ]
        return {**SpikeCounts().as_dict(), "would": would}

    def human(self, result: Mapping[str, Any]) -> str:
        if "would" not in result:
            return super().human(result)
        lines = [f"{one['merchant']}: {one['would']:<5} {one['text']}" for one in result["would"]]
        return "\n".join(lines) or "Nothing fails more than usual."
