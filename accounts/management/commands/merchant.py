"""`manage.py merchant create NAME` and `merchant list`."""

import json
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from accounts.models import Merchant
from accounts.services import merchant_create
from recovery_site.common.errors import RecoveryError


class Command(BaseCommand):
    help = "Create a merchant (tenant) with its first API key, or list the merchants there are."

    def add_arguments(self, parser: ArgumentParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True)
        create = actions.add_parser("create", help="create a merchant; its API key is shown this once")
        create.add_argument("name", metavar="NAME")
        create.add_argument("--timezone", default="UTC", help="IANA name, for example Europe/Paris (default UTC)")
        create.add_argument("--json", action="store_true", help="print one JSON object")
        listing = actions.add_parser("list", help="list all merchants")
        listing.add_argument("--json", action="store_true", help="print one JSON object")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["action"] == "create":
            self._create(options)
        else:
            self._list(options)

    def _create(self, options: dict[str, Any]) -> None:
        try:
            new = merchant_create(name=options["name"], timezone=options["timezone"])
        except RecoveryError as error:
            raise CommandError(error.message) from error
        if options["json"]:
            self.stdout.write(json.dumps({"merchant": new.merchant.public_id, "api_key": new.api_key.text}))
            return
        self.stdout.write(f"Merchant {new.merchant.name} is {new.merchant.public_id}.")
        self.stdout.write(f"API key, shown only now: {new.api_key.text}")

    def _list(self, options: dict[str, Any]) -> None:
        merchants = list(Merchant.objects.order_by("name"))
        if options["json"]:
            rows = [
                {"merchant": row.public_id, "name": row.name, "charging": row.charging_enabled} for row in merchants
            ]
            self.stdout.write(json.dumps({"merchants": rows}))
            return
        for row in merchants:
            self.stdout.write(f"{row.public_id}  {row.name}{'' if row.charging_enabled else '  (charging off)'}")
