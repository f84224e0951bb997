"""Staff's answers to review items: every kind of question has its answers, and each answer does what it says."""

from collections.abc import Callable, Mapping

from django.db import transaction

from invoices.models import Attempt, Connection, Invoice, ReviewItem, Transaction
from invoices.services.ledger import Stamp
from invoices.services.parties import connection_switch
from invoices.services.reviews import review_resolve
from invoices.states import ATTEMPT_FINISHED, INVOICE_OPEN, ReviewKind, TransactionKind
from recovery_site.common.db import for_no_key_update
from recovery_site.common.errors import InvalidInput, NotFound
from retries.locking import Scope, open_case, scope_lock
from retries.models import Case, RetryJob
from retries.refunding import refund_approve, refund_refuse, refund_request
from retries.refunding.resolve import refund_attempt_resolve
from retries.refunding.send import refund_fail
from retries.services import outcomes
from retries.services.booking import slot_release
from retries.services.cancel import invoice_end
from retries.services.cases import case_ensure
from retries.services.manual import attempt_resolve, case_resume
from retries.services.planning import case_plan, nothing_due
from retries.states import CaseStatus, JobStatus, NextStep
from tokens.models import Token
from tokens.services import token_release


def review_answer(*, item_pk: int, answer: str, stamp: Stamp, note: str = "") -> None:
    """Answer an open question and carry the answer out; audited with `review.resolved`.

    Raises NotFound, InvalidInput for an answer that the question does not offer, Conflict where the world has moved on.
    """
    item = ReviewItem.objects.filter(pk=item_pk, resolved_at__isnull=True).first()
    if item is None:
        raise NotFound("This question does not exist or is already answered.")
    if answer not in item.choices:
        raise InvalidInput(f"{answer!r} is not one of the answers: {', '.join(item.choices)}.")
    with transaction.atomic():
        _ANSWERS[ReviewKind(item.kind)](item, answer, stamp, note)


def _close(item: ReviewItem, answer: str, stamp: Stamp, note: str) -> Scope:
    """Nothing but the answer itself; returns what is locked."""
    scope = _scope(item)
    review_resolve(item_pk=item.pk, invoice=scope.invoice, resolution=answer, stamp=stamp, note=note)
    return scope


def _scope(item: ReviewItem) -> Scope:
    if item.invoice_id is None:
        raise InvalidInput("This question has no invoice in whose history the answer could stand.")
    customer_pk = Invoice.objects.values_list("customer_id", flat=True).get(pk=item.invoice_id)
    return scope_lock(customer_pk=customer_pk, invoice_pk=item.invoice_id)


def _attempt(item: ReviewItem, answer: str, stamp: Stamp, note: str) -> None:
    attempt = Attempt.objects.get(public_id=item.subject_id)
    if attempt.status in ATTEMPT_FINISHED:
        # Events have said meanwhile how it ended; what is left is a person's remark.
        _close(item, answer, stamp, note)
    elif attempt.kind == TransactionKind.REFUND:
        refund_attempt_resolve(
            attempt_pk=attempt.pk, refunded=answer in ("refunded", "charged"), stamp=stamp, note=note
        )
    else:
        told = item.facts if answer == "charged_as_told" else None
        charged = answer != "not_charged"
        attempt_resolve(attempt_pk=attempt.pk, charged=charged, stamp=stamp, note=note, told=told)


def _surplus(item: ReviewItem, answer: str, stamp: Stamp, note: str) -> None:
    """Money that came without being owed: given back in one click, or kept."""
    _close(item, answer, stamp, note)
    if answer != "refund":
        return
    charge = Transaction.objects.select_related("invoice").get(public_id=item.subject_id)
    amount = None
    if item.kind == ReviewKind.OVERPAID:
        invoice = charge.invoice
        amount = min(charge.captured_minor or 0, invoice.paid_minor + invoice.credited_minor - invoice.amount_minor)
    reason = ReviewKind(item.kind).label
    refund_request(
        invoice_pk=charge.invoice_id, amount_minor=amount, reason=reason, stamp=stamp, charge_id=charge.public_id
    )


def _foreign(item: ReviewItem, answer: str, stamp: Stamp, note: str) -> None:
    """Money in another currency: it pays the debt, or the debt stands and recovery goes on, whether it stays or not."""
    if answer == "pays":
        scope = _close(item, answer, stamp, note)
        charge = for_no_key_update(Transaction.objects.filter(public_id=item.subject_id)).get()
        outcomes.debt_is_paid_by(scope, charge, stamp)
        return
    _surplus(item, answer, stamp, note)
    scope = _scope(item)
    case = open_case(scope.invoice)
    asked = ReviewItem.objects.filter(invoice=scope.invoice, resolved_at__isnull=True).exists()
    if case is not None and case.next_step == NextStep.STAFF and not asked:
        case_plan(scope, case, stamp)


