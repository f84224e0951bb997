"""Messages, their texts and settings, alerts and where they go."""

from notifications.admin import alerts, messages  # noqa: F401 - importing registers them
