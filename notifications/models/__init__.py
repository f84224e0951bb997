"""What is told to whom: alerts for staff and where they go."""

from notifications.models.alerts import Alert, AlertDelivery, AlertRoute

__all__ = ["Alert", "AlertDelivery", "AlertRoute"]
