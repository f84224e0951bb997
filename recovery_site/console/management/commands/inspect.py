"""`manage.py inspect INVOICE_OR_TRANSACTION`: one invoice's story on the command line."""

from argparse import ArgumentParser
from collections.abc import Mapping
from typing import Any

from accounts.models import Merchant
from accounts.services import merchant_require
from recovery_site.common.commands import RecoveryCommand
from recovery_site.console.lookup import invoice_find
from recovery_site.console.report import story_json, story_text
from recovery_site.console.story import invoice_story


class Command(RecoveryCommand):
    help = "Show an invoice's state, next step with its reason, attempts, payment methods with budgets, and timeline."

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        self.add_at(parser)
        parser.add_argument(
            "reference",
            metavar="INVOICE_OR_TRANSACTION",
            help="any id: ours or the provider's invoice, payment, charge, refund, dispute id, or the invoice's number",
        )
        parser.add_argument("--merchant", metavar="NAME", help="only among this merchant's invoices (name or id)")

    def run(self, **options: Any) -> Mapping[str, Any]:
        merchants = Merchant.objects.all()
        if options["merchant"]:
            merchants = merchants.filter(pk=merchant_require(options["merchant"]).pk)
        invoice = invoice_find(options["reference"], merchants)
        self.story = invoice_story(invoice, now=self.now(options))
        return story_json(self.story)

    def human(self, result: Mapping[str, Any]) -> str:
        return story_text(self.story)
