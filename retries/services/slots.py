"""The customer's slot as others see it: who holds it, and the way to take it from a holder that got stuck."""

from collections.abc import Mapping, Sequence

from django.db import transaction

from invoices.services.ledger import Stamp, invoice_lock, record_event
from invoices.services.parties import customer_lock
from invoices.states import AttemptStatus, TransactionKind
from recovery_site.common.compiled import AnyOf, Compiled, Param
from recovery_site.common.db import for_no_key_update
from recovery_site.common.errors import Conflict
from retries.locking import Scope, open_case
from retries.models import RetryJob
from retries.services.booking import slot_holder, slot_release
from retries.services.cases import case_set_step
from retries.services.planning import case_plan
from retries.states import JOB_SLOT, NextStep
from tokens.mirror import SlotHolder
from tokens.services import cards_lock

_HOLDING = Compiled(
    lambda: RetryJob.objects.filter(
        AnyOf("customer_id", Param("customers")), kind=TransactionKind.CHARGE, status__in=JOB_SLOT
    ).values_list("customer_id", "transaction__public_id", "due_at")
)


def slots_now(customer_pks: Sequence[int]) -> Mapping[int, SlotHolder]:
    """Who holds the slots of these customers, read without a lock; free ones are missing."""
    rows = _HOLDING.all(customers=list(customer_pks))
    return {customer: SlotHolder(owner, until) for customer, owner, until in rows}


@transaction.atomic
def slot_unlock(customer_pk: int, reason: str, stamp: Stamp) -> str:
    """Take the slot from its holder, by hand; a sentence that says what happened. Nothing should ever need it.

    The next queued invoice gets the slot; without one the holder is planned anew from what is known now. Writes
    `staff.unlock` into the holder's chain. Raises Conflict while a charge is being sent: its result frees the slot.
    """
    customer = customer_lock(customer_pk)
    cards = cards_lock(customer)
    jobs = RetryJob.objects.filter(customer=customer, kind=TransactionKind.CHARGE, status__in=JOB_SLOT)
    held = jobs.select_related("transaction", "attempt").first()
    if held is None:
        return "The slot is free; nothing was changed but its entry in Redis."
    if held.attempt is not None and held.attempt.status == AttemptStatus.SENDING:
        raise Conflict("A charge of this customer is being sent; its result frees the slot, or `reconcile` does.")
    scope = Scope(customer=customer, cards=cards, invoice=invoice_lock(held.invoice_id))
    record_event(
        invoice=scope.invoice,
        kind="staff.unlock",
        stamp=stamp,
        subject_type="transaction",
        subject_id=held.transaction.public_id,
        data={"reason": reason[:300], "job": held.public_id, "job_status": held.status},
    )
    job = for_no_key_update(RetryJob.objects.filter(pk=held.pk)).get()
    job.queue()
    job.claim_token, job.lease_until = None, None
    job.save(update_fields=["status", "claim_token", "lease_until"])
    return _hand_on(scope, job, stamp.because("unlocked by hand"))


def _hand_on(scope: Scope, job: RetryJob, stamp: Stamp) -> str:
    case = open_case(scope.invoice)
    if case is None:
        job.cancel()
        job.save(update_fields=["status"])
    slot_release(scope, stamp, besides=job)
    holder = slot_holder(scope)
    if case is None:
        return f"The retry of invoice {scope.invoice}, which has no open case, was canceled."
    if holder is None:
        plan = case_plan(scope, case, stamp)
        return f"Nobody was waiting: invoice {scope.invoice} was planned anew ({plan.step.label.lower()})."
    why = f"Queued behind invoice {holder.invoice} of the same customer: its slot was freed by hand."
    case_set_step(case, scope.invoice, NextStep.QUEUED, job.due_at, why, stamp)
    return f"The slot went from invoice {scope.invoice} to invoice {holder.invoice}."
