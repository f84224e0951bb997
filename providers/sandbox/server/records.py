"""What the sandbox keeps: charges, refunds, stored answers and webhook events."""

from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from providers.sandbox.server.tokens import parse_token

SUCCEEDED, PENDING, DECLINED, FAILED = "succeeded", "pending", "declined", "failed"
_CHARGE_ROW = (
    "id",
    "idempotency_key",
    "reference",
    "token",
    "customer",
    "amount",
    "currency",
    "status",
    "created_at",
)
_REFUND_ROW = ("id", "idempotency_key", "reference", "charge", "amount", "currency", "status", "created_at")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def timestamp(moment: datetime) -> str:
    """ISO 8601 in UTC, always with six decimals, so that the strings sort like the times."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class Clock:
    """Strictly rising times, also over a restart: listing `created_after` the last one seen misses none."""

    def __init__(self) -> None:
        self._last = _EPOCH

    def next(self) -> datetime:
        self._last = max(datetime.now(UTC), self._last + timedelta(microseconds=1))
        return self._last

    def observe(self, moment: datetime) -> None:
        self._last = max(self._last, moment)


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """`amount` in minor units of `currency`; `created_at` as `timestamp` writes it."""

    id: str
    idempotency_key: str
    reference: str | None
    token: str
    customer: str | None
    amount: int
    currency: str
    status: str
    decline_code: str | None
    network_code: str | None
    advice_code: str | None
    metadata: dict[str, Any]
    created_at: str

    def public(self, refunded: int = 0) -> dict[str, Any]:
        """The charge as the API shows it; `refunded` is what refunds that did not fail have taken of it."""
        shown = {name: getattr(self, name) for name in self.__slots__ if name != "idempotency_key"}
        return shown | {"amount_refunded": refunded, "card": asdict(parse_token(self.token).card)}

    def ledger_row(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _CHARGE_ROW}


@dataclass(frozen=True, slots=True, kw_only=True)
class Refund:
    """Money sent back from a charge, in the charge's currency."""

    id: str
    idempotency_key: str
    reference: str | None
    charge: str
    amount: int
    currency: str
    reason: str | None
    status: str
    failure_code: str | None
    created_at: str

    def public(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__ if name != "idempotency_key"}

    def ledger_row(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _REFUND_ROW}


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """What an Idempotency-Key answers with until `expires_at`: the record as it was then; None is a 500."""

    fingerprint: str
    record: Charge | Refund | None
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Hook:
    """Where webhooks go, and the Standard Webhooks secret that signs them."""

    url: str
    secret: str


@dataclass(frozen=True, slots=True)
class Event:
    """One webhook: `data` is the charge or refund as it stood at that moment."""

    id: str
    type: str
    created_at: str
    data: dict[str, Any]
