"""Who hears of events. Consumers register in `AppConfig.ready`; one outbox row per (event, consumer)."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from invoices.models import Event


@dataclass(frozen=True, slots=True)
class Consumer:
    """`wants` picks event kinds; `handle` runs later, outside the writing transaction, at least once per event."""

    name: str
    wants: Callable[[str], bool]
    handle: Callable[[Event], None]


_consumers: dict[str, Consumer] = {}


def register(consumer: Consumer) -> None:
    """Add a consumer; registering the same name again replaces it."""
    _consumers[consumer.name] = consumer


def consumers() -> Iterable[Consumer]:
    return _consumers.values()


def consumer(name: str) -> Consumer | None:
    return _consumers.get(name)
