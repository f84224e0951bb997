"""`unknown_codes [--merchant NAME] [--days N] --json`: decline codes that stand in no table, with how often they
came."""

from argparse import ArgumentParser
from collections.abc import Mapping
from typing import Any

from accounts.models import Merchant
from accounts.services import merchant_require
from recovery_site.common.commands import RecoveryCommand
from retries.unlisted import DAYS, unlisted_codes


class Command(RecoveryCommand):
    help = "List decline codes that nobody knows, the most frequent first; an override in the admin names them."

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        self.add_at(parser)
        parser.add_argument("--merchant", metavar="NAME", help="only this merchant's (name or id)")
        parser.add_argument("--days", type=int, default=DAYS, help=f"how far back to look (default: {DAYS})")

    def run(self, **options: Any) -> Mapping[str, Any]:
        merchants = [merchant_require(options["merchant"])] if options["merchant"] else list(Merchant.objects.all())
        codes = unlisted_codes(merchants, now=self.now(options), days=options["days"])
        return {
            "codes": [
                {
                    "merchant": one.merchant,
                    "provider": one.provider,
                    "code": one.code,
                    "count": one.count,
                    "customers": one.customers,
                    "last_at": one.last_at.isoformat(),
                    "example": one.example,
                    "message": one.message,
                }
                for one in codes
            ]
        }

    def human(self, result: Mapping[str, Any]) -> str:
        lines = [
            f"{one['count']:>7}  {one['provider']:<14}  {one['code']:<32}  {one['merchant']}  {one['example']}"
            for one in result["codes"]
        ]
        return "\n".join(lines) or "Every code that came is known."
