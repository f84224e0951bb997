"""States and legal moves of what is sent to people."""

from django.db import models

from recovery_site.common.states import Move


class DeliveryStatus(models.TextChoices):
    """One alert on its way to one place."""

    PENDING = "PENDING", "Waiting to be sent"
    SENT = "SENT", "Sent"
    FAILED = "FAILED", "Given up"


class AlertChannel(models.TextChoices):
    MAIL = "mail", "Mail"
    SLACK = "slack", "Slack-compatible webhook"


DELIVERY_MOVES = (
    Move("deliver", (DeliveryStatus.PENDING,), DeliveryStatus.SENT),
    Move("give_up", (DeliveryStatus.PENDING,), DeliveryStatus.FAILED),
)
