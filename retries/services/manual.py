"""What people do to an invoice: retry, pause, resume, cancel, and answer what no machine can know."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction

from invoices.models import Attempt, Connection, Invoice, ReviewItem
from invoices.selectors.attempts import lease_over
from invoices.selectors.parties import charging_obstacle
from invoices.services.ledger import Stamp, move, record_event
from invoices.services.reviews import review_resolve
from invoices.states import (
    ATTEMPT_OPEN,
    INVOICE_OPEN,
    AttemptStatus,
    ConnectionMode,
    InvoiceStatus,
    ReviewKind,
    TransactionKind,
    Trigger,
)
from recovery_site.common.db import for_no_key_update
from recovery_site.common.errors import Conflict, NotFound
from retries.categories import Category
from retries.locking import Scope, open_case, scope_lock
from retries.models import Case, RetryJob
from retries.policy import Trigger as PolicyTrigger
from retries.selectors import case_failure, case_policy, trigger_usage
from retries.services import outcomes
from retries.services.booking import job_book, job_park
from retries.services.cancel import invoice_end
from retries.services.cases import case_ensure, case_set_step
from retries.services.planning import case_plan
from retries.states import CaseStatus, JobStatus, NextStep, TokenRule
from tokens.choice import considered
from tokens.selectors import TokenOption, token_options

# How far ahead a person may book a retry.
_FARTHEST = timedelta(days=366)


def legal_actions(invoice: Invoice, case: Case | None) -> frozenset[str]:
    """Names of the actions that would not be refused for the invoice's state: for buttons."""
    actions = set()
    if invoice.status in INVOICE_OPEN:
        actions |= {"cancel", "write_off"}
        if invoice.due_minor > 0:
            actions.add("retry")
        if case is not None:
            actions.add("resume" if case.paused_by else "pause")
    return frozenset(actions)


def _scope(invoice_pk: int) -> Scope:
    customer_pk = Invoice.objects.values_list("customer_id", flat=True).filter(pk=invoice_pk).first()
    if customer_pk is None:
        raise NotFound("This invoice does not exist.")
    return scope_lock(customer_pk=customer_pk, invoice_pk=invoice_pk)


@transaction.atomic
def retry_now(
    *,
    invoice_pk: int,
    stamp: Stamp,
    reason: str,
    token_pk: int | None = None,
    due_at: datetime | None = None,
) -> RetryJob:
    """Book a manual retry, at once or for `due_at`, with the chosen or the best token; audited as `staff.retry`.

    It takes the customer's slot from a scheduled retry. Raises Conflict where a charge must not be sent: closed
    invoice, charge in flight or its result unknown, no usable token, a network limit in the way (with its end); and for
    a time that is more than a year ahead, which is mostly a slip.
    """
    if due_at is not None and due_at - stamp.now > _FARTHEST:
        raise Conflict("A retry can be booked for at most a year ahead: choose an earlier time.")
    return _try(_scope(invoice_pk), _Wish(Trigger.STAFF, "staff.retry", reason, token_pk, due_at or stamp.now), stamp)


@transaction.atomic
def customer_pay(*, invoice_pk: int, stamp: Stamp, token_pk: int | None = None) -> RetryJob:
    """Book a charge at once because the payer asked for it; audited as `customer.pay`.

    It may go where no automatic charge may (after a return or a lost dispute), keeps to the policy's budget for
    customers and to every network limit, and leaves a pause of staff as it is. Raises Conflict as `retry_now` does.
    """
    return _try(_scope(invoice_pk), _Wish(Trigger.CUSTOMER, "customer.pay", "", token_pk, stamp.now), stamp)


@transaction.atomic
def charge_first(*, invoice_pk: int, stamp: Stamp, token_pk: int | None = None) -> RetryJob:
    """Book the first charge of an invoice that has not failed yet, due at once; a decline opens its case.

    Limits and charges in flight are kept as by `retry_now`. Writes `transaction.created`. Raises Conflict.
    """
    scope = _scope(invoice_pk)
    _demand_chargeable(scope.invoice)
    option, tokens = _choose(scope, token_pk, stamp.now)
    return job_book(
        scope,
        None,
        token_pk=option.pk,
        due_at=option.allowed_at,
        trigger=Trigger.AUTOMATIC,
        why=f"First charge with the {option.label}.",
        decision={"kind": "first_charge", "decided_at": stamp.now.isoformat(), "considered": list(tokens)},
        stamp=stamp,
        urgent=True,
    )


