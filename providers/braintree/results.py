"""From the SDK's transactions to charge results. Raises InvalidInput for what says nothing definite."""

from datetime import UTC, datetime
from typing import Any

from providers.base import CardFacts, ChargeResult, DeclineFacts, Outcome
from recovery_site.common.errors import InvalidInput
from recovery_site.common.money import currency_code, from_decimal_string

DUPLICATE = "duplicate"
TAKEN = frozenset({"submitted_for_settlement", "settling", "settled", "settlement_confirmed", "settlement_pending"})
REFUSED = frozenset({"processor_declined", "gateway_rejected", "failed"})
# Refused after it had counted as taken.
LATE = frozenset({"settlement_declined", "settlement_failed"})
UNDER_WAY = frozenset({"authorizing", "authorized"})
CLOSED = frozenset({"voided", "authorization_expired"})
# Cards and wallets are decided at once; of these rails the bank tells later.
BANKS = frozenset({"us_bank_account", "sepa_debit_account", "europe_bank_account", "local_payment"})
SETTLED = frozenset({"settled", "settlement_confirmed"})


def outcome_of(status: str, instrument: str) -> Outcome | None:
    """What a transaction's status says of the money; None if it says nothing. `instrument`: Braintree's word for the
    kind of payment method."""
    bank = instrument in BANKS
    if status in TAKEN and (not bank or status in SETTLED):
        return Outcome.SUCCEEDED
    if status in TAKEN or status in UNDER_WAY:
        return Outcome.AWAITING
    if status in CLOSED:
        return Outcome.ERRORED
    return Outcome.DECLINED if status in REFUSED or status in LATE else None


def sale_result(transaction: Any) -> ChargeResult:
    """One sale as the outcome of the charge that it was made for. A duplicate in Braintree's eyes is not a result."""
    status, told = _told(transaction)
    outcome = outcome_of(status, _text(transaction, "payment_instrument_type"))
    if outcome is Outcome.DECLINED and _text(transaction, "gateway_rejection_reason") != DUPLICATE:
        return ChargeResult(outcome=outcome, decline=decline(transaction, status), **told)
    if outcome is Outcome.ERRORED:
        return ChargeResult(outcome=outcome, error_code=status, **told)
    if outcome in (Outcome.SUCCEEDED, Outcome.AWAITING):
        return ChargeResult(outcome=outcome, **told)
    raise InvalidInput(f"Braintree's transaction is {status or 'without a status'}, so its charge is undecided.")


def refund_result(transaction: Any) -> ChargeResult:
    """One refund, `payment_id` is the sale that it gives back; money has moved once it is settled."""
    status, told = _told(transaction)
    told["payment_id"] = _text(transaction, "refunded_transaction_id")
    if status in SETTLED or status == "settling":
        return ChargeResult(outcome=Outcome.SUCCEEDED, **told)
    if status in TAKEN or status in UNDER_WAY:
        return ChargeResult(outcome=Outcome.AWAITING, **told)
    if status in REFUSED or status in LATE or status in CLOSED:
        return ChargeResult(outcome=Outcome.DECLINED, decline=decline(transaction, status), **told)
    raise InvalidInput(f"Braintree's refund is {status or 'without a status'}.")


def _told(transaction: Any) -> tuple[str, dict[str, Any]]:
    currency = currency_code(_text(transaction, "currency_iso_code"))
    transaction_id = _text(transaction, "id")
    if not transaction_id or len(transaction_id) > 200:
        raise InvalidInput("Braintree's transaction has no id.")
    customer = getattr(transaction, "customer_details", None)
    details = getattr(transaction, "credit_card_details", None)
    status = _text(transaction, "status")
    return status, {
        "provider_id": transaction_id,
        "payment_id": "",
        "amount_minor": from_decimal_string(str(getattr(transaction, "amount", "")), currency),
        "currency": currency,
        "token": _text(details, "token"),
        "customer": _text(customer, "id"),
        "reference": _text(transaction, "order_id"),
        "card": card(details),
        "created_at": _instant(transaction, "created_at"),
        "raw": {
            "id": transaction_id,
            "status": status,
            "processor_response_code": _text(transaction, "processor_response_code"),
            "gateway_rejection_reason": _text(transaction, "gateway_rejection_reason"),
        },
    }


def decline(transaction: Any, status: str) -> DeclineFacts:
    """The processor's code, or why the gateway stopped it: then no network has seen it."""
    reason = _text(transaction, "gateway_rejection_reason")
    if status == "gateway_rejected" and reason:
        return DeclineFacts(raw_code=f"gateway_rejected:{reason}"[:100], sent_to_network=False)
    settlement = status.startswith("settlement")
    code = _text(transaction, "processor_settlement_response_code" if settlement else "processor_response_code")
    text = _text(transaction, "processor_settlement_response_text" if settlement else "processor_response_text")
    return DeclineFacts(
        raw_code=(code or status)[:100],
        network_code=_text(transaction, "network_response_code")[:40],
        advice_code=_text(transaction, "merchant_advice_code")[:40],
        provider_advice=_text(transaction, "processor_response_type")[:40],
        message=text[:500],
    )


def card(details: Any) -> CardFacts | None:
    if not _text(details, "last_4"):
        return None
    return CardFacts(
        fingerprint=_text(details, "unique_number_identifier"),
        network=_text(details, "card_type").lower()[:40],
        last4=_text(details, "last_4")[:4],
        exp_month=_number(details, "expiration_month"),
        exp_year=_number(details, "expiration_year"),
        bin=_text(details, "bin")[:8],
    )


def _text(record: Any, name: str) -> str:
    """The SDK's objects lack attributes whose elements were absent in the XML."""
    value = getattr(record, name, None)
    return value if isinstance(value, str) else ""


def _number(record: Any, name: str) -> int | None:
    value = _text(record, name)
    return int(value) if value.isascii() and value.isdigit() and len(value) <= 4 else None


def _instant(record: Any, name: str) -> datetime | None:
    value = getattr(record, name, None)
    if not isinstance(value, datetime):
        return None
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
