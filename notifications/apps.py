from django.apps import AppConfig


class NotificationsConfig(AppConfig):
    name = "notifications"

    def ready(self) -> None:
        from invoices import outbox
        from notifications.services.alerts import CONSUMER

        outbox.register(CONSUMER)
