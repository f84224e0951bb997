"""`process_inbox --once [--dry-run] --json`: drain the inbox."""

from argparse import ArgumentParser
from collections.abc import Mapping
from typing import Any

from recovery_site.common.commands import RecoveryCommand
from webhooks.services import InboxCounts, inbox_drain
from webhooks.services.explaining import inbox_explain

_EXPLAINED = 1_000


class Command(RecoveryCommand):
    help = "Process every inbound webhook that is waiting."

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        self.add_at(parser)
        parser.add_argument("--once", action="store_true", help="drain what is due, then stop (the only way to run it)")

        parser.add_argument("--dry-run", action="store_true", help="print what would happen and why, write nothing")
        parser.add_argument("--limit", type=int, default=_EXPLAINED, help=f"dry run: most items ({_EXPLAINED})")

    def run(self, **options: Any) -> Mapping[str, Any]:
        now = self.now(options)
        if options["dry_run"]:
            items = inbox_explain(now=now, limit=max(1, options["limit"]))
            return {**InboxCounts().as_dict(), "would": [one.as_dict() for one in items]}
        return inbox_drain(now=now).as_dict()

    def human(self, result: Mapping[str, Any]) -> str:
        if "would" not in result:
            return super().human(result)
        lines = [f"{one['would']:<8} {one['id']:>8}  {one['type']:<32}  {one['why']}" for one in result["would"]]
        return "\n".join(lines) or "The inbox is empty."
