from django.apps import AppConfig


class NotificationsConfig(AppConfig):
    name = "notifications"

    def ready(self) -> None:
        from invoices import outbox
        from notifications.services import alerts, attributing, planning

        outbox.register(alerts.CONSUMER)
        outbox.register(planning.CONSUMER)
        outbox.register(attributing.CONSUMER)
