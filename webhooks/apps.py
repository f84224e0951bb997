from django.apps import AppConfig


class WebhooksConfig(AppConfig):
    name = "webhooks"

    def ready(self) -> None:
        from invoices import outbox
        from webhooks import hooks
        from webhooks.outbound import deliveries

        outbox.register(deliveries.CONSUMER)
        hooks.hooks_load()
