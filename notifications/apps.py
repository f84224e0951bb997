from django.apps import AppConfig


class NotificationsConfig(AppConfig):
    name = "notifications"

    def ready(self) -> None:
        from invoices import outbox
        from notifications.services import alerts, planning

        outbox.register(alerts.CONSUMER)
        outbox.register(planning.CONSUMER)
