"""One road for everything a provider tells us: webhooks, polls, imports and API reports become the same ledger."""

from retries.handler.confirming import event_ask as event_ask
from retries.handler.confirming import must_ask as must_ask
from retries.handler.dispatch import Handled as Handled
from retries.handler.dispatch import event_apply as event_apply
from retries.handler.dispatch import event_handle as event_handle
from retries.handler.resolve import EventWaits as EventWaits
