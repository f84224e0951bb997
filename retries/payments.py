"""A payment as an integrator asks for it: found by any of its ids, its retry's state as one value."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import Count, Exists, OuterRef, Q, QuerySet, Sum

from accounts.models import Merchant
from invoices.models import Attempt, Connection, Customer, Invoice, ProviderPayment, Transaction
from invoices.states import INVOICE_PAID, AttemptStatus, TransactionKind
from recovery_site.common.errors import Conflict, NotFound
from retries.models import Case, RetryJob
from retries.selectors import case_failure, case_policy, case_usage
from retries.states import JOB_OPEN, CaseStatus, JobStatus, NextStep


@dataclass(frozen=True, slots=True)
class Payment:
    """An invoice and its newest charge, by the `name` that the caller uses for it."""

    name: str
    invoice: Invoice
    charge: Transaction | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryStatus:
    """`status`: the next step of an open case, the end of a closed one, `succeeded` without any failure, else `none`.

    `attempts` of `max_attempts` retries were made after this kind of failure; `total_attempts` counts every try of the
    invoice, whoever made it. `priority` 0 goes first. `reason` says why it stands as it does.
    """

    transaction_id: str
    transaction: str
    invoice: str
    customer: str
    connection: str
    case: str
    job: str
    status: str
    attempts: int
    max_attempts: int
    total_attempts: int
    priority: int | None
    next_retry_at: datetime | None
    token: str
    payment_method_id: str
    created_at: datetime | None
    error_code: str
    error_message: str
    category: str
    reason: str
    user_id: str
    amount_minor: int
    currency: str
    payment_intent_id: str
    description: str


def payment_find(*, merchant: Merchant, name: str) -> Payment | None:
    """By our transaction's id, or by the provider's (the merchant's) id of invoice, payment or charge.

    Raises Conflict if the merchant's connections use the same id for different invoices.
    """
    charge = Transaction.objects.filter(merchant=merchant, public_id=name, kind=TransactionKind.CHARGE).first()
    if charge is not None:
        return Payment(name, _invoices().get(pk=charge.invoice_id), charge)
    connections = list(Connection.objects.filter(merchant=merchant).values_list("pk", flat=True))
    for found in (
        Invoice.objects.filter(connection__in=connections, provider_invoice_id=name).values_list("pk", flat=True),
        ProviderPayment.objects.filter(connection__in=connections, provider_payment_id=name).values_list(
            "invoice_id", flat=True
        ),
        Attempt.objects.filter(connection__in=connections, kind=TransactionKind.CHARGE, provider_id=name).values_list(
            "invoice_id", flat=True
        ),
    ):
        pks = sorted(set(found[:2]))
        if len(pks) > 1:
            raise Conflict("Several connections use this id; ask by our transaction's id (txn_...).")
        if pks:
            charge = Transaction.objects.filter(invoice_id=pks[0], kind=TransactionKind.CHARGE).order_by("-id").first()
            return Payment(name, _invoices().get(pk=pks[0]), charge)
    return None


def payment_require(*, merchant: Merchant, name: str) -> Payment:
    """As `payment_find`; raises NotFound."""
    payment = payment_find(merchant=merchant, name=name)
    if payment is None:
        raise NotFound("There is no such transaction among yours.")
    return payment


def _invoices() -> QuerySet[Invoice]:
    return Invoice.objects.select_related("customer", "connection", "merchant")


_WAITS = (NextStep.BOOKED, NextStep.QUEUED, NextStep.PROVIDER)


def retry_status(payment: Payment) -> RetryStatus:
    """What is known now about the payment's retries; a handful of queries whatever its history."""
    invoice = payment.invoice
    case = Case.objects.filter(invoice=invoice).select_related("policy_version").order_by("-id").first()
    job = (
        RetryJob.objects.filter(invoice=invoice, kind=TransactionKind.CHARGE, status__in=JOB_OPEN)
        .select_related("token", "transaction")
        .first()
    )
    tries = Attempt.objects.filter(invoice=invoice, kind=TransactionKind.CHARGE)
    last = tries.select_related("token").order_by("-id").first()
    attempts, maximum = _allowance(case)
    charge = job.transaction if job is not None else payment.charge
    token = job.token if job is not None and job.token is not None else (last.token if last else None)
    return RetryStatus(
        transaction_id=payment.name,
        transaction=charge.public_id if charge else "",
        invoice=invoice.public_id,
        customer=invoice.customer.public_id,
        connection=invoice.connection.public_id,
        case=case.public_id if case else "",
        job=job.public_id if job else "",
        status=_status(invoice, case, job, last),
        attempts=attempts,
        max_attempts=maximum,
        total_attempts=last.number if last else 0,
        priority=job.band if job else None,
        next_retry_at=_next_at(case, job),
        token=token.public_id if token else "",
        payment_method_id=token.provider_token if token else "",
        created_at=case.opened_at if case else None,
        error_code=case.code if case else "",
        error_message=_message(case, last),
        category=case.category if case else "",
        reason=case.why if case else job.why if job else "",
        user_id=invoice.customer.connector_customer_id,
        amount_minor=invoice.amount_minor,
        currency=invoice.currency,
        payment_intent_id=_payment_intent(invoice, last),
        description=invoice.description,
    )


def never_failed(invoice: Invoice) -> bool:
    """Nobody has tried to charge it yet, as far as is known here."""
    tried = Attempt.objects.filter(invoice=invoice, kind=TransactionKind.CHARGE)
    return not Case.objects.filter(invoice=invoice).exists() and not tried.exists()


_IN_FLIGHT = {
    AttemptStatus.SENDING: NextStep.SENDING,
    AttemptStatus.UNKNOWN: NextStep.RESOLVING,
    AttemptStatus.AWAITING: NextStep.AWAITING,
}


def _status(invoice: Invoice, case: Case | None, job: RetryJob | None, last: Attempt | None) -> str:
    if case is not None:
        return str(case.next_step if case.status == CaseStatus.OPEN else case.status).lower()
    if invoice.status in INVOICE_PAID:
        return "succeeded"
    if last is not None and last.status in _IN_FLIGHT:
        return _IN_FLIGHT[AttemptStatus(last.status)].value
    if job is not None:
        return (NextStep.QUEUED if job.status == JobStatus.QUEUED else NextStep.BOOKED).value
    return "none"


def _next_at(case: Case | None, job: RetryJob | None) -> datetime | None:
    if case is None:
        return job.due_at if job else None
    return case.next_step_at if case.status == CaseStatus.OPEN and case.next_step in _WAITS else None


def _allowance(case: Case | None) -> tuple[int, int]:
    if case is None:
        return 0, 0
    failure = case_failure(case)
    verdict = failure.verdict
    strategy = case_policy(case).strategy_for(case.segment, verdict.category, verdict.known, verdict.retry_class)
    return case_usage(case, failure).of_kind, strategy.max_attempts


def _message(case: Case | None, last: Attempt | None) -> str:
    if case is None or last is None:
        return ""
    return last.message or last.explanation


def _payment_intent(invoice: Invoice, last: Attempt | None) -> str:
    if last is not None and last.provider_payment_id:
        return last.provider_payment_id
    link = ProviderPayment.objects.filter(invoice=invoice).order_by("-id").first()
    return link.provider_payment_id if link else ""


_SHOWN = 50


def customer_payments(customers: Sequence[Customer]) -> list[Payment]:
    """The customers' newest payments that have failed at some time, by their own names."""
    failed = Case.objects.filter(invoice=OuterRef("pk"))
    invoices = _invoices().filter(Exists(failed), customer__in=customers).order_by("-pk")[:_SHOWN]
    charges = Transaction.objects.filter(kind=TransactionKind.CHARGE).order_by("-pk")
    found = []
    for invoice in invoices:
        charge = charges.filter(invoice=invoice).first()
        name = invoice.provider_invoice_id or (charge.public_id if charge else invoice.public_id)
        found.append(Payment(name, invoice, charge))
    return found


def retry_stats(merchant: Merchant) -> dict[str, Any]:
    """Open cases of the merchant: how many, how many with a retry to come, what is due, and why they failed."""
    cases = Case.objects.filter(merchant=merchant, status=CaseStatus.OPEN)
    counts = cases.aggregate(
        total=Count("pk"), pending=Count("pk", filter=Q(next_step__in=(NextStep.BOOKED, NextStep.QUEUED)))
    )
    amounts = cases.order_by().values_list("currency").annotate(total=Sum("amount_minor"))
    codes = cases.order_by().values_list("code").annotate(total=Count("pk"))
    return {**counts, "amounts": dict(amounts), "by_error_code": {code or "unknown": total for code, total in codes}}
