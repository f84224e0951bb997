from django.apps import AppConfig


class RecoverySiteConfig(AppConfig):
    name = "recovery_site"
    label = "recovery_site"
    verbose_name = "Revenue recovery"

    def ready(self) -> None:
        from recovery_site import checks  # noqa: F401 - importing registers the checks
