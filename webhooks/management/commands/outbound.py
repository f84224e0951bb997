"""`outbound ...`: a merchant's own webhook endpoints, what was sent to them, and sending it again."""

from argparse import ArgumentParser
from collections.abc import Callable, Mapping
from typing import Any

from django.core.management.base import CommandError

from accounts.services import merchant_require
from invoices.services.ledger import Stamp
from recovery_site.common.commands import RecoveryCommand, instant
from recovery_site.common.durations import parse_duration
from webhooks.models import Delivery, OutboundEndpoint
from webhooks.outbound import selectors
from webhooks.outbound.deliveries import deliveries_recover, deliveries_replay_all, delivery_replay
from webhooks.outbound.endpoints import (
    NewSecret,
    outbound_endpoint_create,
    outbound_endpoint_rotate,
    outbound_endpoint_switch,
)
from webhooks.states import DeliveryStatus

Options = Mapping[str, Any]
_ACTIONS = ("create", "list", "rotate", "enable", "disable", "deliveries", "log", "replay", "recover")


class Command(RecoveryCommand):
    help = "Webhooks out: endpoints, deliveries with their log, replay. docs/webhooks_out.md has examples."

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        self.add_at(parser)
        parser.add_argument("action", choices=_ACTIONS)
        parser.add_argument("--merchant", metavar="NAME", help="create: whose; list, deliveries, replay: only theirs")
        parser.add_argument("--url", help="create: where to send to")
        parser.add_argument("--description", default="", help="create: a name for people")
        parser.add_argument(
            "--type", action="append", default=[], help="create: only these event types; deliveries, replay: of one"
        )
        parser.add_argument("--id", help="an endpoint (hook_...); log, replay: a delivery (dlv_...)")
        parser.add_argument("--endpoint", metavar="ID", help="deliveries, replay, recover: of this endpoint (hook_...)")
        parser.add_argument("--dead", action="store_true", help="deliveries, replay: those that were given up")
        parser.add_argument("--since", type=instant, help="recover: events recorded since then")
        parser.add_argument("--overlap", default="24h", help="rotate: how long the old secret signs too (default: 24h)")
        parser.add_argument("--reason", default="by an operator", help="disable: shown to people")
        parser.add_argument("--limit", type=int, default=50, help="deliveries: at most so many (default: 50)")

    def run(self, **options: Any) -> Options:
        actions: Mapping[str, Callable[[Options], Options]] = {
            "create": self._create,
            "list": self._list,
            "rotate": self._rotate,
            "enable": self._switch,
            "disable": self._switch,
            "deliveries": self._deliveries,
            "log": self._log,
            "replay": self._replay,
            "recover": self._recover,
        }
        return actions[options["action"]](options)

    # --- endpoints ------------------------------------------------------------------------------------------------

    def _create(self, options: Options) -> Options:
        if not options["merchant"] or not options["url"]:
            raise CommandError("outbound create needs --merchant and --url.")
        new = outbound_endpoint_create(
            merchant=merchant_require(options["merchant"]),
            url=options["url"],
            event_types=options["type"],
            description=options["description"],
        )
        return _with_secret(new)

    def _list(self, options: Options) -> Options:
        found = OutboundEndpoint.objects.select_related("merchant").order_by("-pk")
        if options["merchant"]:
            found = found.filter(merchant=merchant_require(options["merchant"]))
        return {"endpoints": [_endpoint(endpoint) for endpoint in found[: options["limit"]]]}

    def _rotate(self, options: Options) -> Options:
        endpoint = self._endpoint(options, "id")
        try:
            overlap = parse_duration(options["overlap"], name="--overlap")
        except ValueError as error:
            raise CommandError(str(error)) from error
        return _with_secret(outbound_endpoint_rotate(endpoint_pk=endpoint.pk, now=self.now(options), overlap=overlap))

    def _switch(self, options: Options) -> Options:
        endpoint = outbound_endpoint_switch(
            endpoint_pk=self._endpoint(options, "id").pk,
            enabled=options["action"] == "enable",
            reason=options["reason"],
            now=self.now(options),
        )
        return _endpoint(endpoint)

    def _endpoint(self, options: Options, name: str) -> OutboundEndpoint:
        if not options[name]:
            raise CommandError(f"outbound {options['action']} needs --{name}, an endpoint's id (hook_...).")
        return selectors.outbound_endpoint_require(options[name])

    # --- deliveries -----------------------------------------------------------------------------------------------

    def _deliveries(self, options: Options) -> Options:
        return {"deliveries": [_delivery(one) for one in self._found(options)[: options["limit"]]]}

    def _found(self, options: Options) -> Any:
        if len(options["type"]) > 1:
            raise CommandError("Give one --type at a time.")
        return selectors.deliveries(
            merchant=merchant_require(options["merchant"]) if options["merchant"] else None,
            endpoint=selectors.outbound_endpoint_require(options["endpoint"]) if options["endpoint"] else None,
            statuses=[DeliveryStatus.DEAD] if options["dead"] else (),
            event_type="".join(options["type"]),
        )

    def _log(self, options: Options) -> Options:
        delivery = selectors.delivery_require(options["id"] or "")
        tries = [
            {
                "at": one.at.isoformat(),
                "status_code": one.status_code,
                "duration_ms": one.duration_ms,
                "error": one.error,
                "answer": one.answer,
            }
            for one in selectors.delivery_log(delivery)
        ]
        return {**_delivery(delivery), "log": tries}

    def _replay(self, options: Options) -> Options:
        stamp = Stamp(actor="operator", cause="outbound replay", now=self.now(options))
        if bool(options["id"]) == bool(options["dead"] or options["type"] or options["endpoint"]):
            raise CommandError("Say what to replay: --id DELIVERY, or --dead, --type and/or --endpoint.")
        if options["id"]:
            delivery_replay(delivery_pk=selectors.delivery_require(options["id"]).pk, stamp=stamp)
            return {"replayed": 1}
        return {"replayed": len(deliveries_replay_all(deliveries=self._found(options), stamp=stamp))}

    def _recover(self, options: Options) -> Options:
        endpoint = self._endpoint(options, "endpoint")
        if options["since"] is None:
            raise CommandError("outbound recover needs --since, such as 2026-03-01T00:00:00Z.")
        return {"made": deliveries_recover(endpoint=endpoint, since=options["since"])}

    # --- for people -----------------------------------------------------------------------------------------------

    def human(self, result: Options) -> str:
        for name in ("endpoints", "deliveries"):
            if name in result:
                return "\n".join(_line(item) for item in result[name]) or f"No such {name}."
        if "log" in result:
            return "\n".join([_line({**result, "log": ""}), *(_line(one) for one in result["log"])])
        return super().human(result)


def _with_secret(new: NewSecret) -> Options:
    return {"id": new.endpoint.public_id, "url": new.endpoint.url, "secret": new.secret}


def _endpoint(endpoint: OutboundEndpoint) -> Options:
    return {
        "id": endpoint.public_id,
        "merchant": endpoint.merchant.name,
        "url": endpoint.url,
        "description": endpoint.description,
        "event_types": endpoint.event_types,
        "enabled": endpoint.enabled,
        "disabled_reason": endpoint.disabled_reason,
        "failures": endpoint.failures,
        "failing_since": endpoint.failing_since.isoformat() if endpoint.failing_since else None,
    }


def _delivery(delivery: Delivery) -> Options:
    return {
        "id": delivery.public_id,
        "endpoint": delivery.endpoint.public_id,
        "event": delivery.message_id,
        "type": delivery.event_type,
        "status": str(delivery.status),
        "tries": delivery.tries,
        "due_at": delivery.due_at.isoformat(),
        "last_status": delivery.last_status,
        "last_error": delivery.last_error,
    }


def _line(item: Options) -> str:
    return "  ".join(str(value) for value in item.values() if value not in (None, "", []))