@dataclass(frozen=True, slots=True)
class _Wish:
    """A person's wish to be tried: whose (`trigger`), how it stands in the history (`kind`), with what and when;
    `asked_by` if not by the one who acts now."""

    trigger: Trigger
    kind: str
    reason: str
    token_pk: int | None
    due_at: datetime
    asked_by: str = ""


def _try(scope: Scope, wish: _Wish, stamp: Stamp) -> RetryJob:
    invoice = scope.invoice
    _demand_chargeable(invoice)
    case = case_ensure(scope, opened_at=stamp.now, stamp=stamp)
    _demand_granted(case, wish.trigger)
    option, tokens = _choose(scope, wish.token_pk, wish.due_at)
    told = {"reason": wish.reason[:300], "token": option.public_id, "due_at": wish.due_at.isoformat()}
    told = {name: value for name, value in told.items() if value}
    record_event(invoice=invoice, kind=wish.kind, stamp=stamp, data=told)
    if invoice.status == InvoiceStatus.PROCESS_FAILED:
        move(invoice, "resume", invoice=invoice, stamp=stamp, data={"reason": wish.reason[:300] or wish.kind})
    elif invoice.status == InvoiceStatus.INIT:
        move(invoice, "start", invoice=invoice, stamp=stamp)
    if wish.trigger == Trigger.STAFF:
        case.paused_by = ""
        case.save(update_fields=["paused_by"])
    return _book(scope, case, option, tokens, wish, stamp)


def _demand_chargeable(invoice: Invoice) -> None:
    if invoice.status not in INVOICE_OPEN or invoice.due_minor == 0:
        raise Conflict(f"Invoice {invoice} is {invoice.status}: nothing is due that could be retried.")
    if Attempt.objects.filter(invoice=invoice, kind=TransactionKind.CHARGE, status__in=ATTEMPT_OPEN).exists():
        raise Conflict("The result of an earlier charge is still open; wait for it, or resolve it in the staff queue.")
    if RetryJob.objects.filter(invoice=invoice, status=JobStatus.RUNNING).exists():
        raise Conflict("A retry of this invoice is running right now; wait for its result.")
    connection = Connection.objects.get(pk=invoice.connection_id)
    if connection.mode == ConnectionMode.OBSERVE or connection.take_over_after is None:
        raise Conflict("This connection leaves charging to its provider; retry the payment there.")
    if connection.mode == ConnectionMode.SCHEDULE:
        raise Conflict("The merchant charges through this connection itself: charge, then report the attempt.")


def _demand_granted(case: Case, trigger: Trigger) -> None:
    granted = case_policy(case).for_segment(case.segment).budgets[PolicyTrigger(trigger.value)]
    if granted is not None and trigger_usage(case, trigger) >= granted:
        whose = "manual retries" if trigger == Trigger.STAFF else "tries by the customer"
        raise Conflict(f"The policy's {granted} {whose} of this case are used up.")


def _book(
    scope: Scope,
    case: Case,
    option: TokenOption,
    tokens: Sequence[Mapping[str, Any]],
    wish: _Wish,
    stamp: Stamp,
) -> RetryJob:
    staff = wish.trigger == Trigger.STAFF
    return job_book(
        scope,
        case,
        token_pk=option.pk,
        due_at=option.allowed_at,
        trigger=wish.trigger,
        why=f"Manual retry with the {option.label}: {wish.reason}" if staff else f"The customer pays: {option.label}.",
        decision={
            "kind": wish.trigger.value,
            "reason": wish.reason[:300],
            "decided_at": stamp.now.isoformat(),
            "considered": list(tokens),
        },
        stamp=stamp,
        urgent=True,
        requested_by=wish.asked_by,
    )


def retry_option(*, invoice_pk: int, due_at: datetime, rule: TokenRule) -> TokenOption:
    """The payment method that a retry would use by this rule; runs in the caller's transaction. Raises Conflict.

    OTHER: the best one besides that of the last failure.
    """
    scope = _scope(invoice_pk)
    if rule is TokenRule.BEST:
        return _choose(scope, None, due_at)[0]
    case = open_case(scope.invoice)
    last = case_failure(case).token_pk if case is not None else None
    other = next((one for one in _options(scope, due_at) if one.pk != last and one.usable), None)
    if other is None:
        raise Conflict("This customer has no other payment method that could be charged.")
    return _choose(scope, other.pk, due_at)[0]


