"""Inside a worker process of the harness: the places where it may be struck, and its guards, which can be switched off.

Nothing of this exists in the service: the functions are wrapped in the process that the harness has forked.
"""

import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from django.db.transaction import Atomic

from providers.base import ChargeResult, Lookup, Outcome, ProviderUncertain
from providers.sandbox.client import SandboxClient
from retries.engine import drain, prepare, send
from retries.handler import payments, resolve
from retries.models import RetryJob
from retries.reconciliation import resolution
from retries.refunding import resolve as refund_resolution
from retries.refunding import send as refund_sending
from webhooks.services import draining as inbox

SIGNALS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP, "sleep": signal.SIGSTOP}


def _wrap(module: Any, name: str, wrapper: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    setattr(module, name, wrapper(getattr(module, name)))


class Blow:
    """Strikes this process when it comes to the place for the nth time, whatever thread it is."""

    def __init__(self, place: str, nth: int, blow: str) -> None:
        self.place, self.left, self.number = place, nth, SIGNALS[blow]
        self.lock = threading.Lock()

    def at(self, place: str) -> None:
        if place != self.place:
            return
        with self.lock:
            self.left -= 1
            struck = self.left == 0
        if struck:
            os.kill(os.getpid(), self.number)
            # A process is stopped as soon as any of its threads sees the signal: until then this one must not go on.
            time.sleep(0.3)

    def before(self, place: str, module: Any, name: str) -> None:
        def wrapper(original: Callable[..., Any]) -> Callable[..., Any]:
            def wrapped(*given: Any, **known: Any) -> Any:
                self.at(place)
                return original(*given, **known)

            return wrapped

        _wrap(module, name, wrapper)

    def after(self, place: str, module: Any, name: str) -> None:
        def wrapper(original: Callable[..., Any]) -> Callable[..., Any]:
            def wrapped(*given: Any, **known: Any) -> Any:
                found = original(*given, **known)
                if found is not None and found != []:
                    self.at(place)
                return found

            return wrapped

        _wrap(module, name, wrapper)


def place_blow(place: str, nth: int, blow: str) -> None:
    """Arm the places of the charge protocol and of its neighbours."""
    one = Blow(place, nth, blow)
    one.after("claimed", drain, "jobs_claim")
    one.before("checked", prepare, "_commit")
    one.before("checked", refund_sending, "attempt_start")
    for name in ("charge_send", "refund_send"):
        one.before("written", drain, name)
        one.after("sent", drain, name)
    _after_the_write(one, send, "answer_apply")
    _after_the_write(one, refund_sending, "_apply")
    for name in ("charge_record", "charges_record", "refund_answer"):
        one.after("recorded", drain, name)
    one.after("handling", inbox, "event_apply")
    one.after("handled", inbox, "_step")
    for module in (resolution, refund_resolution):
        _after_look_up(one, module)
    one.before("resending", resolution, "charge_send")
    one.before("resending", refund_resolution, "refund_send")


def _after_the_write(one: Blow, module: Any, name: str) -> None:
    """Everything is written, nothing is committed: while a reply is recorded, or a look-up adopted."""

    def wrapper(original: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*given: Any, **known: Any) -> Any:
            found = original(*given, **known)
            one.at("recording")
            return found

        return wrapped

    _wrap(module, name, wrapper)
    if module is send:

        def adopting(original: Callable[..., Any]) -> Callable[..., Any]:
            def wrapped(*given: Any, **known: Any) -> Any:
                found = original(*given, **known)
                one.at("adopting")
                return found

            return wrapped

        _wrap(resolution, name, adopting)


def _after_look_up(one: Blow, module: Any) -> None:
    def wrapper(original: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*given: Any, **known: Any) -> Any:
            found = original(*given, **known)
            one.at("looked_up")
            return found

        return wrapped

    _wrap(module, "_look_up", wrapper)


# --- providers of other kinds -------------------------------------------------------------------------------------


def answer_look_ups(how: str) -> None:
    """The sandbox can say for sure what it has; here it may not be asked, or shows a charge only after a while."""
    if how == "authoritative":
        return
    kind = Lookup(how)

    def made(original: Callable[..., Any]) -> Callable[..., Any]:
        def init(self: SandboxClient, config: Any) -> None:
            original(self, config)
            self.traits = replace(self.traits, lookup=kind)

        return init

    _wrap(SandboxClient, "__init__", made)
    if kind is Lookup.NONE:
        return

    def late(original: Callable[..., Any]) -> Callable[..., Any]:
        def find(self: SandboxClient, reference: str) -> ChargeResult | None:
            found: ChargeResult | None = original(self, reference)
            if found is None or found.created_at is None:
                return found
            young = datetime.now(UTC) - found.created_at < timedelta(seconds=2)
            return None if young else found

        return find

    for name in ("charge_find", "refund_find"):
        _wrap(SandboxClient, name, late)


# --- guards -------------------------------------------------------------------------------------------------------


def _no_claim_token() -> None:
    """Step 2 takes any claim for the one that holds, as if it did not compare."""
    ask = prepare._ask

    def trusting(claim: Any, stamp: Any) -> Any:
        held = RetryJob.objects.filter(pk=claim.job_pk, status__in=("SCHEDULED", "RUNNING"))
        held.update(status="RUNNING", claim_token=claim.token, attempt=None)
        return ask(claim, stamp)

    prepare._ask = trusting


def _no_send_by() -> None:
    """A worker sends whatever it has written down, however long ago."""
    for module in (send, refund_sending):
        module.may_send = lambda attempt_pk, **known: True


def _new_key_each_time() -> None:
    """Each sending has an idempotency key of its own."""

    def wrapper(original: Callable[..., Any]) -> Callable[..., Any]:
        def called(self: SandboxClient, request: Any) -> Any:
            return original(self, replace(request, idempotency_key=uuid4().hex))

        return called

    for name in ("charge", "refund"):
        _wrap(SandboxClient, name, wrapper)


def _unknown_is_failed() -> None:
    """No answer is taken for a network error, and tried again."""

    def wrapper(original: Callable[..., Any]) -> Callable[..., Any]:
        def sent(*given: Any, **known: Any) -> Any:
            answer = original(*given, **known)
            if isinstance(answer, ProviderUncertain):
                return ChargeResult(outcome=Outcome.ERRORED, error_code="network_error")
            return answer

        return sent

    _wrap(drain, "charge_send", wrapper)


def _charge_first() -> None:
    """The provider is called inside the transaction that writes the attempt down: a crash forgets both."""
    attempt = drain._attempt

    def all_in_one(*given: Any, **known: Any) -> Any:
        whole = Atomic(None, savepoint=True, durable=False)
        whole._from_testcase = True  # type: ignore[attr-defined]  (lets the durable blocks inside pass)
        with whole:
            return attempt(*given, **known)

    drain._attempt = all_in_one
    drain._is_only_sent = lambda claim, owner, now: False


def _events_are_all_new() -> None:
    """A report about a charge is never held against the attempts that are known."""
    payments.try_known = lambda invoice, attempt_pk, event: None  # type: ignore[assignment]
    resolve.attempt_find = lambda event, connection: None  # type: ignore[assignment]


GUARDS: dict[str, Callable[[], None]] = {
    "claim token": _no_claim_token,
    "send by": _no_send_by,
    "one key per attempt": _new_key_each_time,
    "unknown is not failed": _unknown_is_failed,
    "written down before it is sent": _charge_first,
    "one charge is one attempt": _events_are_all_new,
}
