"""Decides what a call does, and moves money exactly once per Idempotency-Key."""

import threading
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

from providers.sandbox.server import answers
from providers.sandbox.server.answers import Answer, Delivery, Problem
from providers.sandbox.server.ledger import Entry, Ledger, LedgerError
from providers.sandbox.server.orders import ChargeOrder, RefundOrder, Settlement
from providers.sandbox.server.records import (
    DECLINED,
    FAILED,
    PENDING,
    SUCCEEDED,
    Charge,
    Event,
    Hook,
    Refund,
    timestamp,
)
from providers.sandbox.server.state import State
from providers.sandbox.server.steps import UNMOVED, Decline, Step, StepKind, parse_step
from providers.sandbox.server.tokens import parse_token

# How long a request waits for an identical one that is still at work.
TWIN_WAIT_SECONDS = 90.0


@dataclass(frozen=True, slots=True)
class _Choice:
    """The step a call takes; `counters` are the positions it uses up, `scripted` means a script chose it."""

    step: Step
    scripted: bool
    counters: tuple[str, ...]


@dataclass(slots=True)
class _Flight:
    fingerprint: str
    landed: threading.Event


class Engine:
    """Safe to call from many threads; what writes raises LedgerError if the ledger cannot be written."""

    def __init__(self, ledger: Ledger, *, key_ttl_seconds: float) -> None:
        self._ledger = ledger
        self._lock = threading.RLock()
        self._flights: dict[str, _Flight] = {}
        self._stopping = threading.Event()
        self.state = State(key_ttl=timedelta(seconds=key_ttl_seconds))
        self.on_event: Callable[[Event], None] = lambda event: None
        for entry in ledger.replay():
            self.state.advance(entry)
            self.state.publish(entry)

    def locked(self) -> threading.RLock:
        """For look-ups that read several things at one moment."""
        return self._lock

    def wake(self) -> None:
        """End all waiting: a slow answer comes at once, a late charge not at all."""
        self._stopping.set()

    def at_work(self) -> int:
        """How many charges and refunds have come and are not answered, late ones included."""
        with self._lock:
            return len(self._flights)

    def close(self) -> None:
        self._ledger.close(self._publish)

    def pause(self, seconds: float) -> None:
        if seconds > 0:
            self._stopping.wait(seconds)

    # Settings

    def set_script(self, token: str, steps: Sequence[str]) -> None:
        self._write({"type": "script", "token": token, "steps": list(steps)})

    def set_faults(self, seed: int | str, rates: dict[str, float]) -> None:
        self._write({"type": "faults", "seed": seed, "rates": rates})

    def set_hook(self, hook: Hook | None) -> None:
        self._write({"type": "webhook", "url": hook.url if hook else None, "secret": hook.secret if hook else None})

    def record_delivery(self, event_id: str, ok: bool) -> None:
        """Note that an event needs no further sending; not synced, as a lost note only sends it again."""
        with self._lock, suppress(LedgerError):
            self._record({"type": "delivered", "id": event_id, "ok": ok})

    # Money

    def charge(self, key: str, fingerprint: str, order: ChargeOrder) -> Answer:
        """Charge a token once for `key`."""

        def choose() -> _Choice:
            base = parse_token(order.token).base
            return self._choose(((order.token, order.token), (base, order.token)), order.token)

        return self._once(key, fingerprint, choose, lambda choice: self._charge_entry(key, order, choice))

    def refund(self, key: str, fingerprint: str, order: RefundOrder) -> Answer:
        """Send money back once for `key`; Problem if the charge is unknown, unpaid or has less left."""

        def choose() -> _Choice:
            charge = self._refundable_charge(order)
            own = f"refund:{order.charge}"
            return self._choose(((own, own), ("refund", "refund")), f"refund:{charge.token}")

        return self._once(key, fingerprint, choose, lambda choice: self._refund_entry(key, order, choice))

    def settle_charge(self, charge_id: str, end: Settlement) -> dict[str, Any]:
        """End a pending charge and return it as it then stands."""
        with self._lock:
            charge = self.state.charges.get(charge_id)
            if charge is None:
                raise Problem(404, "not_found", f"There is no charge {charge_id!r}.")
            self._demand_pending(charge.id, charge.status)
            codes = _decline_fields(end.decline)
            number = self._record({"type": "settle", "id": charge_id, "status": end.status, **codes, **self._event()})
        self._commit(number)
        with self._lock:
            return self.state.public_charge(self.state.charges[charge_id])

    def settle_refund(self, refund_id: str, end: Settlement) -> dict[str, Any]:
        """End a pending refund and return it; a failed one gives its amount back to the charge."""
        with self._lock:
            refund = self.state.refunds.get(refund_id)
            if refund is None:
                raise Problem(404, "not_found", f"There is no refund {refund_id!r}.")
            self._demand_pending(refund.id, refund.status)
            entry = {
                "type": "settle_refund",
                "id": refund_id,
                "charge": refund.charge,
                "amount": refund.amount,
            }
            failure = end.decline.code if end.decline else None
            number = self._record({**entry, "status": end.status, "failure_code": failure, **self._event()})
        self._commit(number)
        with self._lock:
            return self.state.refunds[refund_id].public()

    def _demand_pending(self, record_id: str, status: str) -> None:
        if status != PENDING or self.state.settled(record_id):
            raise Problem(
                409,
                "not_pending",
                f"{record_id} is not pending, so it cannot be settled.",
            )

    # Once per key

    def _once(
        self, key: str, fingerprint: str, choose: Callable[[], _Choice], move: Callable[[_Choice], Entry]
    ) -> Answer:
        while True:
            with self._lock:
                stored = self.state.stored_answer(key, self.state.clock.next())
                flight = self._flights.get(key)
                known = stored or flight
                if known is not None and known.fingerprint != fingerprint:
                    raise Problem(
                        422,
                        "idempotency_key_reused",
                        "This Idempotency-Key was used with another request; send a new key.",
                    )
                if stored is not None:
                    return answers.stored(stored)
                if flight is None:
                    flight = self._flights[key] = _Flight(fingerprint, threading.Event())
                    break
            if not flight.landed.wait(TWIN_WAIT_SECONDS):
                raise Problem(409, "in_progress", "The same request is still at work; send it again later.")
        try:
            return self._execute(key, fingerprint, choose, move)
        finally:
            with self._lock:
                del self._flights[key]
            flight.landed.set()

    def _execute(
        self, key: str, fingerprint: str, choose: Callable[[], _Choice], move: Callable[[_Choice], Entry]
    ) -> Answer:
        with self._lock:
            choice = choose()
            step = choice.step
            unmoved = step.kind in UNMOVED or step.kind is StepKind.LATE
            entry = {"type": "step", "step": step.kind.value, "counters": choice.counters} if unmoved else move(choice)
            if not unmoved or step.kind is StepKind.HTTP500_BEFORE:
                entry |= _stored(key, fingerprint, step)
            number = self._record(entry)
        self._commit(number)
        if step.kind is StepKind.LATE:
            self._move_late(key, fingerprint, choice, move)
        return self._answer(key, step)

    def _move_late(self, key: str, fingerprint: str, choice: _Choice, move: Callable[[_Choice], Entry]) -> None:
        self.pause(choice.step.seconds)
        if self._stopping.is_set():
            raise LedgerError("The sandbox is stopping; nothing was moved.")
        with self._lock:
            # The late step itself is used up already; what the token's name uses up is decided only now.
            used = _Choice(choice.step, choice.scripted, ())
            number = self._record(move(used) | _stored(key, fingerprint, choice.step))
        self._commit(number)

    def _answer(self, key: str, step: Step) -> Answer:
        if step.kind is StepKind.HTTP429:
            message = "Too many requests; wait as long as Retry-After says and send it again."
            return answers.error(429, "rate_limited", message, retry_after_seconds=int(step.seconds))
        if step.kind in (StepKind.TIMEOUT_BEFORE, StepKind.TIMEOUT_AFTER_CHARGE):
            return Answer(504, b"", delivery=Delivery.HOLD)
        if step.kind is StepKind.RESET_AFTER_CHARGE:
            return Answer(200, b"", delivery=Delivery.RESET)
        if step.kind is StepKind.MALFORMED:
            return Answer(200, b"<html><body>Thank you</body></html>", content_type="text/html")
        with self._lock:
            stored = self.state.stored_answer(key, self.state.clock.next())
        if stored is None:  # only with a key lifetime shorter than one request
            raise Problem(
                409,
                "key_expired",
                "The Idempotency-Key expired while the request was at work; look the result up.",
            )
        return answers.stored(stored, delay_seconds=step.seconds if step.kind is StepKind.SLOW else 0.0)

    # Which step, and what it comes to. All of these run under the lock.

    def _choose(self, scripts: Sequence[tuple[str, str]], lane: str) -> _Choice:
        """A script of one of these (name, position of its own) first, then a fault, else plain."""
        for name, position in scripts:
            if name in self.state.scripts:
                version, steps = self.state.scripts[name]
                counter = f"script:{version}:{position}"
                return _Choice(steps[min(self.state.counters[counter], len(steps) - 1)], True, (counter,))
        faults = self.state.faults
        if not faults.rates:
            return _Choice(Step(StepKind.OK), False, ())
        counter = f"fault:{faults.version}:{lane}"
        text = faults.draw(lane, self.state.counters[counter])
        return _Choice(parse_step(text) if text else Step(StepKind.OK), False, (counter,))

    def _outcome(self, choice: _Choice, token: str | None) -> tuple[str, Decline | None, tuple[str, ...]]:
        """Status, decline and counters used up. A script overrides the token's name, a fault does not."""
        if choice.step.kind is StepKind.PENDING:
            return PENDING, None, choice.counters
        if choice.step.kind is StepKind.DECLINE:
            return DECLINED, choice.step.decline, choice.counters
        if choice.scripted or token is None:
            return SUCCEEDED, None, choice.counters
        name = parse_token(token)
        if name.decline is None:
            return SUCCEEDED, None, choice.counters
        if name.times is None:
            return DECLINED, name.decline, choice.counters
        counter = f"name:{token}"
        if self.state.counters[counter] >= name.times:
            return SUCCEEDED, None, choice.counters
        return DECLINED, name.decline, (*choice.counters, counter)

    def _charge_entry(self, key: str, order: ChargeOrder, choice: _Choice) -> Entry:
        status, decline, counters = self._outcome(choice, order.token)
        at = timestamp(self.state.clock.next())
        charge = Charge(
            id=f"ch_{uuid.uuid4().hex}",
            idempotency_key=key,
            status=status,
            created_at=at,
            **asdict(order),
            **_decline_fields(decline),
        )
        return {"type": "charge", "at": at, "charge": asdict(charge), "counters": counters, **self._event()}

    def _refund_entry(self, key: str, order: RefundOrder, choice: _Choice) -> Entry:
        charge = self._refundable_charge(order)
        status, decline, counters = self._outcome(choice, None)
        at = timestamp(self.state.clock.next())
        refund = Refund(
            id=f"re_{uuid.uuid4().hex}",
            idempotency_key=key,
            status=FAILED if status == DECLINED else status,
            failure_code=decline.code if decline else None,
            currency=charge.currency,
            created_at=at,
            **asdict(order),
        )
        return {"type": "refund", "at": at, "refund": asdict(refund), "counters": counters, **self._event()}

    def _refundable_charge(self, order: RefundOrder) -> Charge:
        charge = self.state.charges.get(order.charge)
        if charge is None:
            raise Problem(404, "not_found", f"There is no charge {order.charge!r}; refund an existing one.")
        if charge.status != SUCCEEDED:
            raise Problem(
                422,
                "not_refundable",
                f"Charge {charge.id} is {charge.status}; only a succeeded charge can be refunded.",
            )
        left = self.state.refundable(charge)
        if order.amount > left:
            raise Problem(
                422,
                "refund_exceeds_charge",
                f"Charge {charge.id} has {left} minor units of {charge.currency} left; ask for no more.",
            )
        return charge

    def _event(self) -> Entry:
        return {"event": f"evt_{uuid.uuid4().hex}"} if self.state.hook else {}

    # The ledger

    def _record(self, entry: Entry) -> int:
        """Queue an entry under the lock, so that the file has the order of the decisions."""
        if "at" not in entry:
            entry["at"] = timestamp(self.state.clock.next())
        number = self._ledger.append(entry)
        self.state.advance(entry)
        return number

    def _write(self, entry: Entry) -> None:
        with self._lock:
            number = self._record(entry)
        self._commit(number)

    def _commit(self, number: int) -> None:
        self._ledger.commit(number, self._publish)

    def _publish(self, entries: Sequence[Entry]) -> None:
        with self._lock:
            events = [event for entry in entries if (event := self.state.publish(entry))]
        for event in events:
            self.on_event(event)


def _stored(key: str, fingerprint: str, step: Step) -> Entry:
    failed = step.kind in (StepKind.HTTP500_BEFORE, StepKind.HTTP500_AFTER_CHARGE)
    return {"key": key, "fingerprint": fingerprint, "reply": 500 if failed else 200}


def _decline_fields(decline: Decline | None) -> dict[str, Any]:
    if decline is None:
        return {"decline_code": None, "network_code": None, "advice_code": None}
    return {
        "decline_code": decline.code,
        "network_code": decline.network_code,
        "advice_code": decline.advice_code,
    }
