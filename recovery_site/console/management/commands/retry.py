"""`retry INVOICE_OR_TRANSACTION [--token T] [--due T] [--at T] --reason R --json`: a manual, audited retry."""

from argparse import ArgumentParser
from collections.abc import Mapping
from typing import Any

from accounts.models import Merchant
from invoices.services.ledger import Stamp
from recovery_site.common.commands import RecoveryCommand, instant
from recovery_site.common.errors import NotFound
from recovery_site.console.lookup import invoice_find
from retries.engine.drain import job_work
from retries.models import RetryJob
from retries.services.manual import retry_now
from tokens.models import Token


class Command(RecoveryCommand):
    help = "Charge an invoice now, or book it for later; every limit of the networks still holds."

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        self.add_at(parser)
        parser.add_argument("subject", metavar="INVOICE_OR_TRANSACTION", help="our id or the provider's")
        parser.add_argument("--token", help="our id of the payment method, or the provider's (default: the best one)")
        parser.add_argument("--due", type=instant, help="book it for this time instead of sending it now")
        parser.add_argument("--reason", required=True, help="why; kept in the invoice's history")

    def run(self, **options: Any) -> Mapping[str, Any]:
        now = self.now(options)
        invoice = invoice_find(options["subject"], Merchant.objects.all())
        job = retry_now(
            invoice_pk=invoice.pk,
            stamp=Stamp(actor="operator:command", cause=f"staff: {options['reason']}"[:200], now=now),
            reason=options["reason"],
            token_pk=_token(invoice.customer_id, options["token"]) if options["token"] else None,
            due_at=options["due"],
        )
        outcome = "booked"
        if options["due"] is None or options["due"] <= now:
            outcome = job_work(job.pk, now=now)
        job = RetryJob.objects.select_related("attempt").get(pk=job.pk)
        return {
            "invoice": invoice.public_id,
            "job": job.public_id,
            "outcome": outcome,
            "due_at": job.due_at.isoformat(),
            "attempt": job.attempt.public_id if job.attempt else None,
        }


def _token(customer_pk: int, name: str) -> int:
    for field in ("public_id", "provider_token"):
        token = Token.objects.filter(customer_id=customer_pk, **{field: name}).first()
        if token is not None:
            return token.pk
    raise NotFound(f"This customer has no payment method {name}; `inspect` lists them.")
