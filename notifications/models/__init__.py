"""What is told to whom: messages to customers, alerts for staff."""

from notifications.models.alerts import Alert, AlertDelivery, AlertRoute
from notifications.models.attribution import CaseAttribution
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
    "CaseAttribution",
    "Message",
    "MessageSettings",
    "MessageTemplate",
    "PaymentLink",
    "Suppression",
]
