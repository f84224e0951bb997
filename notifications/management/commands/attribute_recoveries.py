"""`attribute_recoveries`: work out again what every recovery is put down to, after a change of the rule."""

from argparse import ArgumentParser
from collections.abc import Mapping
from typing import Any

from accounts.services import merchant_require
from notifications.services.attributing import cases_attribute
from recovery_site.common.commands import RecoveryCommand


class Command(RecoveryCommand):
    help = "Work out from the ledger again what every recovered case is put down to (docs/messages.md)."

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--merchant", help="name or id (default: all)")

    def run(self, **options: Any) -> Mapping[str, Any]:
        merchant = merchant_require(options["merchant"]) if options["merchant"] else None
        return cases_attribute(merchant_pk=merchant.pk if merchant else None)
