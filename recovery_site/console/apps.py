from django.apps import AppConfig


class ConsoleConfig(AppConfig):
    name = "recovery_site.console"
    label = "console"
    verbose_name = "Console"
