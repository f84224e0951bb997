"""A running sandbox provider, seen from the test's side: its scripts, its faults, its ledger."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from providers.sandbox.server import SandboxServer

_TIMEOUT = 10


@dataclass(frozen=True, slots=True)
class Sandbox:
    """The HTTP surface of one server (docs/sandbox_psp.md). Money as the provider sees it is in `charges`."""

    url: str

    def script(self, token: str, *steps: str) -> None:
        """What the next charges of this token come to; the last step repeats."""
        self._put("/script", {"token": token, "steps": list(steps)})

    def faults(self, seed: int, **rates: float) -> None:
        self._put("/faults", {"seed": seed, "rates": rates})

    def settle(self, charge_id: str, status: str = "succeeded", decline: str = "") -> None:
        """End a pending charge."""
        body = {"status": status, **({"decline_code": decline} if decline else {})}
        requests.post(f"{self.url}/charges/{charge_id}/settle", json=body, timeout=_TIMEOUT).raise_for_status()

    def refund(self, charge_id: str, amount_minor: int, key: str, reference: str | None = None) -> dict[str, Any]:
        body = {"charge": charge_id, "amount": amount_minor, "reference": reference}
        answer = requests.post(f"{self.url}/refunds", json=body, headers={"Idempotency-Key": key}, timeout=_TIMEOUT)
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found

    def charges(self, *customers: str) -> list[dict[str, Any]]:
        """The ledger's charges of these customers, oldest first; of all if none is named."""
        ledger = requests.get(f"{self.url}/ledger", timeout=_TIMEOUT).json()
        return [charge for charge in ledger["charges"] if not customers or charge["customer"] in customers]

    def paid(self, *customers: str) -> int:
        """Minor units that these customers have paid, refunds not taken off."""
        return sum(charge["amount"] for charge in self.charges(*customers) if charge["status"] == "succeeded")

    def _put(self, path: str, body: dict[str, Any]) -> None:
        requests.put(f"{self.url}{path}", json=body, timeout=_TIMEOUT).raise_for_status()


@contextmanager
def sandbox_running(folder: Path) -> Iterator[Sandbox]:
    """A server on a free port with its ledger in `folder`; a lost reply holds its client for at most 5 s."""
    server = SandboxServer("127.0.0.1", 0, folder / "sandbox.jsonl", hold_seconds=5)
    server.start()
    try:
        yield Sandbox(server.url)
    finally:
        server.stop()
