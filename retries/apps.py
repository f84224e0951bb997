from importlib import import_module

from django.apps import AppConfig
from django.conf import settings


class RetriesConfig(AppConfig):
    name = "retries"

    def ready(self) -> None:
        self.load_strategies()
        from retries.services.slots import slot_unlock, slots_now
        from tokens.mirror import SlotKeeper, slot_keeper_register

        slot_keeper_register(SlotKeeper(holders=slots_now, unlock=slot_unlock))

    def load_strategies(self) -> None:
        """Let the modules of RETRY_STRATEGY_MODULES register theirs."""
        for module in settings.RETRY_STRATEGY_MODULES:
            import_module(module)
