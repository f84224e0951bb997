from django.db import models

from recovery_site.common.states import Move


class InboxStatus(models.TextChoices):
    RECEIVED = "RECEIVED", "Received"
    PROCESSED = "PROCESSED", "Processed"
    IGNORED = "IGNORED", "Ignored"
    FAILED = "FAILED", "Failed"


INBOX_MOVES = (
    Move("process", (InboxStatus.RECEIVED,), InboxStatus.PROCESSED),
    Move("ignore", (InboxStatus.RECEIVED,), InboxStatus.IGNORED),
    Move("fail", (InboxStatus.RECEIVED,), InboxStatus.FAILED),
    Move("replay", (InboxStatus.PROCESSED, InboxStatus.IGNORED, InboxStatus.FAILED), InboxStatus.RECEIVED),
)


class DeliveryStatus(models.TextChoices):
    PENDING = "PENDING", "Pending"
    DELIVERED = "DELIVERED", "Delivered"
    DEAD = "DEAD", "Given up"


DELIVERY_MOVES = (
    Move("deliver", (DeliveryStatus.PENDING,), DeliveryStatus.DELIVERED),
    Move("give_up", (DeliveryStatus.PENDING,), DeliveryStatus.DEAD),
    Move("replay", (DeliveryStatus.DELIVERED, DeliveryStatus.DEAD), DeliveryStatus.PENDING),
)
