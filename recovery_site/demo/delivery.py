"""What the billing systems of the demo send, and how: signed webhooks in the order of the demo's clock.

The simulator's customers appear with their first trouble. Most of them get a past here, one month that was paid as it
should be, so that they are somebody to the segments and to the people who look at them.
"""

import heapq
import json
import time
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Any

from standardwebhooks import Webhook

from providers.base import InboundRequest
from providers.simulator.population import STORY, Delivery, population
from recovery_site.demo.cast import Cast, Player

SEED = 2026
# Failing and paying customers per merchant and day, on average.
CASES_PER_DAY = 1.3
SUCCESSES_PER_DAY = 0.25
DAY = timedelta(days=1)
# How long before their first trouble customers paid, and which share of those who pay monthly did.
_MONTH = 30 * DAY
_KNOWN_SHARE = 0.6


def deliveries_of(
    cast: Cast, *, start: datetime, end: datetime, cases_per_day: float = CASES_PER_DAY
) -> Iterator[Delivery]:
    """Everything from `start` to before `end`, in order and made while it is read. The same for every start, so that
    history and future join without a seam."""
    first = max(cast.since, start - STORY)
    told = population(
        seed=SEED,
        merchants=list(cast.players),
        start=first,
        days=(end - first) // DAY + 1 + _MONTH // DAY,
        cases_per_day=cases_per_day,
        successes_per_day=cases_per_day * SUCCESSES_PER_DAY / CASES_PER_DAY,
        since=cast.since,
    )
    for delivery in _with_past(told, cast.since):
        if delivery.at >= end:
            return
        if delivery.at >= start:
            yield delivery


def signed(delivery: Delivery, player: Player) -> InboundRequest:
    """The delivery as a request, signed now: signatures live on the real clock."""
    body = json.dumps(delivery.body).encode()
    sent_at = datetime.fromtimestamp(int(time.time()), UTC)
    headers = {
        "content-type": "application/json",
        "webhook-id": delivery.event_id,
        "webhook-timestamp": str(int(sent_at.timestamp())),
        "webhook-signature": Webhook(player.secret).sign(delivery.event_id, sent_at, body.decode()),
    }
    return InboundRequest(body=body, headers=headers)


def _with_past(told: Iterable[Delivery], since: datetime) -> Iterator[Delivery]:
    """`told`, held back for a month, with the payments before first failures among it."""
    held: list[tuple[datetime, str, Delivery]] = []
    seen: set[str] = set()
    for delivery in told:
        kind, customer = str(delivery.body["type"]), str(delivery.body.get("customer", {}).get("id", ""))
        if kind == "payment.failed" and customer not in seen and _has_past(delivery, customer, since):
            past = _past(delivery)
            heapq.heappush(held, (past.at, past.event_id, past))
        if kind.startswith("payment.") and customer:
            seen.add(customer)
        heapq.heappush(held, (delivery.at, delivery.event_id, delivery))
        while held[0][0] < delivery.at - _MONTH:
            yield heapq.heappop(held)[2]
    while held:
        yield heapq.heappop(held)[2]


def _has_past(delivery: Delivery, customer: str, since: datetime) -> bool:
    monthly = delivery.body["invoice"]["interval"] == "month"
    return monthly and delivery.at - _MONTH > since and int(_hash(customer), 16) / 16**16 < _KNOWN_SHARE


def _past(failed: Delivery) -> Delivery:
    """The payment of the month before: same customer, plan and card, and it went through."""
    at = failed.at - _MONTH
    owed, tried = failed.body["invoice"], failed.body["payment"]
    name = _hash(str(owed["id"]))
    time_of_day = at.isoformat(timespec="seconds").replace("+00:00", "Z")
    invoice: Mapping[str, Any] = {
        **owed,
        "id": f"in_{name}",
        "number": f"{at:%Y%m}-{name[:6].upper()}",
        "description": f"{owed['plan']}, {at:%B %Y}",
        "amount_paid": owed["amount"],
        "status": "paid",
        "issued_at": time_of_day,
        "due_at": time_of_day,
    }
    body = {
        **{key: value for key, value in failed.body.items() if key != "error"},
        "type": "payment.succeeded",
        "occurred_at": time_of_day,
        "invoice": invoice,
        "payment": {**tried, "charge_id": f"ch_{name}", "invoice_id": invoice["id"]},
    }
    return Delivery(merchant=failed.merchant, at=at, event_id=f"evt_{name}", body=body)


def _hash(text: str) -> str:
    """16 hexadecimal digits that depend on the text only."""
    return blake2b(text.encode(), digest_size=8).hexdigest()
