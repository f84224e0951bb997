"""The failed tries of a row whose place another one takes (`joining`) go there: what is known of a debt stands in one
place, whichever of its events came first."""

from django.db.models import QuerySet

from invoices.models import Attempt, Invoice
from invoices.services.attempts import attempt_move
from invoices.services.ledger import Stamp
from invoices.states import AttemptStatus, Origin, TransactionKind
from recovery_site.common.db import for_no_key_update
from recovery_site.common.rows import row_save
from retries.handler.resolve import SAME_CHARGE_WITHIN
from retries.handler.tries import charge_of_try, try_counted
from retries.locking import Scope
from retries.models import Case
from retries.services import outcomes


def tries_move(shell: Scope, heir: Scope, stamp: Stamp) -> None:
    """Move to `heir` what was tried of `shell`, and plan anew what follows from it.

    A try that both halves have told of becomes one: the payment's own row, which has its names and codes, takes the
    place of the biller's word.
    """
    for attempt in for_no_key_update(_failed_tries(shell.invoice).order_by("attempted_at", "pk")):
        if attempt.origin == Origin.OURS:
            _move(attempt, shell, heir, stamp, word=None)
        elif attempt.provider_id or attempt.provider_payment_id:
            _move(attempt, shell, heir, stamp, word=_word_of(attempt, heir.invoice))
        elif try_counted(
            heir.invoice,
            charge_id="",
            biller_number=attempt.decision.get("biller_number"),
            at=attempt.attempted_at,
        ):
            _count_no_more(attempt)
        else:
            _move(attempt, shell, heir, stamp, word=None)


def _failed_tries(invoice: Invoice) -> QuerySet[Attempt]:
    declined = Attempt.objects.filter(invoice=invoice, kind=TransactionKind.CHARGE, status=AttemptStatus.DECLINED)
    return declined.filter(disputes=None)


def _move(attempt: Attempt, shell: Scope, heir: Scope, stamp: Stamp, *, word: Attempt | None) -> None:
    charge = attempt.transaction
    if word is None:
        target = charge_of_try(
            heir.invoice, attempt.amount_minor, attempt.currency, attempt.attempted_at, stamp, failed=True
        )
    else:
        target = word.transaction
        attempt.decision = {**word.decision, **attempt.decision}
        row_save(attempt, "decision")
    attempt_move(attempt, source=shell.invoice, target=heir.invoice, charge=target, stamp=stamp)
    if word is not None:
        attempt_move(word, source=heir.invoice, target=shell.invoice, charge=charge, stamp=stamp)
        _count_no_more(word)
        _stands_for(attempt, word)
    outcomes.decline_was_moved(heir, attempt, stamp=stamp)


def _word_of(attempt: Attempt, invoice: Invoice) -> Attempt | None:
    """The biller's word of the same try, if its invoice has one: without any name of a payment, told of that time."""
    around = (attempt.attempted_at - SAME_CHARGE_WITHIN, attempt.attempted_at + SAME_CHARGE_WITHIN)
    words = _failed_tries(invoice).exclude(origin=Origin.OURS)
    words = words.filter(provider_id=None, provider_payment_id="", attempted_at__range=around)
    found = list(for_no_key_update(words.order_by("pk")))
    return min(found, key=lambda word: abs(word.attempted_at - attempt.attempted_at), default=None)


def _count_no_more(word: Attempt) -> None:
    """The networks saw one try, whose own row counts."""
    word.counts = False
    row_save(word, "counts")


def _stands_for(attempt: Attempt, word: Attempt) -> None:
    """Cases keep which try rules them, and which was the first."""
    for case in Case.objects.filter(invoice=attempt.invoice_id):
        kept = dict(case.failure)
        if kept.get("attempt") == word.pk:
            kept["attempt"] = attempt.pk
        if (first := kept.get("first")) and first["attempt"] == word.pk:
            kept["first"] = {**first, "attempt": attempt.pk}
        if kept != case.failure:
            case.failure = kept
            row_save(case, "failure")
