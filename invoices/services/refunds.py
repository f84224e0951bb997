"""Money given back. The refund transactions carry the truth; the invoice's state follows from them."""

from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db.models import F, Q, Sum
from django.db.models.functions import Coalesce

from invoices.models import Attempt, Invoice, Transaction
from invoices.services.attempts import ReportedAttempt, attempt_await, attempt_report
from invoices.services.billing import totals_refresh
from invoices.services.ledger import Stamp, alert, move, record_event
from invoices.services.reviews import review_open, reviews_close
from invoices.states import (
    ATTEMPT_OPEN,
    TRANSACTION_OPEN,
    AttemptStatus,
    InvoiceStatus,
    Origin,
    ReviewKind,
    TransactionKind,
    TransactionStatus,
)
from providers.base import RefundFacts, RefundStatus
from recovery_site.common.rows import row_insert, row_save
from recovery_site.common.scrubbing import scrub_text

# How long a pending refund usually takes at most, where the provider names no date.
REFUND_TAKES = timedelta(days=10)


def refund_record(invoice: Invoice, paid: Attempt, facts: RefundFacts, stamp: Stamp) -> None:
    """Take in a provider's word about one refund of `paid`, under the invoice's lock; told again it changes nothing.

    A `derived` refund (only the new total was told) counts once per total, unless the refunds known already reach that
    total or refunds tell of themselves by events of their own; it has no id until such an event brings one. Facts that
    contradict what is known of the refund are put before staff and change nothing.
    """
    attempt = _known(paid, facts)
    if attempt is None and facts.derived and _covered(paid, facts):
        return
    if attempt is not None and (difference := _difference(attempt, paid, facts)):
        _ask(invoice, attempt, facts, difference, stamp)
        return
    if attempt is None:
        refund = refund_create(
            invoice,
            charge=paid.transaction,
            amount_minor=facts.amount_minor,
            currency=facts.currency,
            reason=facts.reason,
            stamp=stamp,
        )
        move(refund, "submit", invoice=invoice, stamp=stamp)
        attempt = attempt_report(
            invoice,
            ReportedAttempt(
                transaction=refund,
                amount_minor=facts.amount_minor,
                currency=facts.currency,
                attempted_at=stamp.now,
                provider_id="" if facts.derived else facts.id,
                provider_payment_id=facts.payment_id,
                decision={"derived": facts.id} if facts.derived else {},
            ),
        )
    else:
        refund = Transaction.objects.select_for_update(no_key=True).get(pk=attempt.transaction_id)
    _refund_move(invoice, refund, attempt, facts, stamp)
    refund_state(invoice, stamp)


def refund_create(
    invoice: Invoice, *, charge: Transaction, amount_minor: int, currency: str, reason: str, stamp: Stamp
) -> Transaction:
    """A new REFUND transaction (INIT) of a charge; writes `transaction.created`."""
    refund = Transaction(
        merchant_id=invoice.merchant_id,
        invoice=invoice,
        kind=TransactionKind.REFUND,
        amount_minor=amount_minor,
        currency=currency,
        refund_of=charge,
        reason=reason[:500],
        started_at=stamp.now,
        created_by=stamp.actor,
    )
    row_insert(refund)
    record_event(
        invoice=invoice,
        kind="transaction.created",
        stamp=stamp,
        subject_type="transaction",
        subject_id=refund.public_id,
        to_state=refund.status,
        data={"kind": refund.kind, "amount_minor": amount_minor, "currency": currency},
    )
    return refund


def _known(paid: Attempt, facts: RefundFacts) -> Attempt | None:
    refunds = Attempt.objects.filter(connection_id=paid.connection_id, kind=TransactionKind.REFUND)
    if facts.derived:
        return refunds.filter(transaction__refund_of=paid.transaction, decision__derived=facts.id).first()
    found = refunds.filter(provider_id=facts.id).first()
    if found is None and facts.reference:
        found = refunds.filter(public_id=facts.reference, origin=Origin.OURS).first()
    if found is None:
        nameless = refunds.exclude(origin=Origin.OURS).filter(
            transaction__refund_of=paid.transaction, provider_id=None, amount_minor=facts.amount_minor
        )
        found = nameless.order_by("id").first()
    return found