def _approval(item: ReviewItem, answer: str, stamp: Stamp, note: str) -> None:
    refund_pk = Transaction.objects.values_list("pk", flat=True).get(public_id=item.subject_id)
    if answer == "approve":
        refund_approve(refund_pk=refund_pk, stamp=stamp, note=note)
    else:
        refund_refuse(refund_pk=refund_pk, stamp=stamp, note=note)


def _configuration(item: ReviewItem, answer: str, stamp: Stamp, note: str) -> None:
    """Repaired: what waited for it goes on, all together if it was the whole connection."""
    _close(item, answer, stamp, note)
    waiting = Case.objects.filter(status=CaseStatus.OPEN, paused_by="configuration", merchant_id=item.merchant_id)
    if item.subject_type == "token":
        token = Token.objects.get(public_id=item.subject_id)
        token_release(token_pk=token.pk)
        waiting = waiting.filter(customer_id=token.customer_id)
    elif item.subject_type == "connection":
        waiting = waiting.filter(connection__public_id=item.subject_id)
        connection = Connection.objects.get(public_id=item.subject_id)
        connection_switch(connection_pk=connection.pk, enabled=True)
    else:
        waiting = waiting.filter(public_id=item.subject_id)
    for invoice_pk in waiting.order_by("customer_id", "pk").values_list("invoice_id", flat=True):
        case_resume(invoice_pk=invoice_pk, stamp=stamp, reason=note or "the configuration was repaired")


def _no_plan(item: ReviewItem, answer: str, stamp: Stamp, note: str) -> None:
    """A machine found no step: it was paid after all, it goes on (with a case, if it has none), or it is given up."""
    scope = _close(item, answer, stamp, note)
    if item.subject_type == "job" and answer in ("again", "give_up"):
        _job(scope, item.subject_id, stamp, again=answer == "again")
        return
    if answer == "noted" or scope.invoice.status not in INVOICE_OPEN:
        return
    case = open_case(scope.invoice)
    if scope.invoice.due_minor == 0:
        nothing_due(scope, stamp, case=case)
    elif answer == "paid":
        outcomes.invoice_was_paid(scope, stamp)
    elif answer in ("cancel", "write_off"):
        write_off = answer == "write_off"
        invoice_end(scope, reason="written_off" if write_off else "canceled", write_off=write_off, stamp=stamp)
    elif answer == "recover":
        case_plan(scope, case or case_ensure(scope, opened_at=stamp.now, stamp=stamp), stamp)
    elif case is not None:
        case.failure = {**case.failure, "verdict": {**case.failure["verdict"], "look_up": False}}
        case.save(update_fields=["failure"])
        case_plan(scope, case, stamp)


def _job(scope: Scope, public_id: str, stamp: Stamp, *, again: bool) -> None:
    """What could not be prepared is tried again at once, or (a refund) given up."""
    job = for_no_key_update(RetryJob.objects.filter(public_id=public_id)).get()
    case = open_case(scope.invoice)
    if job.status != JobStatus.NEEDS_REVIEW:
        return
    if job.kind == TransactionKind.CHARGE and case is not None:
        case_plan(scope, case, stamp)
        return
    job.failures, job.last_error, job.due_at = 0, "", stamp.now
    if not again:
        job.cancel()
        refund = for_no_key_update(Transaction.objects.filter(pk=job.transaction_id)).get()
        refund_fail(scope, refund, "It could not be prepared, and staff gave it up.", stamp)
    elif job.kind == TransactionKind.REFUND:
        job.schedule()
    else:
        job.queue()
    job.save(update_fields=["status", "failures", "last_error", "due_at"])
    slot_release(scope, stamp)


_Answer = Callable[[ReviewItem, str, Stamp, str], object]
_ANSWERS: Mapping[ReviewKind, _Answer] = {
    ReviewKind.UNKNOWN_ATTEMPT: _attempt,
    ReviewKind.OVERDUE_SETTLEMENT: _attempt,
    ReviewKind.MISMATCH: _attempt,
    ReviewKind.REFUND_STUCK: _attempt,
    ReviewKind.PAID_TWICE: _surplus,
    ReviewKind.PAID_AFTER_CANCEL: _surplus,
    ReviewKind.OVERPAID: _surplus,
    ReviewKind.WRONG_CURRENCY: _foreign,
    ReviewKind.REFUND_APPROVAL: _approval,
    ReviewKind.CONFIGURATION: _configuration,
    ReviewKind.NO_PLAN: _no_plan,
    ReviewKind.DISPUTED: _close,
    ReviewKind.FRAUD: _close,
    ReviewKind.UNMATCHED_PAYMENT: _close,
}
