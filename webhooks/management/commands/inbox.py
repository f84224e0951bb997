"""`inbox list` and `inbox replay`: look into the inbox, and run items again."""

from argparse import ArgumentParser
from collections.abc import Mapping
from typing import Any

from django.core.management.base import CommandError
from django.db.models import QuerySet

from accounts.services import merchant_require
from invoices.services.ledger import Stamp
from recovery_site.common.commands import RecoveryCommand
from recovery_site.common.errors import Conflict
from webhooks.models import InboxEvent
from webhooks.selectors import inbox_events
from webhooks.services import inbox_replay, inbox_replay_all
from webhooks.states import InboxStatus


class Command(RecoveryCommand):
    help = "List inbound webhooks, or put finished ones back so that the worker (or process_inbox) runs them again."

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        self.add_at(parser)
        parser.add_argument("action", choices=["list", "replay"])
        parser.add_argument("--id", type=int, action="append", default=[], help="an item's number; may be repeated")
        parser.add_argument("--failed", action="store_true", help="items that FAILED")
        parser.add_argument("--type", default="", help="items of one event type, such as charge.failed")
        parser.add_argument("--status", choices=[str(status) for status in InboxStatus], help="list: only these")
        parser.add_argument("--merchant", metavar="NAME", help="only this merchant's (name or id)")
        parser.add_argument("--limit", type=int, default=50, help="list: at most so many, newest first (default: 50)")

    def run(self, **options: Any) -> Mapping[str, Any]:
        if options["limit"] < 1:
            raise CommandError("--limit must be at least 1.")
        return self._replay(options) if options["action"] == "replay" else self._list(options)

    def _list(self, options: Mapping[str, Any]) -> Mapping[str, Any]:
        if options["id"]:
            raise CommandError("inbox list takes --status, --type, --failed and --merchant; --id is for replay.")
        statuses = [InboxStatus.FAILED] if options["failed"] else [options["status"]] if options["status"] else []
        return {"items": [_shown(event) for event in self._found(options, statuses)[: options["limit"]]]}

    def _replay(self, options: Mapping[str, Any]) -> Mapping[str, Any]:
        if options["status"]:
            raise CommandError("inbox replay takes --id, --failed or --type; --status is for list.")
        if bool(options["id"]) == bool(options["failed"] or options["type"]):
            raise CommandError("Say what to replay: --id NUMBER, or --failed and/or --type TYPE.")
        stamp = Stamp(actor="operator", cause="inbox replay", now=self.now(options))
        if not options["id"]:
            found = self._found(options, [InboxStatus.FAILED] if options["failed"] else ())
            return {"replayed": inbox_replay_all(events=found, stamp=stamp), "already_waiting": []}
        replayed, waiting = [], []
        for pk in sorted(options["id"]):
            try:
                inbox_replay(event_pk=pk, stamp=stamp)
            except Conflict:
                waiting.append(pk)
            else:
                replayed.append(pk)
        return {"replayed": replayed, "already_waiting": waiting}

    def _found(self, options: Mapping[str, Any], statuses: Any) -> QuerySet[InboxEvent]:
        merchant = merchant_require(options["merchant"]) if options["merchant"] else None
        return inbox_events(merchant=merchant, statuses=statuses, event_type=options["type"])

    def human(self, result: Mapping[str, Any]) -> str:
        if "items" in result:
            return "\n".join(_line(item) for item in result["items"]) or "No such items."
        text = f"{len(result['replayed'])} put back; the worker runs them again (or manage.py process_inbox --once)."
        already = len(result["already_waiting"])
        return f"{text} {already} were waiting already." if already else text


def _shown(event: InboxEvent) -> dict[str, Any]:
    return {
        "id": event.pk,
        "merchant": event.merchant.name,
        "event": event.provider_event_id,
        "type": event.event_type,
        "about": event.order_key,
        "status": event.status,
        "reason": event.reason,
        "tries": event.attempts,
        "received_at": event.received_at.isoformat(),
        "processed_at": event.processed_at.isoformat() if event.processed_at else None,
    }


def _line(item: Mapping[str, Any]) -> str:
    received = item["received_at"][:19].replace("T", " ")
    return f"{item['id']:>8}  {received}  {item['status']:<9}  {item['type']:<32}  {item['event']}  {item['reason']}"