def _options(scope: Scope, due_at: datetime) -> list[TokenOption]:
    return token_options(
        customer=scope.customer,
        cards=scope.cards,
        invoice_pk=scope.invoice.pk,
        amount_minor=scope.invoice.due_minor,
        currency=scope.invoice.currency,
        not_before=due_at,
    )


def _choose(scope: Scope, token_pk: int | None, due_at: datetime) -> tuple[TokenOption, list[dict[str, Any]]]:
    """The token to charge, and all of them as the stored decision lists them."""
    every = _options(scope, due_at)
    options = [option for option in every if token_pk is None or option.pk == token_pk]
    if not options:
        raise Conflict("This customer has no payment method that could be charged.")
    option = options[0]
    if not option.usable:
        raise Conflict(f"The {option.label} {option.obstacle}; choose another payment method.")
    if option.allowed_at > due_at:
        raise Conflict(
            f"The {option.label} may not be charged before {option.allowed_at:%Y-%m-%d %H:%M} UTC"
            f" ({option.limit_text}); book the retry for then."
        )
    return option, considered(every, option.pk)


@transaction.atomic
def case_pause(*, invoice_pk: int, stamp: Stamp, reason: str) -> None:
    """Stop automatic retries of this invoice until somebody resumes them; the slot goes to the next invoice."""
    scope = _scope(invoice_pk)
    case = open_case(scope.invoice)
    if case is None or scope.invoice.status not in INVOICE_OPEN:
        raise Conflict("There is no open case that could be paused.")
    if case.paused_by:
        raise Conflict(f"This case is already paused by {case.paused_by}.")
    case.paused_by = stamp.actor[:100]
    case.save(update_fields=["paused_by"])
    record_event(invoice=scope.invoice, kind="staff.pause", stamp=stamp, data={"reason": reason[:300]})
    if RetryJob.objects.filter(invoice=scope.invoice, status=JobStatus.RUNNING, attempt__isnull=False).exists():
        return
    job_park(scope, stamp, f"Paused: {reason}")
    if case.next_step not in (NextStep.AWAITING, NextStep.RESOLVING, NextStep.SENDING):
        case_set_step(case, scope.invoice, NextStep.PAUSED, None, f"Paused: {reason}", stamp)


@transaction.atomic
def case_resume(*, invoice_pk: int, stamp: Stamp, reason: str) -> None:
    """Take the pause back. A manual retry that it stopped is booked again, at once if its time is over; else, or where
    that may not be any more (the case says why), the next step is planned anew from what is known now."""
    scope = _scope(invoice_pk)
    case = open_case(scope.invoice)
    if case is None or not case.paused_by:
        raise Conflict("This case is not paused.")
    case.paused_by = ""
    case.save(update_fields=["paused_by"])
    record_event(invoice=scope.invoice, kind="staff.resume", stamp=stamp, data={"reason": reason[:300]})
    stopped = _stopped_wish(scope, stamp.now)
    if stopped is not None:
        _take_up(scope, case, stopped, stamp)
    elif case.category == Category.CONFIG_ERROR and not charging_obstacle(case.connection):
        wish = _Wish(Trigger.STAFF, "staff.retry", reason, None, stamp.now)
        option, tokens = _choose(scope, None, stamp.now)
        _book(scope, case, option, tokens, wish, stamp)
    else:
        case_plan(scope, case, stamp)


def _stopped_wish(scope: Scope, now: datetime) -> _Wish | None:
    """The manual retry that a pause stopped before it was tried; its parked job still says what was asked."""
    parked = RetryJob.objects.filter(invoice=scope.invoice, kind=TransactionKind.CHARGE, status=JobStatus.PAUSED)
    job = parked.filter(trigger=Trigger.STAFF, attempt=None).first()
    if job is None:
        return None
    reason = str(job.decision.get("reason", ""))
    due_at = max(job.due_at, now)
    return _Wish(Trigger.STAFF, "staff.retry", reason, job.token_id, due_at, asked_by=job.requested_by)