def _difference(attempt: Attempt, paid: Attempt, facts: RefundFacts) -> str:
    """What in the facts cannot be true of this refund, in words."""
    found = []
    if attempt.transaction.refund_of_id != paid.transaction_id:
        found.append("it names the refund of another payment")
    if facts.amount_minor != attempt.amount_minor:
        found.append(f"amount {facts.amount_minor} instead of {attempt.amount_minor}")
    if facts.currency != attempt.currency:
        found.append(f"currency {facts.currency} instead of {attempt.currency}")
    return ", ".join(found)


def _ask(invoice: Invoice, attempt: Attempt, facts: RefundFacts, difference: str, stamp: Stamp) -> None:
    """An open refund of this invoice is decided by staff; what has an end already is only shown to them."""
    undecided = attempt.invoice_id == invoice.pk and attempt.status in ATTEMPT_OPEN
    raw = {"id": facts.id, "amount_minor": facts.amount_minor, "currency": facts.currency, "status": facts.status}
    review_open(
        invoice=invoice,
        kind=ReviewKind.REFUND_STUCK if undecided else ReviewKind.MISMATCH,
        subject_type="attempt",
        subject_id=attempt.public_id,
        facts={"why": f"the provider's word about a refund differs: {difference}", "raw": raw},
        choices=["refunded", "not_refunded"] if undecided else ["noted"],
        stamp=stamp,
    )


def _covered(paid: Attempt, facts: RefundFacts) -> bool:
    """True if the refunds of this charge that are known and did not fail already make up the total that was told.

    Where the provider also sends each refund's own events, a total adds nothing but the danger of counting twice.
    """
    reported = Attempt.objects.filter(transaction__refund_of=paid.transaction, provider_id__isnull=False)
    if reported.exclude(origin=Origin.OURS).exists():
        return True
    told = int(facts.id.rpartition(":")[2])
    known = Transaction.objects.filter(
        refund_of=paid.transaction,
        status__in=(*TRANSACTION_OPEN, TransactionStatus.DONE),
        reversed_at=None,
    )
    return (known.aggregate(total=Sum("amount_minor"))["total"] or 0) >= told


def refund_in_flight(paid: Attempt) -> bool:
    """True while the result of a refund of ours of this charge is not known."""
    return Attempt.objects.filter(
        kind=TransactionKind.REFUND,
        origin=Origin.OURS,
        transaction__refund_of=paid.transaction,
        status__in=(AttemptStatus.SENDING, AttemptStatus.UNKNOWN),
    ).exists()


def refund_ambiguous(paid: Attempt, facts: RefundFacts) -> bool:
    """True for a refund that names nothing we know while one of ours of the same charge, whose id is not known either,
    is being sent or has no known end."""
    if facts.reference or facts.derived:
        return False
    refunds = Attempt.objects.filter(connection_id=paid.connection_id, kind=TransactionKind.REFUND)
    ours = refunds.filter(
        origin=Origin.OURS,
        transaction__refund_of=paid.transaction,
        status__in=(AttemptStatus.SENDING, AttemptStatus.UNKNOWN),
        provider_id=None,
    )
    return ours.exists() and not refunds.filter(provider_id=facts.id).exists()


