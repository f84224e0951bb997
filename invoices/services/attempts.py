"""Attempts: the committed word that a call is about to happen, and what became of it.

All of it under the locks of DESIGN section 6; outcomes of transactions, tokens and cases are composed in
`retries/outcomes.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from invoices.models import Attempt, Invoice, Transaction
from invoices.services.ledger import Stamp, move, record_event
from invoices.states import ATTEMPT_OPEN, AttemptStatus, Origin, TransactionKind, Trigger
from providers.base import ChargeResult, DeclineFacts
from recovery_site.common.compiled import Compiled, Param
from recovery_site.common.ids import public_id
from recovery_site.common.raw import raw_answer
from recovery_site.common.rows import row_insert
from recovery_site.common.scrubbing import scrub_text


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptPlan:
    """What the new attempt will be; amounts come from its transaction. Lease and deadline are database-clock."""

    transaction: Transaction
    token_pk: int | None
    card_pk: int | None
    trigger: Trigger
    decision: Mapping[str, Any] = field(default_factory=dict)
    gateway_pk: int | None = None
    collected: bool = False
    lease_until: datetime | None = None
    send_by: datetime | None = None


def attempt_start(invoice: Invoice, plan: AttemptPlan, stamp: Stamp) -> Attempt:
    """Insert our attempt as SENDING with its idempotency key; writes `attempt.sending`.

    The constraints allow one SENDING charge per customer and one open charge per invoice.
    """
    reference = public_id("att")
    attempt = Attempt(
        **_identity(invoice, plan.transaction),
        public_id=reference,
        origin=Origin.OURS,
        trigger=plan.trigger,
        number=_next_number(invoice, plan.transaction.kind),
        amount_minor=plan.transaction.amount_minor,
        currency=plan.transaction.currency,
        token_id=plan.token_pk,
        card_id=plan.card_pk,
        gateway_id=plan.gateway_pk,
        collected=plan.collected,
        idempotency_key=f"recovery-{reference}",
        decision=dict(plan.decision),
        attempted_at=stamp.now,
        lease_until=plan.lease_until,
        send_by=plan.send_by,
    )
    row_insert(attempt)
    record_event(
        invoice=invoice,
        kind="attempt.sending",
        stamp=stamp,
        subject_type="attempt",
        subject_id=reference,
        to_state=attempt.status,
        data={
            "transaction": plan.transaction.public_id,
            "kind": attempt.kind,
            "number": attempt.number,
            "amount_minor": attempt.amount_minor,
            "currency": attempt.currency,
            "trigger": attempt.trigger,
        },
    )
    return attempt


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportedAttempt:
    """An attempt somebody else made. Without `provider_id` it is a placeholder that a later report may name."""

    transaction: Transaction
    amount_minor: int
    currency: str
    attempted_at: datetime
    origin: Origin = Origin.PROVIDER
    trigger: Trigger = Trigger.AUTOMATIC
    provider_id: str = ""
    provider_payment_id: str = ""
    network_reference: str = ""
    gateway_reference: str = ""
    token_pk: int | None = None
    card_pk: int | None = None
    decision: Mapping[str, Any] = field(default_factory=dict)


def attempt_report(invoice: Invoice, report: ReportedAttempt) -> Attempt:
    """Insert a reported attempt; the caller moves it to its outcome in the same transaction."""
    attempt = Attempt(
        **_identity(invoice, report.transaction),
        origin=report.origin,
        trigger=report.trigger,
        number=_next_number(invoice, report.transaction.kind),
        amount_minor=report.amount_minor,
        currency=report.currency,
        provider_id=report.provider_id or None,
        provider_payment_id=report.provider_payment_id,
        network_reference=report.network_reference[:200],
        gateway_reference=report.gateway_reference[:200],
        token_id=report.token_pk,
        card_id=report.card_pk,
        decision=dict(report.decision),
        attempted_at=report.attempted_at,
    )
    row_insert(attempt)
    return attempt


def _identity(invoice: Invoice, transaction: Transaction) -> dict[str, Any]:
    return {
        "merchant_id": invoice.merchant_id,
        "connection_id": invoice.connection_id,
        "customer_id": invoice.customer_id,
        "invoice": invoice,
        "transaction": transaction,
        "kind": transaction.kind,
    }


_NUMBERS = Compiled(
    lambda: Attempt.objects.filter(invoice=Param("invoice"), kind=Param("kind")).values_list("pk", flat=True)
)


def _next_number(invoice: Invoice, kind: str) -> int:
    return len(_NUMBERS.all(invoice=invoice.pk, kind=kind)) + 1


def attempt_succeed(
    attempt: Attempt, invoice: Invoice, *, captured_minor: int, provider: Mapping[str, Any], stamp: Stamp
) -> None:
    """SUCCEEDED; from DECLINED or ERRORED it is a late success (provider evidence only)."""
    finished = attempt.status in (AttemptStatus.DECLINED, AttemptStatus.ERRORED)
    move(
        attempt,
        "late_success" if finished else "succeed",
        invoice=invoice,
        stamp=stamp,
        captured_minor=captured_minor,
        finished_at=stamp.now,
        counts=True,
        next_check_at=None,
        data={"captured_minor": captured_minor},
        **provider,
    )


def attempt_decline(
    attempt: Attempt,
    invoice: Invoice,
    *,
    decline: DeclineFacts,
    category: str,
    explanation: str,
    provider: Mapping[str, Any],
    stamp: Stamp,
) -> None:
    """DECLINED with its codes; `counts` is false where the provider says it never reached the network."""
    move(
        attempt,
        "decline",
        invoice=invoice,
        stamp=stamp,
        finished_at=stamp.now,
        next_check_at=None,
        counts=decline.sent_to_network,
        **decline_columns(decline, category, explanation),
        data={"raw_code": decline.raw_code, "category": category},
        **provider,
    )


def attempt_name_decline(
    attempt: Attempt,
    invoice: Invoice,
    *,
    decline: DeclineFacts,
    category: str,
    explanation: str,
    stamp: Stamp,
) -> None:
    """A code learned after the decline itself; writes `attempt.decline_named`."""
    columns = decline_columns(decline, category, explanation)
    columns["counts"] = decline.sent_to_network
    for name, value in columns.items():
        setattr(attempt, name, value)
    record_event(
        invoice=invoice,
        kind="attempt.decline_named",
        stamp=stamp,
        subject_type="attempt",
        subject_id=attempt.public_id,
        data={"raw_code": decline.raw_code, "category": category},
        saves=(attempt, list(columns)),
    )


def decline_columns(decline: DeclineFacts, category: str, explanation: str) -> dict[str, Any]:
    """Codes cut to their columns, the provider's free text scrubbed."""
    return {
        "raw_code": decline.raw_code[:100],
        "network_code": decline.network_code[:40],
        "advice_code": (decline.advice_code or decline.provider_advice)[:40],
        "message": scrub_text(decline.message)[:500],
        "category": category,
        "explanation": explanation[:500],
    }


