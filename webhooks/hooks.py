"""Python functions that hear of events in this process: `@on("retry_success")`.

A module with hooks is named in the setting EVENT_HOOKS and imported at the start. The functions run in the worker, each
a consumer of the outbox of its own: after the transaction that wrote the event, at least once, with no transaction
open, and tried again with back-off when they raise. So a hook must bear being called twice with the same `event.id`.

    from webhooks.hooks import PublicEvent, on

    @on("retry_exhausted")
    def open_ticket(event: PublicEvent) -> None:
        ticket(event.data["invoice"]["number"], event.data["message"])
"""

from collections.abc import Callable
from importlib import import_module

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from invoices import outbox
from invoices.models import Event, OutboxMessage
from invoices.outbox import Consumer
from recovery_site.common.errors import InvalidInput
from webhooks.outbound.catalogue import EventType, kinds_of, public_type
from webhooks.outbound.messages import PublicEvent, public_event

__all__ = ["Hook", "PublicEvent", "hooks_load", "on"]
Hook = Callable[[PublicEvent], None]


def on(event_type: str) -> Callable[[Hook], Hook]:
    """Register a function for one event type; used as a decorator.

    Its consumer is named after the function, so that what waits for it survives a restart and a move to another module.
    Raises InvalidInput for a type that is none, and for a name that does not fit or that another hook has.
    """
    if event_type not in EventType.values:
        raise InvalidInput(f"There is no event type {event_type!r}; there are {', '.join(EventType.values)}.")
    wanted = EventType(event_type)

    def register(hook: Hook) -> Hook:
        name = f"hook:{hook.__name__}"
        limit = OutboxMessage._meta.get_field("consumer").max_length or 0
        if len(name) > limit:
            raise InvalidInput(f"{name} is longer than {limit} characters; give the hook a shorter name.")
        if outbox.consumer(name) is not None:
            raise InvalidInput(f"There is a {name} already; a hook hears of one type and has a name of its own.")

        def handle(event: Event) -> None:
            if public_type(event) is wanted and (told := public_event(event)):
                hook(told)

        outbox.register(Consumer(name=name, wants=kinds_of(wanted).__contains__, handle=handle))
        return hook

    return register


def hooks_load() -> None:
    """Import the modules that EVENT_HOOKS names. Raises ImproperlyConfigured for one that cannot be."""
    for name in settings.EVENT_HOOKS:
        try:
            import_module(name)
        except (ImportError, InvalidInput) as error:
            raise ImproperlyConfigured(f"EVENT_HOOKS names {name!r}, which cannot be loaded: {error}") from error
