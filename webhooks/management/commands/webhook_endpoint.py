"""`webhook_endpoint create` and `rotate`: where a provider sends to, and the secret it signs with."""

from argparse import ArgumentParser
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from django.core.management.base import CommandError

from accounts.services import merchant_require
from invoices.services.parties import connection_require
from recovery_site.common.commands import RecoveryCommand
from webhooks.models import WebhookEndpoint
from webhooks.selectors import endpoint_require
from webhooks.services import endpoint_create, endpoint_rotate


class Command(RecoveryCommand):
    help = "Create an inbound webhook endpoint, or give one a new secret (the old one stays good until the next)."

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("action", choices=["create", "rotate"])
        parser.add_argument("--merchant", help="create: whose")
        parser.add_argument("--provider", help="create: whose language it speaks")
        parser.add_argument("--secret", required=True, help="what the provider signs with")
        parser.add_argument(
            "--connection", help="create: whose ledger it feeds (default: the merchant's only one of the provider)"
        )
        parser.add_argument("--id", type=UUID, help="rotate: the id in the endpoint's address")

    def run(self, **options: Any) -> Mapping[str, Any]:
        if options["action"] == "rotate":
            return self._rotate(options)
        if not options["merchant"] or not options["provider"]:
            raise CommandError("webhook_endpoint create needs --merchant and --provider.")
        merchant = merchant_require(options["merchant"])
        connection = None
        if options["connection"]:
            connection = connection_require(merchant=merchant, public_id=options["connection"])
        endpoint = endpoint_create(
            merchant=merchant, provider=options["provider"], secret=options["secret"], connection=connection
        )
        return _shown(endpoint)

    def _rotate(self, options: Mapping[str, Any]) -> Mapping[str, Any]:
        if options["id"] is None:
            raise CommandError("webhook_endpoint rotate needs --id, the id in the endpoint's address.")
        endpoint = endpoint_require(options["id"])
        endpoint_rotate(endpoint_pk=endpoint.pk, secret=options["secret"])
        return _shown(endpoint)


def _shown(endpoint: WebhookEndpoint) -> Mapping[str, Any]:
    return {"id": str(endpoint.uuid), "url": f"/webhooks/{endpoint.provider}/{endpoint.uuid}/"}
