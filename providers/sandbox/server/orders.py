"""What a request asks for, once it is read and makes sense."""

from dataclasses import dataclass
from typing import Any

from providers.sandbox.server.records import SUCCEEDED
from providers.sandbox.server.steps import Decline, decline_for


@dataclass(frozen=True, slots=True, kw_only=True)
class ChargeOrder:
    amount: int
    currency: str
    token: str
    customer: str | None
    reference: str | None
    metadata: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class RefundOrder:
    charge: str
    amount: int
    reason: str | None
    reference: str | None


@dataclass(frozen=True, slots=True)
class Settlement:
    """How a pending charge or refund ends."""

    status: str
    decline: Decline | None


def settlement(status: str, code: str | None, network_code: str | None, advice_code: str | None) -> Settlement:
    """A settlement; anything but succeeded carries a code, `generic_decline` unless one is given."""
    if status == SUCCEEDED:
        return Settlement(status, None)
    return Settlement(status, decline_for(code or "generic_decline", network_code or "", advice_code or ""))
