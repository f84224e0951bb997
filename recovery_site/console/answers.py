"""What staff may answer to a question of the queue, and what each answer does."""

from collections.abc import Mapping
from dataclasses import dataclass

from django.db import transaction

from invoices.models import Attempt, ReviewItem
from invoices.services.ledger import Stamp
from invoices.services.reviews import review_resolve
from invoices.states import ATTEMPT_OPEN, ReviewKind
from recovery_site.common.errors import Conflict, InvalidInput, NotFound
from retries.locking import scope_lock
from retries.models import Case
from retries.services.manual import attempt_resolve, case_resume, invoice_cancel
from retries.states import CaseStatus, NextStep


@dataclass(frozen=True, slots=True)
class Answer:
    """One button: `label` on it, `effect` says in a sentence what pressing it does."""

    choice: str
    label: str
    effect: str
    tone: str = ""


_ANSWERS: Mapping[str, Answer] = {
    answer.choice: answer
    for answer in (
        Answer("charged", "It was charged", "The attempt counts as successful and the invoice as paid."),
        Answer(
            "not_charged",
            "It was not charged",
            "The attempt counts as never made; recovery goes on and may charge again.",
            "danger",
        ),
        Answer("keep", "Keep the money", "The question is closed; nothing is sent."),
        Answer("refund", "I refunded it at the provider", "The question is closed; the provider reports the refund."),
        Answer("noted", "Noted", "The question is closed; nothing is sent."),
        Answer("repaired", "It is repaired", "The next step is planned anew.", "primary"),
        Answer("give_up", "Write the invoice off", "Nothing more is collected for this invoice.", "danger"),
        Answer("paid", "It is paid", "The question is closed; the payment arrives by the provider's report."),
        Answer("not_paid", "It is not paid", "The question is closed; retry it from the invoice's page."),
    )
}

_GUIDANCE: Mapping[str, str] = {
    ReviewKind.UNKNOWN_ATTEMPT: (
        "The provider never told whether this charge went through, and looking it up did not help. Search for the"
        " reference at the provider: a wrong answer charges the customer twice or not at all."
    ),
    ReviewKind.OVERDUE_SETTLEMENT: "The bank should have settled this charge by now. Look at the provider's records.",
    ReviewKind.MISMATCH: "The provider's record differs from what was sent. Compare the two before you answer.",
    ReviewKind.PAID_TWICE: "The same debt was paid a second time. Give one payment back, or keep it as agreed.",
    ReviewKind.PAID_AFTER_CANCEL: "Money arrived for an invoice that was canceled. Give it back, or keep it as agreed.",
    ReviewKind.OVERPAID: "More arrived than was owed. Give the rest back, or keep it as agreed.",
    ReviewKind.WRONG_CURRENCY: "The payment is in another currency than the invoice, so it settles nothing by itself.",
    ReviewKind.DISPUTED: "The payment was taken back. No automatic charge follows; talk to the customer.",
    ReviewKind.CONFIGURATION: "The provider refuses our set-up. Repair it there or in the connection, then go on.",
    ReviewKind.FRAUD: "The bank suspects fraud, so recovery stopped. The payer is not told why.",
    ReviewKind.NO_PLAN: (
        "The provider says this was charged before. If that is so, its report settles the invoice; if not, retry it"
        " from the invoice's page."
    ),
    ReviewKind.UNMATCHED_PAYMENT: "A payment names two invoices. Check at the provider which one it belongs to.",
    ReviewKind.REFUND_STUCK: "A refund neither succeeded nor failed. Look at the provider's records.",
}


def guidance(kind: str) -> str:
    """What the question means and what to look at before answering."""
    return _GUIDANCE.get(kind, "Look at the facts, then answer.")


def answers_of(item: ReviewItem, *, waiting: bool) -> list[Answer]:
    """The answers that can be given now. `waiting`: the invoice's next step is this queue, so that an answer which
    only closes the question would leave the invoice without one."""
    return [
        _ANSWERS[choice]
        for choice in item.choices
        if choice in _ANSWERS and not (waiting and choice in ("paid", "not_paid"))
    ]


def waits_for_staff(case: Case | None) -> bool:
    """True while the invoice's next step is the staff queue."""
    return case is not None and case.status == CaseStatus.OPEN and case.next_step == NextStep.STAFF


@transaction.atomic
def review_answer(*, item_pk: int, choice: str, note: str, stamp: Stamp) -> str:
    """Give an answer and let it take effect; returns what happened, as a sentence.

    Locks customer, cards and invoice first. Raises Conflict if the question is closed or the answer would leave the
    invoice without a next step, InvalidInput for an answer that the question does not offer.
    """
    item = ReviewItem.objects.select_related("invoice").filter(pk=item_pk).first()
    if item is None or item.invoice is None:
        raise NotFound("This question does not exist or belongs to no invoice.")
    scope = scope_lock(customer_pk=item.invoice.customer_id, invoice_pk=item.invoice.pk)
    item = ReviewItem.objects.get(pk=item_pk)
    if item.resolved_at is not None:
        raise Conflict("This question is already answered; load the queue again.")
    case = Case.objects.filter(invoice=scope.invoice, status=CaseStatus.OPEN).first()
    if choice not in {answer.choice for answer in answers_of(item, waiting=waits_for_staff(case))}:
        raise InvalidInput("This answer is not possible now; load the queue again to see those that are.")
    attempt = _open_attempt(item) if choice in ("charged", "not_charged") else None
    if attempt is not None:
        # Resolving the attempt closes every question about it.
        attempt_resolve(attempt_pk=attempt.pk, charged=choice == "charged", stamp=stamp, note=note)
        return "The attempt was resolved: " + _ANSWERS[choice].effect
    review_resolve(item_pk=item.pk, invoice=scope.invoice, resolution=choice, stamp=stamp, note=note)
    if choice == "repaired" and case is not None and case.paused_by:
        case_resume(invoice_pk=scope.invoice.pk, stamp=stamp, reason=note)
    elif choice == "give_up":
        invoice_cancel(invoice_pk=scope.invoice.pk, stamp=stamp, reason=note, write_off=True)
    return _ANSWERS[choice].effect


def _open_attempt(item: ReviewItem) -> Attempt | None:
    """The attempt in question while its result is open; if events have told it meanwhile only the question is left."""
    return Attempt.objects.filter(public_id=item.subject_id, status__in=ATTEMPT_OPEN).first()
