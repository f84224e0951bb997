"""`manage.py verify_ledger`: replays every invoice's events against its rows and counts broken promises."""

from argparse import ArgumentParser
from collections.abc import Mapping
from typing import Any

from accounts.services import merchant_require
from recovery_site.common.commands import RecoveryCommand
from recovery_site.console.verification import Report, verify

# More than this many problems have one cause, and nobody reads them one by one.
_LISTED = 1_000


class Command(RecoveryCommand):
    help = (
        "Check hash chains, replay events against rows, totals, next steps and the must-be-zero list; exit 1 if wrong."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--merchant", metavar="NAME", help="only this merchant (name or id)")

    def handle(self, *args: Any, **options: Any) -> None:
        self.ok = True
        super().handle(*args, **options)
        if not self.ok:
            raise SystemExit(1)

    def run(self, **options: Any) -> Mapping[str, Any]:
        merchant = merchant_require(options["merchant"]) if options["merchant"] else None
        report = verify(merchant=merchant, progress=self._progress)
        self.ok = report.ok
        if not report.ok:
            self.stderr.write(_summary(report))
        return as_json(report)

    def _progress(self, done: int) -> None:
        self.stderr.write(f"{done} invoices checked ...")

    def human(self, result: Mapping[str, Any]) -> str:
        lines = [f"{result['invoices']} invoices checked: {'all is well' if result['ok'] else 'problems found'}."]
        lines += [f"  {row['invoice']}  {row['problem']}: {row['detail']}" for row in result["problems"]]
        lines += [f"  {name}: {number}" for name, number in result["must_be_zero"].items()]
        return "\n".join(lines)


def as_json(report: Report) -> dict[str, Any]:
    """`problems` lists the first 1,000; `problems_total` counts all."""
    return {
        "ok": report.ok,
        "invoices": report.invoices,
        "problems": [
            {"invoice": one.invoice, "problem": one.problem, "detail": one.detail} for one in report.problems[:_LISTED]
        ],
        "problems_total": len(report.problems),
        "must_be_zero": dict(report.must_be_zero),
    }


def _summary(report: Report) -> str:
    invoices = len({one.invoice for one in report.problems})
    return (
        f"The ledger differs from its events or breaks a promise: {len(report.problems)} problems, {invoices} invoices."
    )
