"""Charges and refunds as the sandbox shows them, in answers and in webhooks, turned into our values."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from providers.base import CardFacts, ChargeResult, DeclineFacts, Outcome
from recovery_site.common.scrubbing import scrub

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


class RecordMalformed(ValueError):
    """A charge or refund that makes no sense; the message names the field, never its value."""


def charge_result(record: Mapping[str, Any]) -> ChargeResult:
    """Raises RecordMalformed."""
    outcome = _outcome(record, CHARGE_OUTCOMES)
    return ChargeResult(
        outcome=outcome,
        provider_id=_text(record, "id"),
        amount_minor=_amount(record),
        currency=_text(record, "currency"),
        token=_text(record, "token"),
        customer=_optional(record, "customer"),
        reference=_optional(record, "reference"),
        decline=decline(record) if outcome is Outcome.DECLINED else None,
        card=card(record),
        created_at=created_at(record),
        raw=_raw(record),
    )


def refund_result(record: Mapping[str, Any]) -> ChargeResult:
    """`payment_id` is the charge that is refunded. Raises RecordMalformed."""
    outcome = _outcome(record, REFUND_OUTCOMES)
    failure = _optional(record, "failure_code") or "unknown"
    return ChargeResult(
        outcome=outcome,
        provider_id=_text(record, "id"),
        payment_id=_text(record, "charge"),
        amount_minor=_amount(record),
        currency=_text(record, "currency"),
        reference=_optional(record, "reference"),
        decline=DeclineFacts(raw_code=failure) if outcome is Outcome.DECLINED else None,
        created_at=created_at(record),
        raw=_raw(record),
    )


def decline(record: Mapping[str, Any]) -> DeclineFacts:
    """Why a charge was declined."""
    return DeclineFacts(
        raw_code=_optional(record, "decline_code") or "unknown",
        network_code=_optional(record, "network_code"),
        advice_code=_optional(record, "advice_code"),
    )


def card(record: Mapping[str, Any]) -> CardFacts | None:
    """The card behind the charge's token, if told."""
    shown = record.get("card")
    if shown is None:
        return None
    if not isinstance(shown, dict):
        raise RecordMalformed("card")
    return CardFacts(
        fingerprint=_optional(shown, "fingerprint"),
        network=_optional(shown, "brand"),
        last4=_optional(shown, "last4"),
        exp_month=_optional_integer(shown, "exp_month"),
        exp_year=_optional_integer(shown, "exp_year"),
    )


def created_at(record: Mapping[str, Any]) -> datetime:
    try:
        moment = datetime.fromisoformat(_text(record, "created_at"))
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


def _amount(record: Mapping[str, Any]) -> int:
    amount = _optional_integer(record, "amount")
    if amount is None or amount < 0:
        raise RecordMalformed("amount")
    return amount


def _text(record: Mapping[str, Any], name: str) -> str:
    value = _optional(record, name)
    if not value:
        raise RecordMalformed(name)
    return value


def _optional(record: Mapping[str, Any], name: str) -> str:
    value = record.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise RecordMalformed(name)
    return value


def _optional_integer(record: Mapping[str, Any], name: str) -> int | None:
    value = record.get(name)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
        raise RecordMalformed(name)
    return value


def _raw(record: Mapping[str, Any]) -> dict[str, Any]:
    shown = scrub(dict(record))
    return shown if isinstance(shown, dict) else {}
