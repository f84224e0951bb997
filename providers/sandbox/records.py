"""Charges and refunds as the sandbox shows them, in answers and in webhooks, turned into our values."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from providers.base import CardFacts, ChargeResult, DeclineFacts, Outcome
from providers.wire.reading import RecordMalformed, amount, integer, kept, required, text

CHARGE_OUTCOMES = {
    "succeeded": Outcome.SUCCEEDED,
    "pending": Outcome.AWAITING,
    "declined": Outcome.DECLINED,
}
REFUND_OUTCOMES = {
    "succeeded": Outcome.SUCCEEDED,
    "pending": Outcome.AWAITING,
    "failed": Outcome.DECLINED,
}


def charge_result(record: Mapping[str, Any]) -> ChargeResult:
    """Raises RecordMalformed."""
    outcome = _outcome(record, CHARGE_OUTCOMES)
    return ChargeResult(
        outcome=outcome,
        provider_id=required(record, "id"),
        amount_minor=amount(record),
        currency=required(record, "currency"),
        token=required(record, "token"),
        customer=text(record, "customer"),
        reference=text(record, "reference"),
        decline=decline(record) if outcome is Outcome.DECLINED else None,
        card=card(record),
        created_at=created_at(record),
        raw=kept(record),
    )


def refund_result(record: Mapping[str, Any]) -> ChargeResult:
    """`payment_id` is the charge that is refunded. Raises RecordMalformed."""
    outcome = _outcome(record, REFUND_OUTCOMES)
    failure = text(record, "failure_code") or "unknown"
    return ChargeResult(
        outcome=outcome,
        provider_id=required(record, "id"),
        payment_id=required(record, "charge"),
        amount_minor=amount(record),
        currency=required(record, "currency"),
        reference=text(record, "reference"),
        decline=DeclineFacts(raw_code=failure) if outcome is Outcome.DECLINED else None,
        created_at=created_at(record),
        raw=kept(record),
    )


def decline(record: Mapping[str, Any]) -> DeclineFacts:
    """Why a charge was declined."""
    return DeclineFacts(
        raw_code=text(record, "decline_code") or "unknown",
        network_code=text(record, "network_code"),
        advice_code=text(record, "advice_code"),
    )


def card(record: Mapping[str, Any]) -> CardFacts | None:
    """The card behind the charge's token, if told."""
    shown = record.get("card")
    if shown is None:
        return None
    if not isinstance(shown, dict):
        raise RecordMalformed("card")
    return CardFacts(
        fingerprint=text(shown, "fingerprint"),
        network=text(shown, "brand"),
        last4=text(shown, "last4"),
        exp_month=integer(shown, "exp_month"),
        exp_year=integer(shown, "exp_year"),
    )


def created_at(record: Mapping[str, Any]) -> datetime:
    try:
        moment = datetime.fromisoformat(required(record, "created_at"))
    except ValueError:
        raise RecordMalformed("created_at") from None
    if moment.tzinfo is None:
        raise RecordMalformed("created_at")
    return moment.astimezone(UTC)


def _outcome(record: Mapping[str, Any], outcomes: Mapping[str, Outcome]) -> Outcome:
    status = record.get("status")
    if not isinstance(status, str) or status not in outcomes:
        raise RecordMalformed("status")
    return outcomes[status]
