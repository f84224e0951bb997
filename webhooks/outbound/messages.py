"""The public form of a ledger event: one JSON document, the same for webhooks and hooks.

What happened comes from the event itself; the invoice, its customer and its case are told as they stand when the
document is made. It holds ids, amounts and codes, no personal data.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from invoices.models import Event, Invoice, Transaction
from invoices.states import TransactionKind
from retries.models import Case, RetryJob
from retries.selectors import case_failure, case_policy, case_usage
from retries.states import JOB_OPEN
from webhooks.outbound.catalogue import EventType, public_type

# Ledger data that is told under a name of its own.
_DETAILS: Mapping[EventType, str] = {
    EventType.USER_NOTIFICATION: "notification",
    EventType.REFUND_FAILED: "refund",
    EventType.DISPUTE_OPENED: "dispute",
    EventType.LIMITS_EXHAUSTED: "limits",
}
_ABOUT_A_CASE = frozenset(
    {
        EventType.CASE_OPENED,
        EventType.RETRY_SCHEDULED,
        EventType.RETRY_SUCCESS,
        EventType.RETRY_EXHAUSTED,
        EventType.FINAL_ACTION,
        EventType.USER_NOTIFICATION,
        EventType.LIMITS_EXHAUSTED,
    }
)


@dataclass(frozen=True, slots=True)
class PublicEvent:
    """`id` is one per event, whoever is told and however often; `data` is JSON."""

    id: str
    type: EventType
    occurred_at: datetime
    data: Mapping[str, Any]

    def document(self) -> dict[str, Any]:
        return {"id": self.id, "type": self.type.value, "timestamp": _time(self.occurred_at), "data": dict(self.data)}

    def body(self) -> str:
        """The document as it is signed and sent."""
        return json.dumps(self.document(), separators=(",", ":"))


def public_event(event: Event) -> PublicEvent | None:
    """What may be told of a ledger event, None if nothing. Three to seven queries."""
    kind = public_type(event)
    if kind is None:
        return None
    invoice = Invoice.objects.select_related("merchant", "customer", "connection").get(pk=event.invoice_id)
    data: dict[str, Any] = {
        "message": str(event.data.get("text") or event.data.get("why") or kind.label),
        "merchant": {"id": invoice.merchant.public_id},
        "connection": {"id": invoice.connection.public_id, "provider": invoice.connection.provider},
        "customer": {
            "id": invoice.customer.public_id,
            "connector_customer_id": invoice.customer.connector_customer_id,
        },
        "invoice": _invoice(invoice),
    }
    if kind in _ABOUT_A_CASE:
        data |= _case(event, invoice)
    if kind in _DETAILS:
        data[_DETAILS[kind]] = _details(event)
    return PublicEvent(message_id(event, invoice), kind, event.occurred_at, data)


def message_id(event: Event, invoice: Invoice) -> str:
    """`evt_<invoice>_<number>`: the event's place in its invoice's chain, the same wherever it is told."""
    return f"evt_{invoice.public_id.partition('_')[2]}_{event.seq}"


def _invoice(invoice: Invoice) -> dict[str, Any]:
    return {
        "id": invoice.public_id,
        "provider_invoice_id": invoice.provider_invoice_id,
        "number": invoice.number,
        "status": str(invoice.status),
        "amount_minor": invoice.amount_minor,
        "paid_minor": invoice.paid_minor,
        "refunded_minor": invoice.refunded_minor,
        "due_minor": invoice.due_minor,
        "currency": invoice.currency,
        "subscription_id": invoice.subscription_id,
        "plan": invoice.plan,
    }


def _case(event: Event, invoice: Invoice) -> dict[str, Any]:
    """The episode that the event is about, and how far its retries have come."""
    cases = Case.objects.select_related("policy_version").filter(invoice=invoice)
    named = cases.filter(public_id=event.subject_id) if event.subject_type == "case" else cases
    case = named.order_by("-pk").first()
    if case is None:
        return {}
    charge = Transaction.objects.filter(invoice=invoice, kind=TransactionKind.CHARGE).order_by("-pk").first()
    job = RetryJob.objects.filter(case=case, status__in=JOB_OPEN).order_by("-pk").first()
    failure = case_failure(case)
    verdict = failure.verdict
    strategy = case_policy(case).strategy_for(case.segment, verdict.category, verdict.known, verdict.retry_class)
    return {
        "case": {
            "id": case.public_id,
            "status": str(case.status),
            "segment": case.segment,
            "opened_at": _time(case.opened_at),
            "recovered_by": event.data.get("recovered_by", case.recovered_by),
        },
        "retry": {
            "transaction_id": charge.public_id if charge else None,
            "attempt_count": case_usage(case, failure).automatic,
            "max_attempts": strategy.max_attempts,
            "next_retry_at": _moment(event.data.get("at")),
            "priority": job.band if job else None,
            "error_code": case.code,
            "category": case.category,
        },
    }


def _details(event: Event) -> dict[str, Any]:
    """The event's own facts, and which subject they are about."""
    about = {} if event.subject_type == "invoice" else {"id": event.subject_id}
    facts = {"id" if name == "refund" else name: value for name, value in event.data.items() if name != "text"}
    return {**about, **facts}


def _moment(text: object) -> str | None:
    return _time(datetime.fromisoformat(text)) if isinstance(text, str) else None


def _time(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
