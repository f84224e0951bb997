from django.apps import AppConfig


class RetriesConfig(AppConfig):
    name = "retries"

    def ready(self) -> None:
        from retries.services.slots import slot_now, slot_unlock
        from tokens.mirror import SlotKeeper, slot_keeper_register

        slot_keeper_register(SlotKeeper(holder=slot_now, unlock=slot_unlock))
