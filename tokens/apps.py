from django.apps import AppConfig


class TokensConfig(AppConfig):
    name = "tokens"

    def ready(self) -> None:
        from prometheus_client import REGISTRY

        from tokens import checks  # noqa: F401 - importing registers the checks
        from tokens.mirror.metrics import MirrorCollector

        REGISTRY.register(MirrorCollector())
