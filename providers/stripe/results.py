"""From Stripe's answers to charge results. Raises InvalidInput for an answer that says nothing definite."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from providers.base import ChargeResult, DeclineFacts, MethodFacts, Outcome, RefundStatus
from providers.stripe import facts, settlement
from providers.stripe.methods import charge_method, named_method
from providers.stripe.reading import Node
from recovery_site.common.errors import InvalidInput

NEEDS_ACTION = frozenset({"requires_action", "requires_source_action"})
CANCELLED = "payment_intent_canceled"
# What may have become of an intent after its charge was refused: it waits for another card, or was given up.
_REFUSED = frozenset({"requires_payment_method", "requires_source", "canceled"})
_CERTAINTY = (Outcome.SUCCEEDED, Outcome.AWAITING, Outcome.DECLINED, Outcome.ERRORED)
# What of an answer is kept for the record: no names, addresses, client secrets.
_RECORDED = ("object", "id", "status", "livemode")


def intent_result(intent: Node, record: Mapping[str, Any] | None = None) -> ChargeResult:
    """One payment intent as the outcome of the charge it was made for."""
    status = intent.text("status")
    currency = intent.currency()
    charge = facts.intent_charge(intent)
    created_at = charge.instant("created") or intent.required_instant("created")
    method = facts.intent_method(intent)
    amount = intent.required_amount("amount", currency)
    received = intent.amount("amount_received", currency)
    told: dict[str, Any] = {
        "provider_id": facts.intent_charge_id(intent),
        "payment_id": intent.required_identifier("id"),
        "amount_minor": received if status == "succeeded" and received is not None else amount,
        "currency": currency,
        "reference": facts.reference(intent),
        "created_at": created_at,
        "raw": _record(intent, record),
        **_method(method),
    }
    if status == "succeeded":
        return ChargeResult(outcome=Outcome.SUCCEEDED, **told)
    if status == "processing":
        return _awaiting(told, settlement.expected_by(method.kind if method else "", created_at))
    if status == "requires_capture":
        return _awaiting(told, created_at + timedelta(days=settlement.AUTHORISATION_DAYS))
    if status in NEEDS_ACTION:
        decline = DeclineFacts(raw_code="authentication_required", message="The payer has to authenticate.")
        return ChargeResult(outcome=Outcome.DECLINED, decline=decline, **told)
    refused = bool(intent.node("last_payment_error")) or charge.text("status") == "failed"
    if refused and status in _REFUSED:
        return ChargeResult(outcome=Outcome.DECLINED, decline=facts.intent_decline(intent), **told)
    if status == "canceled":
        return ChargeResult(outcome=Outcome.ERRORED, error_code=CANCELLED, **told)
    raise InvalidInput(f"Stripe's payment intent is {status or 'without a status'}, so its charge is undecided.")


def found_intent(page: Node, reference: str) -> ChargeResult | None:
    """The payment intent with our reference among search results; a paid one if there are several."""
    found: list[ChargeResult] = []
    undecided: InvalidInput | None = None
    for intent in page.nodes("data"):
        if facts.reference(intent) != reference:
            continue
        try:
            found.append(intent_result(intent))
        except InvalidInput as error:
            undecided = error
    best = min(found, key=lambda result: _CERTAINTY.index(result.outcome), default=None)
    if undecided and (best is None or best.outcome is not Outcome.SUCCEEDED):
        raise undecided
    return best


def paid_invoice_result(invoice: Node, record: Mapping[str, Any] | None = None) -> ChargeResult:
    """An invoice that Stripe Billing was told to collect, as the outcome of the payment it made for it."""
    intent = facts.invoice_intent(invoice)
    if intent.has("status"):
        return intent_result(intent, record)
    owed = facts.invoice(invoice)
    if owed.status != "paid":
        raise InvalidInput(f"Stripe's invoice is {owed.status or 'without a status'} and names no payment.")
    return ChargeResult(
        outcome=Outcome.SUCCEEDED,
        provider_id=owed.charge_id,
        payment_id=owed.payment_id,
        amount_minor=owed.paid_minor,
        currency=owed.currency,
        raw=_record(invoice, record),
    )


def charge_result(charge: Node, record: Mapping[str, Any] | None = None) -> ChargeResult:
    """One charge, read or listed by itself."""
    status = charge.text("status")
    currency = charge.currency()
    created_at = charge.required_instant("created")
    method = charge_method(charge)
    captured = charge.amount("amount_captured", currency)
    amount = charge.required_amount("amount", currency)
    told: dict[str, Any] = {
        "provider_id": charge.required_identifier("id"),
        "payment_id": charge.identifier("payment_intent"),
        "customer": charge.identifier("customer"),
        "amount_minor": captured if status == "succeeded" and captured else amount,
        "currency": currency,
        "reference": facts.reference(charge),
        "created_at": created_at,
        "raw": _record(charge, record),
        **_method(method),
    }
    if status == "failed":
        return ChargeResult(outcome=Outcome.DECLINED, decline=facts.charge_decline(charge), **told)
    if status == "pending":
        return _awaiting(told, settlement.expected_by(method.kind if method else "", created_at))
    if status == "succeeded" and charge.flag("captured") is False:
        return _awaiting(told, created_at + timedelta(days=settlement.AUTHORISATION_DAYS))
    if status == "succeeded":
        return ChargeResult(outcome=Outcome.SUCCEEDED, **told)
    raise InvalidInput(f"Stripe's charge is {status or 'without a status'}, so it is undecided.")


def refund_result(refund: Node, record: Mapping[str, Any] | None = None) -> ChargeResult:
    """One refund; `provider_id` is the refund's id."""
    told = facts.refund(refund)
    created_at = refund.instant("created")
    known: dict[str, Any] = {
        "provider_id": told.id,
        "payment_id": told.payment_id,
        "amount_minor": told.amount_minor,
        "currency": told.currency,
        "reference": told.reference,
        "created_at": created_at,
        "raw": _record(refund, record),
    }
    if told.status is RefundStatus.SUCCEEDED:
        return ChargeResult(outcome=Outcome.SUCCEEDED, **known)
    if told.status is RefundStatus.FAILED:
        code = told.failure_reason or refund.text("status")
        return ChargeResult(outcome=Outcome.DECLINED, decline=DeclineFacts(raw_code=code), **known)
    if created_at is None:
        raise InvalidInput("Stripe's refund is pending but has no date, so nobody knows when to look again.")
    return _awaiting(known, settlement.add_business_days(created_at, settlement.REFUND_BUSINESS_DAYS))


