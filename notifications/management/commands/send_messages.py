"""`send_messages --once`: one sweep over what is due to people, as the worker does it."""

from argparse import ArgumentParser
from collections.abc import Mapping
from typing import Any

from invoices.services.outbox import outbox_drain
from notifications.services.alert_delivery import alert_deliveries_drain
from notifications.services.notes import notes_plan
from notifications.services.work import messages_drain
from recovery_site.common.commands import RecoveryCommand


class Command(RecoveryCommand):
    help = "Plan, decide and send messages to customers and alerts to staff that are due."

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        self.add_at(parser)
        parser.add_argument("--once", action="store_true", help="drain everything due and end (the only way there is)")

    def run(self, **options: Any) -> Mapping[str, Any]:
        now = self.now(options)
        events = outbox_drain(now=now, limit=1_000_000)
        return {
            "events": events.done,
            "notes": notes_plan(now=now),
            "messages": messages_drain(now=now, limit=1_000_000),
            "alerts": alert_deliveries_drain(now=now, limit=1_000_000).as_dict(),
        }
