"""Brings back what waited for the customer once there is something new to charge."""

from collections.abc import Sequence

from django.db.models import Q

from invoices.models import Customer
from invoices.services.ledger import Stamp, invoice_lock, move
from invoices.states import ConnectionMode, InvoiceStatus, Trigger
from retries.categories import Category
from retries.categories import Scope as Reach
from retries.locking import Scope, open_case
from retries.models import Case
from retries.policy import Trigger as PolicyTrigger
from retries.selectors import case_policy, trigger_usage
from retries.services.booking import job_book
from retries.services.planning import case_plan, provider_keeps
from retries.states import CaseStatus, NextStep
from tokens.choice import considered
from tokens.models import Card
from tokens.selectors import token_options

# What a new card may bring back: not what staff or a broken configuration holds.
_WAITING = Q(next_step__in=(NextStep.CUSTOMER, NextStep.BOOKED, NextStep.QUEUED))
# Our set-up cannot charge the token they had; it may be able to charge this one.
_TOKEN_HELD = Q(
    next_step=NextStep.PAUSED,
    paused_by="configuration",
    failure__verdict__category=Category.CONFIG_ERROR,
    failure__verdict__scope=Reach.TOKEN,
)


def cases_resume(customer: Customer, cards: Sequence[Card], *, token_pk: int, stamp: Stamp) -> int:
    """Book the new or revived token at once for every open case of the customer that waits; returns how many.

    Barred cases (lost dispute, return that may not be presented again) stay with the customer's own payment.
    """
    resumed = 0
    waiting = Case.objects.filter(_WAITING | _TOKEN_HELD, customer=customer, status=CaseStatus.OPEN)
    for invoice_pk in waiting.values_list("invoice_id", flat=True).order_by("invoice_id"):
        scope = Scope(customer=customer, cards=list(cards), invoice=invoice_lock(invoice_pk))
        case = open_case(scope.invoice)
        if case is None or case.automatic_barred or scope.invoice.due_minor == 0:
            continue
        resumed += _resume(scope, case, token_pk, stamp, urgent=resumed == 0)
    return resumed


def _resume(scope: Scope, case: Case, token_pk: int, stamp: Stamp, *, urgent: bool) -> bool:
    granted = case_policy(case).for_segment(case.segment).budgets[PolicyTrigger.CARD_UPDATE]
    connection = case.connection
    left_to_others = connection.mode == ConnectionMode.OBSERVE or provider_keeps(connection, scope.invoice)
    if left_to_others or (granted is not None and trigger_usage(case, Trigger.CARD_UPDATE) >= granted):
        case_plan(scope, case, stamp)
        return False
    options = token_options(
        customer=scope.customer,
        cards=scope.cards,
        invoice_pk=scope.invoice.pk,
        amount_minor=scope.invoice.due_minor,
        currency=scope.invoice.currency,
        not_before=stamp.now,
    )
    option = next((option for option in options if option.pk == token_pk and option.usable), None)
    deadline = case.opened_at + case_policy(case).for_segment(case.segment).grace
    if option is None or option.allowed_at > max(deadline, stamp.now):
        case_plan(scope, case, stamp)
        return False
    if case.paused_by:
        case.paused_by = ""
        case.save(update_fields=["paused_by"])
    if scope.invoice.status == InvoiceStatus.PROCESS_FAILED:
        move(scope.invoice, "resume", invoice=scope.invoice, stamp=stamp, data={"trigger": "card_update"})
    job_book(
        scope,
        case,
        token_pk=option.pk,
        due_at=option.allowed_at,
        trigger=Trigger.CARD_UPDATE,
        why=f"The customer's payment method was updated: tries the {option.label}.",
        decision={
            "kind": "card_update",
            "decided_at": stamp.now.isoformat(),
            "limit": option.limit_text,
            "considered": considered(options, option.pk),
        },
        stamp=stamp,
        urgent=urgent,
    )
    return True