def attempt_error(
    attempt: Attempt,
    invoice: Invoice,
    *,
    code: str,
    category: str,
    explanation: str,
    stamp: Stamp,
    counts: bool = False,
) -> None:
    """ERRORED: no money moved. It uses up no budget unless it `counts`: nobody can prove that no network saw it."""
    move(
        attempt,
        "error",
        invoice=invoice,
        stamp=stamp,
        finished_at=stamp.now,
        next_check_at=None,
        counts=counts,
        raw_code=code[:100],
        category=category,
        explanation=explanation[:500],
        data={"raw_code": code, "category": category},
    )


def attempt_count(attempt: Attempt, invoice: Invoice, stamp: Stamp) -> None:
    """A call that was held for never made did reach the network after all: from now on it uses up budget."""
    attempt.counts = True
    record_event(
        invoice=invoice,
        kind="attempt.counted",
        stamp=stamp,
        subject_type="attempt",
        subject_id=attempt.public_id,
        data={"why": "the provider declined it"},
        saves=(attempt, ["counts"]),
    )


def attempt_move(attempt: Attempt, *, source: Invoice, target: Invoice, charge: Transaction, stamp: Stamp) -> None:
    """Let somebody else's finished try stand in another invoice and its `charge`; both invoices are locked. Writes
    `attempt.left` and `attempt.came`."""
    record_event(
        invoice=source,
        kind="attempt.left",
        stamp=stamp,
        subject_type="attempt",
        subject_id=attempt.public_id,
        from_state=attempt.status,
        data={"to": target.public_id},
    )
    attempt.number = _next_number(target, attempt.kind)
    attempt.invoice, attempt.transaction = target, charge
    record_event(
        invoice=target,
        kind="attempt.came",
        stamp=stamp,
        subject_type="attempt",
        subject_id=attempt.public_id,
        to_state=attempt.status,
        data={"from": source.public_id},
        saves=(attempt, ["number", "invoice", "transaction"]),
    )


