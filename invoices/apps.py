from django.apps import AppConfig


class InvoicesConfig(AppConfig):
    name = "invoices"

    def ready(self) -> None:
        from invoices import outbox
        from invoices.services.notes import CONSUMER

        outbox.register(CONSUMER)
