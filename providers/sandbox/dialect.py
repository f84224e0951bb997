"""The sandbox's webhooks: Standard Webhooks around `{id, type, timestamp, data}` (docs/sandbox_psp.md)."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, ClassVar

from providers.base import (
    BodyMalformed,
    ChargeResult,
    CustomerFacts,
    EventKind,
    Ignored,
    InboundItem,
    InboundRequest,
    MethodFacts,
    PaymentEvent,
    PaymentFacts,
    Proof,
    RefundFacts,
    RefundStatus,
)
from providers.generic import standard_webhooks
from providers.sandbox.records import charge_result, refund_result
from providers.wire.reading import RecordMalformed

_CHARGES: Mapping[str, EventKind] = {
    "charge.succeeded": EventKind.PAYMENT_SUCCEEDED,
    "charge.declined": EventKind.PAYMENT_FAILED,
    "charge.pending": EventKind.PAYMENT_PENDING,
}
_REFUNDS: Mapping[str, RefundStatus] = {
    "refund.succeeded": RefundStatus.SUCCEEDED,
    "refund.failed": RefundStatus.FAILED,
    "refund.pending": RefundStatus.PENDING,
}
_MAX_EVENT_TYPE = 120


class SandboxDialect:
    """`data` is the charge or refund as the API shows it; its `reference` is our attempt if we sent it."""

    provider: ClassVar[str] = "sandbox"

    def secret_check(self, secret: str) -> None:
        """Any text: one that is no Standard Webhooks secret verifies nothing."""

    def verify(self, request: InboundRequest, secrets: Sequence[str], *, now: float, tolerance_seconds: int) -> Proof:
        """Raise SignatureInvalid unless one of `secrets` signed these bytes recently."""
        standard_webhooks.verify_signature(request, secrets, now=now, tolerance_seconds=tolerance_seconds)
        return Proof.SIGNED

    def split(self, request: InboundRequest) -> Sequence[InboundItem]:
        """One item per body, keyed by the charge it is about; raises BodyMalformed."""
        payload = standard_webhooks.json_object(request.body)
        event_type, data = payload.get("type"), payload.get("data")
        if not isinstance(event_type, str) or not event_type:
            raise BodyMalformed("/type is missing: send the event type.")
        key = data.get("charge") or data.get("id") if isinstance(data, dict) else None
        item = InboundItem(
            event_id=standard_webhooks.event_id(request),
            event_type=event_type[:_MAX_EVENT_TYPE],
            order_key=key if isinstance(key, str) else "",
            payload=payload,
        )
        self.parse(item)
        return [item]

    def parse(self, item: InboundItem) -> PaymentEvent | Ignored:
        """The event of one body. An unknown type is ignored; a wrong field raises BodyMalformed naming it."""
        if item.event_type not in _CHARGES and item.event_type not in _REFUNDS:
            return Ignored("This event type is not known here, so the event changes nothing.")
        data = item.payload.get("data")
        if not isinstance(data, dict):
            raise BodyMalformed("/data is missing: send the charge or refund.")
        if data.get("status") != item.event_type.partition(".")[2]:
            raise BodyMalformed("/type and /data/status differ: send the event of the status.")
        try:
            return self._charge(item, data) if item.event_type in _CHARGES else self._refund(item, data)
        except RecordMalformed as error:
            raise BodyMalformed(f"/data/{error} is missing or impossible: send it as the API shows it.") from None

    def _charge(self, item: InboundItem, data: Mapping[str, Any]) -> PaymentEvent:
        result = charge_result(data)
        customer = data.get("customer")
        occurred_at = _occurred_at(item.payload)
        return PaymentEvent(
            kind=_CHARGES[item.event_type],
            provider=self.provider,
            event_id=item.event_id,
            event_type=item.event_type,
            occurred_at=occurred_at,
            customer=CustomerFacts(id=customer) if isinstance(customer, str) and customer else None,
            payment=PaymentFacts(
                charge_id=result.provider_id,
                amount_minor=_amount(result),
                currency=result.currency,
                invoice_id=_invoice_id(data),
                reference=result.reference,
                method=MethodFacts(token=result.token, card=result.card),
                decline=result.decline,
                occurred_at=result.created_at,
            ),
        )

    def _refund(self, item: InboundItem, data: Mapping[str, Any]) -> PaymentEvent:
        result = refund_result(data)
        reason = data.get("reason")
        refund = RefundFacts(
            id=result.provider_id,
            amount_minor=_amount(result),
            currency=result.currency,
            status=_REFUNDS[item.event_type],
            charge_id=result.payment_id,
            reference=result.reference,
            reason=reason if isinstance(reason, str) else "",
            failure_reason=result.decline.raw_code if result.decline else "",
        )
        return PaymentEvent(
            kind=EventKind.REFUND_UPDATED,
            provider=self.provider,
            event_id=item.event_id,
            event_type=item.event_type,
            occurred_at=_occurred_at(item.payload),
            refunds=(refund,),
        )


def _amount(result: ChargeResult) -> int:
    if result.amount_minor is None:
        raise RecordMalformed("amount")
    return result.amount_minor


def _invoice_id(data: Mapping[str, Any]) -> str:
    """`metadata.invoice_id`: where a charge that somebody else made can name the invoice it is for."""
    metadata = data.get("metadata")
    value = metadata.get("invoice_id") if isinstance(metadata, dict) else None
    return value if isinstance(value, str) else ""


def _occurred_at(payload: Mapping[str, Any]) -> datetime:
    try:
        moment = datetime.fromisoformat(payload["timestamp"])
    except (KeyError, TypeError, ValueError):
        raise BodyMalformed("/timestamp is not a time: send ISO 8601 with an offset.") from None
    if moment.tzinfo is None:
        raise BodyMalformed("/timestamp has no offset: send ISO 8601 with an offset.")
    return moment.astimezone(UTC)
