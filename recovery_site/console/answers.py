"""The staff queue's questions and answers in words; what an answer does is `retries/services/answers.py`."""

from collections.abc import Mapping
from dataclasses import dataclass

from invoices.models import ReviewItem
from invoices.states import ReviewKind
from recovery_site.console.words import plain


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
        Answer("refunded", "It was refunded", "The refund counts as done."),
        Answer("not_refunded", "It was not refunded", "The refund counts as failed; it can be asked for again."),
        Answer("refund", "Refund it", "The money is sent back through the provider.", "danger"),
        Answer("keep", "Keep the money", "The question is closed; nothing is sent."),
        Answer("approve", "Approve the refund", "The money is sent back through the provider.", "danger"),
        Answer("refuse", "Refuse the refund", "Nothing is sent; the refund counts as failed."),
        Answer("noted", "Noted", "The question is closed; nothing is sent."),
        Answer("repaired", "It is repaired", "The next step is planned anew.", "primary"),
        Answer("paid", "It is paid", "The invoice counts as paid outside; nothing is charged."),
        Answer(
            "recover",
            "Recover it",
            "A case is opened and the next step planned from what is known; the customer may be charged.",
            "primary",
        ),
        Answer("again", "Try it again", "It is planned anew from what is known and prepared once more.", "primary"),
        Answer("give_up", "Give the refund up", "Nothing is sent; the refund counts as failed.", "danger"),
        Answer("cancel", "Cancel the invoice", "Nothing more is collected; the invoice is canceled.", "danger"),
        Answer("write_off", "Write it off", "Nothing more is collected; the invoice is written off.", "danger"),
        Answer("not_paid", "It is not paid", "Recovery goes on and may charge again.", "danger"),
    )
}

# What the same word means for another question.
_FOR_KIND: Mapping[tuple[str, str], Answer] = {
    (kind, answer.choice): answer
    for kind, answer in (
        (
            ReviewKind.MISMATCH,
            Answer(
                "charged_as_told",
                "It was charged as the provider says",
                "The attempt counts as successful with the provider's amount; what goes beyond the debt becomes a"
                " question of its own.",
            ),
        ),
        (
            ReviewKind.MISMATCH,
            Answer(
                "charged",
                "It was charged as we asked",
                "The attempt counts as successful with the amount and currency that were sent, whatever the provider's"
                " record says.",
            ),
        ),
        (
            ReviewKind.PAID_TWICE,
            Answer("refund", "Refund this payment", "This second payment goes back whole; the first stands.", "danger"),
        ),
        (
            ReviewKind.PAID_TWICE,
            Answer("keep", "Keep both", "Both payments stay with the merchant; nothing is sent or charged."),
        ),
        (
            ReviewKind.PAID_AFTER_CANCEL,
            Answer("keep", "Keep the money", "The money stays, the invoice stays canceled; nothing is sent."),
        ),
        (
            ReviewKind.OVERPAID,
            Answer("refund", "Refund the surplus", "Only what came beyond the debt is sent back.", "danger"),
        ),
        (
            ReviewKind.OVERPAID,
            Answer("keep", "Keep the surplus", "The surplus stays with the merchant; nothing is sent or charged."),
        ),
        (
            ReviewKind.WRONG_CURRENCY,
            Answer(
                "pays",
                "It pays the debt",
                "All that is due counts as credited, the invoice as settled, and nothing more is charged. No amount in"
                " the invoice's currency is booked as paid or recovered.",
                "primary",
            ),
        ),
        (
            ReviewKind.WRONG_CURRENCY,
            Answer(
                "refund",
                "Refund it",
                "The money is sent back through the provider. What the invoice owes stays owed: recovery goes on and"
                " may charge the customer.",
                "danger",
            ),
        ),
        (
            ReviewKind.WRONG_CURRENCY,
            Answer(
                "keep",
                "Keep it, the debt stays",
                "The money stays with the merchant and pays nothing of this invoice: recovery goes on and may charge"
                " the customer the whole debt once more.",
                "danger",
            ),
        ),
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
    ReviewKind.WRONG_CURRENCY: (
        "The payment is in another currency than the invoice, so it settles nothing by itself. Decide whether it pays"
        " what is due: unless it does, recovery of an open invoice goes on and may charge again."
    ),
    ReviewKind.DISPUTED: "The payment was taken back. No automatic charge follows; talk to the customer.",
    ReviewKind.CONFIGURATION: "The provider refuses our set-up. Repair it there or in the connection, then go on.",
    ReviewKind.FRAUD: "The bank suspects fraud, so recovery stopped. The payer is not told why.",
    ReviewKind.NO_PLAN: (
        "No machine may take the next step; the facts say why. Look at the provider whether it is paid: a wrong answer"
        " charges the customer twice or not at all."
    ),
    ReviewKind.UNMATCHED_PAYMENT: "A payment names two invoices. Check at the provider which one it belongs to.",
    ReviewKind.REFUND_APPROVAL: (
        "With this refund, what the invoice gives back in all is above the merchant's limit, so a second person has to"
        " release it."
    ),
    ReviewKind.REFUND_STUCK: "A refund neither succeeded nor failed. Look at the provider's records.",
}


def guidance(kind: str) -> str:
    """What the question means and what to look at before answering."""
    return _GUIDANCE.get(kind, "Look at the facts, then answer.")


def answers_of(item: ReviewItem) -> list[Answer]:
    """The buttons of a question; an answer without words of its own is shown readably."""
    return [_answer(item.kind, choice) or Answer(choice, plain(choice).capitalize(), "") for choice in item.choices]


def answered(item: ReviewItem, choice: str) -> str:
    """What to tell the person who gave the answer."""
    answer = _answer(item.kind, choice)
    return answer.effect if answer else "The question is answered."


def _answer(kind: str, choice: str) -> Answer | None:
    return _FOR_KIND.get((kind, choice)) or _ANSWERS.get(choice)