def attempt_told_paid(attempt: Attempt, invoice: Invoice, *, at: datetime, payment_id: str, stamp: Stamp) -> None:
    """The biller has booked the invoice as paid while nobody knows what became of this attempt: it may be the payment.

    Kept with the attempt until its result is known; until then it is not sent again. Writes `attempt.told_paid`, once.
    """
    if "told_paid" in attempt.decision:
        return
    attempt.decision = {**attempt.decision, "told_paid": {"at": at.isoformat(), "payment_id": payment_id}}
    attempt.next_check_at = stamp.now
    record_event(
        invoice=invoice,
        kind="attempt.told_paid",
        stamp=stamp,
        subject_type="attempt",
        subject_id=attempt.public_id,
        data={"at": at.isoformat()},
        saves=(attempt, ["decision", "next_check_at"]),
    )


def attempt_await(
    attempt: Attempt,
    invoice: Invoice,
    *,
    expected_by: datetime,
    provider: Mapping[str, Any],
    stamp: Stamp,
    check_at: datetime | None = None,
) -> None:
    """AWAITING settlement until `expected_by`; looked at from `check_at` on (default: from then on)."""
    move(
        attempt,
        "wait",
        invoice=invoice,
        stamp=stamp,
        expected_by=expected_by,
        next_check_at=check_at or expected_by,
        data={"expected_by": expected_by.isoformat()},
        **provider,
    )


def attempt_lose_track(
    attempt: Attempt,
    invoice: Invoice,
    *,
    check_at: datetime,
    why: str,
    stamp: Stamp,
    raw: Mapping[str, Any] | None = None,
) -> None:
    """UNKNOWN: nobody knows; resolution looks at it from `check_at` on. `raw` is the answer that made no sense.

    It is kept with the attempt and not in its event, for nobody knows what stands in it.
    """
    kept = {"decision": {**attempt.decision, "raw_answer": raw_answer(raw)}} if raw else {}
    move(
        attempt,
        "lose_track",
        invoice=invoice,
        stamp=stamp,
        next_check_at=check_at,
        message=scrub_text(why)[:500],
        data={"why": scrub_text(why)[:300]},
        **kept,
    )


def another_id(attempt: Attempt, answer: ChargeResult) -> bool:
    """True if the provider's answer carries the id of something else: known for another attempt, or not the one that
    this attempt is known by. A payment that is later told by its charge's id is still the same payment."""
    told = answer.provider_id
    if not told or told == attempt.provider_id:
        return False
    if attempt.provider_id and answer.payment_id not in (attempt.provider_id, attempt.provider_payment_id or None):
        return True
    same_kind = _BY_PROVIDER_ID.all(connection=attempt.connection_id, kind=attempt.kind, told=told)
    return any(pk != attempt.pk for pk in same_kind)


_BY_PROVIDER_ID = Compiled(
    lambda: Attempt.objects.filter(
        connection=Param("connection"), kind=Param("kind"), provider_id=Param("told")
    ).values_list("pk", flat=True)
)


def charges_in_flight(invoice: Invoice) -> bool:
    """True while a charge of this invoice, whoever sent it, is SENDING, UNKNOWN or AWAITING."""
    return _IN_FLIGHT.first(invoice=invoice.pk) is not None


_IN_FLIGHT = Compiled(
    lambda: Attempt.objects.filter(
        invoice=Param("invoice"), kind=TransactionKind.CHARGE, status__in=ATTEMPT_OPEN
    ).values_list("pk", flat=True)[:1]
)