def _refund_move(invoice: Invoice, refund: Transaction, attempt: Attempt, facts: RefundFacts, stamp: Stamp) -> None:
    nameless = attempt.provider_id is None and facts.id and not facts.derived
    name: dict[str, Any] = {"provider_id": facts.id} if nameless else {}
    late = attempt.status in (AttemptStatus.DECLINED, AttemptStatus.ERRORED)
    if facts.status is RefundStatus.SUCCEEDED and attempt.status != AttemptStatus.SUCCEEDED:
        if late:
            alert(invoice, "late_success", "A refund that counted as failed has succeeded after all.", stamp)
        move(
            attempt,
            "late_success" if late else "succeed",
            invoice=invoice,
            stamp=stamp,
            data={"captured_minor": facts.amount_minor},
            captured_minor=facts.amount_minor,
            finished_at=stamp.now,
            counts=False,
            **name,
        )
        move(
            refund,
            "succeed",
            invoice=invoice,
            stamp=stamp,
            captured_minor=facts.amount_minor,
            finished_at=stamp.now,
            data={"captured_minor": facts.amount_minor},
        )
    elif facts.status is RefundStatus.FAILED and attempt.status in ATTEMPT_OPEN:
        failure = scrub_text(facts.failure_reason)[:500]
        move(
            attempt,
            "decline",
            invoice=invoice,
            stamp=stamp,
            finished_at=stamp.now,
            raw_code=facts.failure_reason[:100],
            counts=False,
            **name,
        )
        if refund.status in TRANSACTION_OPEN:
            move(refund, "fail", invoice=invoice, stamp=stamp, finished_at=stamp.now, failure=failure)
        text = f"A refund failed at the provider: {failure or 'no reason was given'}."
        alert(invoice, "refund_failed", text[:400], stamp, {"refund": refund.public_id})
    elif (
        facts.status is RefundStatus.FAILED and attempt.status == AttemptStatus.SUCCEEDED and refund.reversed_at is None
    ):
        refund.reversed_at, refund.failure = stamp.now, scrub_text(facts.failure_reason)[:500]
        row_save(refund, "reversed_at", "failure")
        record_event(
            invoice=invoice,
            kind="transaction.refund_reversed",
            stamp=stamp,
            subject_type="transaction",
            subject_id=refund.public_id,
            data={"amount_minor": refund.captured_minor},
        )
        alert(
            invoice,
            "refund_failed",
            "A refund was taken back after it had succeeded.",
            stamp,
            {"refund": refund.public_id},
        )
    elif facts.status is RefundStatus.PENDING and attempt.status in (AttemptStatus.SENDING, AttemptStatus.UNKNOWN):
        refund_awaited(invoice, attempt, facts.id if nameless else "", stamp)
    elif nameless:
        attempt.provider_id = facts.id
        row_save(attempt, "provider_id")
    if attempt.status not in ATTEMPT_OPEN:
        subject = attempt.public_id
        reviews_close(invoice=invoice, kinds=[ReviewKind.REFUND_STUCK], subject_id=subject, stamp=stamp)


def refund_awaited(
    invoice: Invoice, attempt: Attempt, provider_id: str, stamp: Stamp, *, expected_by: datetime | None = None
) -> None:
    """The provider has taken the refund on and has not ended it: AWAITING, read again once it counts as stuck."""
    attempt_await(
        attempt,
        invoice,
        expected_by=expected_by or stamp.now + REFUND_TAKES,
        provider={"provider_id": provider_id} if provider_id else {},
        stamp=stamp,
        check_at=max(stamp.now, attempt.attempted_at + settings.RECONCILE_REFUND_STUCK_AFTER),
    )


def _credit_stands(invoice: Invoice) -> bool:
    """True while some money in another currency that pays the debt was not given back."""
    given = Sum("refunds__captured_minor", filter=Q(refunds__status=TransactionStatus.DONE, refunds__reversed_at=None))
    paying = Transaction.objects.filter(
        invoice=invoice, kind=TransactionKind.CHARGE, status=TransactionStatus.DONE, settles_minor__isnull=False
    )
    return paying.annotate(given=Coalesce(given, 0)).filter(captured_minor__gt=F("given")).exists()


def refund_state(invoice: Invoice, stamp: Stamp) -> None:
    """Derive REFUNDING, REFUNDED or SETTLED from the refund transactions of a paid invoice."""
    totals_refresh(invoice)
    refunds = Transaction.objects.filter(invoice=invoice, kind=TransactionKind.REFUND)
    is_open = refunds.filter(status__in=TRANSACTION_OPEN).exists()
    done = refunds.filter(status=TransactionStatus.DONE, reversed_at=None).exists()
    full = done and invoice.refunded_minor >= invoice.paid_minor and not _credit_stands(invoice)
    if invoice.status == InvoiceStatus.SETTLED and (is_open or full):
        move(invoice, "begin_refund", invoice=invoice, stamp=stamp)
    if invoice.status == InvoiceStatus.REFUNDING and not is_open:
        if full:
            move(invoice, "finish_refund", invoice=invoice, stamp=stamp)
        else:
            reason = "partial refund done" if done else "refund failed"
            move(invoice, "settle_again", invoice=invoice, stamp=stamp, data={"reason": reason})
    elif invoice.status == InvoiceStatus.REFUNDED and not full:
        move(invoice, "settle_again", invoice=invoice, stamp=stamp, data={"reason": "refund reversed"})