def _take_up(scope: Scope, case: Case, wish: _Wish, stamp: Stamp) -> None:
    """Book a stopped wish again, as strictly as a new one; where it is refused, plan and say why in the case."""
    try:
        _demand_chargeable(scope.invoice)
        _demand_granted(case, wish.trigger)
        option, tokens = _choose(scope, wish.token_pk, wish.due_at)
    except Conflict as refusal:
        case_plan(scope, case, stamp)
        if case.status == CaseStatus.OPEN:
            why = f"The manual retry for {wish.due_at:%Y-%m-%d %H:%M} UTC was not booked again: {refusal.message}"
            step = NextStep(case.next_step)
            case_set_step(case, scope.invoice, step, case.next_step_at, f"{why} {case.why}", stamp)
        return
    if scope.invoice.status == InvoiceStatus.PROCESS_FAILED:
        move(scope.invoice, "resume", invoice=scope.invoice, stamp=stamp, data={"reason": wish.reason or wish.kind})
    _book(scope, case, option, tokens, wish, stamp)


@transaction.atomic
def invoice_cancel(*, invoice_pk: int, stamp: Stamp, reason: str, write_off: bool = False) -> None:
    """Give the invoice up for good. A charge in flight is not stopped: its success raises "paid after cancel"."""
    scope = _scope(invoice_pk)
    if scope.invoice.status not in INVOICE_OPEN:
        raise Conflict(f"Invoice {scope.invoice} is {scope.invoice.status} and cannot be canceled.")
    record_event(invoice=scope.invoice, kind="staff.cancel", stamp=stamp, data={"reason": reason[:300]})
    invoice_end(scope, reason="written_off" if write_off else "canceled", write_off=write_off, stamp=stamp)


@transaction.atomic
def attempt_resolve(
    *, attempt_pk: int, charged: bool, stamp: Stamp, note: str, told: Mapping[str, Any] | None = None
) -> None:
    """Staff's answer for an attempt nobody else can resolve: it was charged, or it surely was not.

    `told`: the provider's record that they believe (`provider_amount_minor`, `provider_id`), with another amount.
    Raises Conflict if its result is known, and for "not charged" while it may still be on its way: a resend that
    arrives after a new charge was allowed would be a second one.
    """
    attempt = Attempt.objects.filter(pk=attempt_pk).first()
    if attempt is None:
        raise NotFound("This attempt does not exist.")
    scope = scope_lock(customer_pk=attempt.customer_id, invoice_pk=attempt.invoice_id)
    attempt = for_no_key_update(Attempt.objects.filter(pk=attempt_pk).select_related("connection")).get()
    if attempt.status not in (AttemptStatus.UNKNOWN, AttemptStatus.AWAITING):
        raise Conflict(f"This attempt is {attempt.get_status_display().lower()}; there is nothing to answer any more.")
    if not charged and attempt.status == AttemptStatus.UNKNOWN and not lease_over(attempt):
        raise Conflict("This charge was sent a moment ago and may still arrive; answer again in a few minutes.")
    answer = "charged" if charged else "not_charged"
    captured = attempt.amount_minor if told is None else int(told["provider_amount_minor"])
    record_event(
        invoice=scope.invoice,
        kind="staff.resolve",
        stamp=stamp,
        subject_type="attempt",
        subject_id=attempt.public_id,
        data={"answer": answer, "note": note[:300], **({"captured_minor": captured} if told else {})},
    )
    kinds = (ReviewKind.UNKNOWN_ATTEMPT, ReviewKind.OVERDUE_SETTLEMENT, ReviewKind.MISMATCH)
    for item in ReviewItem.objects.filter(subject_id=attempt.public_id, kind__in=kinds, resolved_at=None):
        as_told = told is not None and "charged_as_told" in item.choices
        resolution = "charged_as_told" if as_told else answer
        review_resolve(item_pk=item.pk, invoice=scope.invoice, resolution=resolution, stamp=stamp, note=note)
    if charged:
        named = told is not None and told.get("provider_id") and attempt.provider_id is None
        provider = {"provider_id": told["provider_id"]} if told is not None and named else {}
        outcomes.charge_has_succeeded(scope, attempt, captured_minor=captured, provider=provider, stamp=stamp)
    else:
        outcomes.charge_did_not_happen(
            scope,
            attempt,
            code="not_charged",
            provider_name=attempt.connection.provider,
            retry_after=None,
            failed_at=stamp.now,
            stamp=stamp,
            counts=True,  # a person saw that no money moved, which a decline leaves behind as well
        )
