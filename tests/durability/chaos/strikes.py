"""The moments at which a process is killed or stopped, and the provider whose look-up proves nothing."""

import importlib
import itertools
import os
import signal
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from providers.base import ClientTraits, Lookup
from providers.sandbox.client import SandboxClient
from retries.engine import drain

# Each point is just after one of these functions has returned something.
POINTS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "claimed": (("retries.engine.drain", "jobs_claim"),),
    "prepared": (("retries.engine.drain", "attempt_prepare"), ("retries.engine.drain", "refund_prepare")),
    "sent": (("retries.engine.drain", "charge_send"), ("retries.engine.drain", "refund_send")),
    "recorded": (
        ("retries.engine.drain", "charge_record"),
        ("retries.engine.drain", "refund_answer"),
        ("retries.reconciliation.resolution", "answer_apply"),
    ),
    "looked_up": (("retries.reconciliation.resolution", "_look_up"), ("retries.refunding.resolve", "_look_up")),
    "answered": (("providers.sandbox.client", "_refused"),),
    "handled": (("webhooks.services", "event_handle"),),
}
THREADS = 3


def arm(*, die: list[Any] | None, stop: list[Any] | None, hazy: bool) -> None:
    """Patch this process: SIGKILL or SIGSTOP to itself at the n-th passing of a point."""
    # A stopped process must hold no lock, so it works alone.
    drain.THREADS = 1 if stop else THREADS
    if die:
        _strike(die[0], die[1], signal.SIGKILL)
    if stop:
        _strike(stop[0], stop[1], signal.SIGSTOP)
    if hazy:
        make_hazy(setattr)


def _strike(point: str, number: int, with_signal: int) -> None:
    passings = itertools.count(1)
    for module_name, name in POINTS[point]:
        module = importlib.import_module(module_name)
        setattr(module, name, _struck(getattr(module, name), passings, number, with_signal))


def _struck(
    function: Callable[..., Any], passings: "itertools.count[int]", number: int, with_signal: int
) -> Callable[..., Any]:
    def struck(*args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        if result and next(passings) == number:
            os.kill(os.getpid(), with_signal)
        return result

    return struck


def make_hazy(patch: Callable[[Any, str, Any], None]) -> None:
    """A client as of a provider whose search lags behind: what it does not find may still be there."""
    start = SandboxClient.__init__

    def hazy_start(self: SandboxClient, config: Mapping[str, Any]) -> None:
        start(self, config)
        self.traits = ClientTraits(
            key_ttl=timedelta(hours=24),
            lookup=Lookup.EVENTUAL,
            settles=self.traits.settles,
            timeout_seconds=self.traits.timeout_seconds,
        )

    patch(SandboxClient, "__init__", hazy_start)
    patch(SandboxClient, "charge_find", lambda self, reference: None)
    patch(SandboxClient, "refund_find", lambda self, reference: None)
