"""`send_webhooks --once --json`: send the outbound webhooks that are due."""

from argparse import ArgumentParser
from collections.abc import Mapping
from typing import Any

from invoices.services.outbox import outbox_drain
from recovery_site.common.commands import RecoveryCommand
from webhooks.outbound.sending import DeliveryCounts, deliveries_drain


class Command(RecoveryCommand):
    help = "Hand recorded events to their consumers, then send every outbound webhook that is due."

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        self.add_at(parser)
        parser.add_argument("--once", action="store_true", help="send what is due, then stop (the only way to run it)")

    def run(self, **options: Any) -> Mapping[str, Any]:
        now, counts = self.now(options), DeliveryCounts()
        while outbox_drain(now=now).total:
            pass
        while (sent := deliveries_drain(now=now)).total:
            counts.delivered += sent.delivered
            counts.retried += sent.retried
            counts.dead += sent.dead
        return counts.as_dict()
