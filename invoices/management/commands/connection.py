"""`connection create --merchant NAME --provider P --config JSON`, and `check`, `rekey` and `list`."""

import json
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from accounts.services import merchant_require
from invoices.models import Connection
from invoices.services.parties import (
    connection_check,
    connection_create,
    connection_rekey,
    connection_require,
)
from providers.registry import PROVIDERS
from recovery_site.common.errors import RecoveryError


class Command(BaseCommand):
    help = "Connect a merchant to a provider, test or replace a connection's credentials, list connections."

    def add_arguments(self, parser: ArgumentParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True)
        create = actions.add_parser("create", help="create a connection; secrets in the config are encrypted")
        create.add_argument("--merchant", required=True, metavar="NAME", help="name or id of the merchant")
        create.add_argument("--provider", required=True, help=", ".join(PROVIDERS))
        create.add_argument(
            "--config",
            default="{}",
            metavar="JSON",
            help='for example {"api_key": "...", "base_url": "...", "mode": "charge"}; mode: charge, collect, observe',
        )
        create.add_argument("--name", default="", help="shown to people (default: the provider's name)")
        create.add_argument("--json", action="store_true", help="print one JSON object")
        check = actions.add_parser("check", help="ask the provider something harmless with a connection's credentials")
        rekey = actions.add_parser("rekey", help="replace credentials, once the provider has accepted the new ones")
        rekey.add_argument("--config", required=True, metavar="JSON", help='the secrets, such as {"api_key": "..."}')
        for named in (check, rekey):
            named.add_argument("--merchant", required=True, metavar="NAME")
            named.add_argument("--connection", required=True, metavar="ID", help="con_...")
            named.add_argument("--json", action="store_true", help="print one JSON object")
        listing = actions.add_parser("list", help="list a merchant's connections, without their secrets")
        listing.add_argument("--merchant", required=True, metavar="NAME")
        listing.add_argument("--json", action="store_true", help="print one JSON object")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            if options["action"] == "create":
                self._create(options)
            elif options["action"] in ("check", "rekey"):
                self._ask(options)
            else:
                self._list(options)
        except RecoveryError as error:
            raise CommandError(error.message) from error

    def _create(self, options: dict[str, Any]) -> None:
        connection = connection_create(
            merchant=merchant_require(options["merchant"]),
            provider=options["provider"],
            config=_config(options["config"]),
            name=options["name"],
        )
        if options["json"]:
            self.stdout.write(json.dumps({"connection": connection.public_id}))
        else:
            self.stdout.write(f"Connection {connection.name} is {connection.public_id} ({connection.mode}).")

    def _ask(self, options: dict[str, Any]) -> None:
        merchant = merchant_require(options["merchant"])
        connection = connection_require(merchant=merchant, public_id=options["connection"])
        if options["action"] == "check":
            said = connection_check(connection)
        else:
            said = connection_rekey(connection=connection, secrets=_config(options["config"]))
        shown = {"connection": options["connection"], "answer": said}
        self.stdout.write(json.dumps(shown) if options["json"] else said)

    def _list(self, options: dict[str, Any]) -> None:
        merchant = merchant_require(options["merchant"])
        rows = [
            {
                "connection": row.public_id,
                "provider": row.provider,
                "name": row.name,
                "mode": row.mode,
                "enabled": row.enabled,
                "paused_reason": row.paused_reason,
            }
            for row in Connection.objects.filter(merchant=merchant).order_by("id")
        ]
        if options["json"]:
            self.stdout.write(json.dumps({"connections": rows}))
            return
        for shown in rows:
            state = "enabled" if shown["enabled"] else "disabled"
            self.stdout.write(f"{shown['connection']}  {shown['name']}  {shown['mode']}, {state}")


def _config(text: str) -> dict[str, Any]:
    """The JSON object, or a CommandError that does not repeat the text: it may hold a key."""
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise CommandError('--config must be a JSON object such as {"api_key": "...", "base_url": "https://..."}.')
    return value
