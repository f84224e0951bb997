"""What is told to whom: messages to customers, alerts for staff."""

from notifications.models.alerts import Alert, AlertDelivery, AlertRoute
from notifications.models.messages import (
    Message,
    MessageSettings,
    MessageTemplate,
    PaymentLink,
    Suppression,
)

__all__ = [
    "Alert",
    "AlertDelivery",
    "AlertRoute",
    "Message",
    "MessageSettings",
    "MessageTemplate",
    "PaymentLink",
    "Suppression",
]
