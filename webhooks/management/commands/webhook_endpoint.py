"""`webhook_endpoint create --merchant NAME --provider P --secret S [--connection ID] --json`."""

from argparse import ArgumentParser
from collections.abc import Mapping
from typing import Any

from accounts.services import merchant_require
from invoices.services.parties import connection_require
from recovery_site.common.commands import RecoveryCommand
from webhooks.services import endpoint_create


class Command(RecoveryCommand):
    help = "Create an inbound webhook endpoint."

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("action", choices=["create"])
        parser.add_argument("--merchant", required=True)
        parser.add_argument("--provider", required=True)
        parser.add_argument("--secret", required=True)
        parser.add_argument(
            "--connection", help="whose ledger it feeds (default: the merchant's only one of the provider)"
        )

    def run(self, **options: Any) -> Mapping[str, Any]:
        merchant = merchant_require(options["merchant"])
        connection = None
        if options["connection"]:
            connection = connection_require(merchant=merchant, public_id=options["connection"])
        endpoint = endpoint_create(
            merchant=merchant, provider=options["provider"], secret=options["secret"], connection=connection
        )
        return {"id": str(endpoint.uuid), "url": f"/webhooks/{endpoint.provider}/{endpoint.uuid}/"}
