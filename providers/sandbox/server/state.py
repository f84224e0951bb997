"""The state of the sandbox as a fold over its ledger: the same code serves a live entry and a replayed one.

An entry acts twice. `advance`, when it is queued: what later decisions depend on (script positions, the part
that can still be refunded). `publish`, once it is on disk: what anybody may see (charges, refunds, answers).
So a look-up never shows money that a crash could take back, and requests in flight never share a step.
"""

from bisect import bisect_right
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from providers.sandbox.server.faults import Faults
from providers.sandbox.server.ledger import Entry
from providers.sandbox.server.records import FAILED, Charge, Clock, Event, Hook, Refund, StoredAnswer
from providers.sandbox.server.steps import Step, parse_step


class State:
    """Not thread-safe: the engine holds its lock around every method."""

    def __init__(self, *, key_ttl: timedelta) -> None:
        self.clock = Clock()
        self.charges: dict[str, Charge] = {}
        self.refunds: dict[str, Refund] = {}
        self.undelivered: dict[str, Event] = {}
        self.scripts: dict[str, tuple[int, tuple[Step, ...]]] = {}
        self.faults = Faults(0, 0, {})
        self.hook: Hook | None = None
        self.counters: Counter[str] = Counter()
        self._settings = 0
        self._reserved: Counter[str] = Counter()
        self._refunded: Counter[str] = Counter()
        self._settled: set[str] = set()
        self._keys: OrderedDict[str, StoredAnswer] = OrderedDict()
        self._key_ttl = key_ttl
        self._charges_by_reference: dict[str, list[str]] = {}
        self._refunds_by_reference: dict[str, list[str]] = {}
        self._charge_order: list[str] = []
        self._refund_order: list[str] = []

    # What decisions read

    def refundable(self, charge: Charge) -> int:
        """Minor units not yet taken by refunds that are pending or succeeded, requests in flight included."""
        return charge.amount - self._reserved[charge.id]

    def settled(self, record_id: str) -> bool:
        return record_id in self._settled

    def stored_answer(self, key: str, now: datetime) -> StoredAnswer | None:
        answer = self._keys.get(key)
        return answer if answer is not None and answer.expires_at > now else None

    # What look-ups read

    def public_charge(self, charge: Charge) -> dict[str, Any]:
        return charge.public(self._refunded[charge.id])

    def find_charges(self, reference: str | None, after: str | None) -> list[Charge]:
        """Oldest first; `after` as `timestamp` writes it, exclusive."""
        ids = _select(self._charge_order, self._charges_by_reference, reference)
        return [self.charges[id_] for id_ in _later(ids, after, lambda id_: self.charges[id_].created_at)]

    def find_refunds(self, reference: str | None, after: str | None) -> list[Refund]:
        ids = _select(self._refund_order, self._refunds_by_reference, reference)
        return [self.refunds[id_] for id_ in _later(ids, after, lambda id_: self.refunds[id_].created_at)]

    # The fold

    def advance(self, entry: Entry) -> None:
        """Use up what `entry` uses up."""
        self.clock.observe(datetime.fromisoformat(entry["at"]))
        for counter in entry.get("counters", ()):
            self.counters[counter] += 1
        match entry["type"]:
            case "refund" if entry["refund"]["status"] != FAILED:
                self._reserved[entry["refund"]["charge"]] += entry["refund"]["amount"]
            case "settle":
                self._settled.add(entry["id"])
            case "settle_refund":
                self._settled.add(entry["id"])
                if entry["status"] == FAILED:
                    self._reserved[entry["charge"]] -= entry["amount"]
            case "script" | "faults" | "webhook":
                self._set(entry)
            case "delivered":
                self.undelivered.pop(entry["id"], None)

    def _set(self, entry: Entry) -> None:
        self._settings += 1
        match entry["type"]:
            case "script" if entry["steps"]:
                self.scripts[entry["token"]] = (
                    self._settings,
                    tuple(parse_step(step) for step in entry["steps"]),
                )
            case "script":
                self.scripts.pop(entry["token"], None)
            case "faults":
                self.faults = Faults(self._settings, entry["seed"], entry["rates"])
            case "webhook":
                self.hook = Hook(entry["url"], entry["secret"]) if entry["url"] else None

    def publish(self, entry: Entry) -> Event | None:
        """Make `entry` visible and return the webhook it causes, if any."""
        record = self._publish_record(entry)
        if "key" in entry:
            self._store_answer(entry, record if entry["reply"] == 200 else None)
        if record is None or entry.get("event") is None:
            return None
        kind, data = (
            ("charge", self.public_charge(record)) if isinstance(record, Charge) else ("refund", record.public())
        )
        event = Event(entry["event"], f"{kind}.{record.status}", entry["at"], data)
        self.undelivered[event.id] = event
        return event

    def _publish_record(self, entry: Entry) -> Charge | Refund | None:
        match entry["type"]:
            case "charge":
                charge = self.charges[entry["charge"]["id"]] = Charge(**entry["charge"])
                self._charge_order.append(charge.id)
                if charge.reference is not None:
                    self._charges_by_reference.setdefault(charge.reference, []).append(charge.id)
                return charge
            case "refund":
                refund = self.refunds[entry["refund"]["id"]] = Refund(**entry["refund"])
                self._refund_order.append(refund.id)
                if refund.reference is not None:
                    self._refunds_by_reference.setdefault(refund.reference, []).append(refund.id)
                if refund.status != FAILED:
                    self._refunded[refund.charge] += refund.amount
                return refund
            case "settle":
                codes = {name: entry[name] for name in ("decline_code", "network_code", "advice_code")}
                charge = replace(self.charges[entry["id"]], status=entry["status"], **codes)
                self.charges[charge.id] = charge
                return charge
            case "settle_refund":
                refund = replace(self.refunds[entry["id"]], status=entry["status"], failure_code=entry["failure_code"])
                self.refunds[refund.id] = refund
                if refund.status == FAILED:
                    self._refunded[refund.charge] -= refund.amount
                return refund
        return None

    def _store_answer(self, entry: Entry, record: Charge | Refund | None) -> None:
        now = datetime.fromisoformat(entry["at"])
        while self._keys and next(iter(self._keys.values())).expires_at <= now:
            self._keys.popitem(last=False)
        self._keys.pop(entry["key"], None)
        self._keys[entry["key"]] = StoredAnswer(entry["fingerprint"], record, now + self._key_ttl)


def _select(everything: list[str], by_reference: dict[str, list[str]], reference: str | None) -> list[str]:
    return everything if reference is None else by_reference.get(reference, [])


def _later(ids: list[str], after: str | None, created_at: Callable[[str], str]) -> Iterable[str]:
    return ids if after is None else ids[bisect_right(ids, after, key=created_at) :]