def refusal_result(error: Node, record: Mapping[str, Any]) -> ChargeResult:
    """The error body of a charge that the issuer, the bank or Stripe's fraud rules refused (HTTP 402)."""
    intent = error.node("payment_intent")
    method = named_method(error, "payment_method") or (facts.intent_method(intent) if intent else None)
    currency = intent.currency() if intent.has("currency") else ""
    return ChargeResult(
        outcome=Outcome.DECLINED,
        provider_id=error.identifier("charge") or facts.intent_charge_id(intent),
        payment_id=error.identifier("payment_intent"),
        amount_minor=intent.amount("amount", currency) if currency else None,
        currency=currency,
        reference=facts.reference(intent),
        decline=facts.error_decline(error, facts.intent_charge(intent)),
        created_at=intent.instant("created"),
        raw=record,
        **_method(method),
    )


def _method(method: MethodFacts | None) -> dict[str, Any]:
    return {"token": method.token if method else "", "card": method.card if method else None}


def _awaiting(told: Mapping[str, Any], expected_by: datetime) -> ChargeResult:
    return ChargeResult(outcome=Outcome.AWAITING, expected_by=expected_by, **told)


def _record(node: Node, record: Mapping[str, Any] | None) -> dict[str, Any]:
    kept = {name: node.values[name] for name in _RECORDED if name in node.values}
    return {**kept, **(record or {})}
