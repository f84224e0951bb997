"""What a billing system sends: one signed webhook."""

import json
import time
from datetime import UTC, datetime

from standardwebhooks import Webhook

from providers.base import InboundRequest
from providers.simulator.population import Delivery
from recovery_site.demo.cast import Player

SEED = 20_26
# Failing and paying customers per merchant and day, on average.
CASES_PER_DAY = 3.0
SUCCESSES_PER_DAY = 1.5


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
