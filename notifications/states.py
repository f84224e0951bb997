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


class MessageStatus(models.TextChoices):
    """A message's whole life: what was planned, what became of it, and what the customer's mail system said."""

    PLANNED = "PLANNED", "Planned"
    SENDING = "SENDING", "Being sent"
    SENT = "SENT", "Sent"
    DELIVERED = "DELIVERED", "Delivered"
    BOUNCED = "BOUNCED", "Bounced"
    UNCONFIRMED = "UNCONFIRMED", "Perhaps sent"
    HANDED_OVER = "HANDED_OVER", "Left to others"
    SUPPRESSED = "SUPPRESSED", "Held back"
    CANCELED = "CANCELED", "Not needed"
    FAILED = "FAILED", "Given up"


class SuppressionReason(models.TextChoices):
    """Why an address gets no mail any more."""

    OPT_OUT = "opt_out", "Unsubscribed"
    BOUNCE = "bounce", "Mail bounced"
    COMPLAINT = "complaint", "Marked as spam"


class Sender(models.TextChoices):
    """Who writes to a merchant's customers."""

    OURS = "ours", "This service sends the messages"
    MERCHANT = "merchant", "We send them ourselves, told by webhook (user_notification)"


class LinkPurpose(models.TextChoices):
    """What a payer may do behind a link."""

    PAY = "pay", "Pay an invoice"
    CARD = "card", "Change the payment method"


# The mail has left, as far as anybody knows; only such messages count for the frequency cap.
MESSAGE_OUT = (MessageStatus.SENT, MessageStatus.DELIVERED, MessageStatus.BOUNCED, MessageStatus.UNCONFIRMED)

MESSAGE_MOVES = (
    Move("send", (MessageStatus.PLANNED,), MessageStatus.SENDING),
    Move("succeed", (MessageStatus.SENDING,), MessageStatus.SENT),
    # Provably unsent: everything is asked again before the next try.
    Move("retry_later", (MessageStatus.SENDING,), MessageStatus.PLANNED),
    Move("fail", (MessageStatus.SENDING,), MessageStatus.FAILED),
    # Nobody knows whether it went out. It is never sent again: a mail cannot be taken back.
    Move("lose_track", (MessageStatus.SENDING,), MessageStatus.UNCONFIRMED),
    Move("hand_over", (MessageStatus.PLANNED,), MessageStatus.HANDED_OVER),
    Move("suppress", (MessageStatus.PLANNED,), MessageStatus.SUPPRESSED),
    Move("cancel", (MessageStatus.PLANNED,), MessageStatus.CANCELED),
    Move("deliver", (MessageStatus.SENT, MessageStatus.UNCONFIRMED), MessageStatus.DELIVERED),
    Move(
        "bounce",
        (MessageStatus.SENDING, MessageStatus.SENT, MessageStatus.DELIVERED, MessageStatus.UNCONFIRMED),
        MessageStatus.BOUNCED,
    ),
)

DELIVERY_MOVES = (
    Move("deliver", (DeliveryStatus.PENDING,), DeliveryStatus.SENT),
    Move("give_up", (DeliveryStatus.PENDING,), DeliveryStatus.FAILED),
)
