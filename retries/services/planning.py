"""Turns decisions into rows: the job, the case's next step and its reason, and the customer's slot.

Everything here runs under the locks of DESIGN section 6 (customer, cards, invoice) and in the caller's transaction.
"""

from datetime import datetime

from invoices.models import Attempt, Connection, Customer, Event, Invoice
from invoices.selectors.parties import charging_obstacle
from invoices.services.billing import open_charge
from invoices.services.ledger import Stamp, alert, move, record_event
from invoices.services.reviews import review_open
from invoices.states import (
    INVOICE_OPEN,
    AttemptStatus,
    ConnectionMode,
    InvoiceStatus,
    ReviewKind,
    TransactionKind,
    TransactionStatus,
    Trigger,
)
from recovery_site.common.compiled import Compiled, Param
from recovery_site.common.rows import row_save
from retries.decisions import Allowance, Failure, Plan, Situation, decide, retry_instant
from retries.locking import Scope
from retries.models import Case
from retries.planning import CaseProgress, plan_retry
from retries.policy import FinalAction
from retries.selectors import (
    case_failure,
    case_policy,
    case_usage,
    customer_zone,
    failure_kind,
    provider_bar,
    retry_stands_for,
)
from retries.services.booking import job_book, job_end, job_park
from retries.services.cases import case_close, case_set_step
from retries.states import NextStep
from tokens.choice import considered
from tokens.models import Token
from tokens.selectors import TokenOption, token_options

_IN_FLIGHT = {
    AttemptStatus.SENDING: NextStep.SENDING,
    AttemptStatus.AWAITING: NextStep.AWAITING,
    AttemptStatus.UNKNOWN: NextStep.RESOLVING,
}


def case_plan(scope: Scope, case: Case, stamp: Stamp, *, not_before: datetime | None = None) -> Plan:
    """Decide the invoice's next step and write it: job, case, states, events, review items.

    Writes `case.planned` when the step, its time or its reason changed. `not_before` is a provider's Retry-After.
    An open invoice of which nothing is due any more settles instead.
    """
    invoice = scope.invoice
    if invoice.status in INVOICE_OPEN and invoice.due_minor == 0:
        nothing_due(scope, stamp, case=case)
        return Plan(step=NextStep.NONE, why="Nothing is due any more.")
    failure = case_failure(case)
    allowance = _allowance(case, failure, scope.customer)
    situation = _situation(scope, case, stamp.now, not_before)
    instant = retry_instant(situation, failure, allowance)
    options = token_options(
        customer=scope.customer,
        cards=scope.cards,
        invoice_pk=invoice.pk,
        amount_minor=invoice.due_minor,
        currency=invoice.currency,
        not_before=instant or stamp.now,
    )
    plan = decide(situation, failure, allowance, instant, options)
    _apply(scope, case, plan, failure, options, stamp)
    return plan


def nothing_due(
    scope: Scope, stamp: Stamp, *, case: Case | None, by: Attempt | None = None, credited_minor: int = 0
) -> None:
    """An open invoice of which nothing is due any more settles; its planned charge, its job and its case end.

    `by`: the payment that counts again; None if the debt was credited. `credited_minor`: as for `case_close`.
    """
    invoice = scope.invoice
    charge = open_charge(invoice)
    if charge is not None and charge.status != TransactionStatus.PROCESSING:
        move(charge, "cancel", invoice=invoice, stamp=stamp, finished_at=stamp.now)
    move(invoice, "settle", invoice=invoice, stamp=stamp, settled_at=stamp.now)
    job_end(scope, stamp)
    if case is not None:
        case_close(scope, case, "recover", reason="paid", stamp=stamp, attempt=by, credited_minor=credited_minor)


def _allowance(case: Case, failure: Failure, customer: Customer) -> Allowance:
    policy = case_policy(case)
    chosen = policy.for_segment(case.segment)
    usage = case_usage(case, failure)
    progress = CaseProgress(
        opened_at=case.opened_at,
        failed_at=failure.at,
        retries_of_kind=usage.of_kind,
        automatic_retries=usage.automatic,
        seed=f"{case.public_id}:{usage.automatic}",
    )
    return Allowance(
        retry=plan_retry(policy, case.segment, failure.verdict, progress, customer_zone(customer)),
        horizon_at=case.opened_at + chosen.horizon,
        grace_until=case.opened_at + chosen.grace,
    )


_CONNECTION = Compiled(lambda: Connection.objects.filter(pk=Param("pk")).select_related("gate"))
_FLIGHT = Compiled(
    lambda: (
        Attempt.objects.filter(invoice=Param("invoice"), kind=TransactionKind.CHARGE, status__in=list(_IN_FLIGHT))
        .order_by("pk")
        .only("status", "expected_by", "next_check_at")[:1]
    )
)


def _situation(scope: Scope, case: Case, now: datetime, not_before: datetime | None) -> Situation:
    invoice = scope.invoice
    (connection,) = _CONNECTION.all(pk=invoice.connection_id)
    flight = _FLIGHT.first(invoice=invoice.pk)
    waits = [instant for instant in (not_before, case.hold_until) if instant is not None]
    return Situation(
        now=now,
        paused_by=case.paused_by,
        in_flight=_IN_FLIGHT[AttemptStatus(flight.status)] if flight else None,
        in_flight_until=(flight.expected_by or flight.next_check_at) if flight else None,
        observe_only=connection.mode == ConnectionMode.OBSERVE,
        provider_keeps=provider_keeps(connection, invoice),
        provider_retry_at=invoice.provider_retry_at,
        connection_paused=charging_obstacle(connection),
        automatic_barred=case.automatic_barred,
        not_before=max(waits, default=None),
        provider_bar=provider_bar(connection, now),
    )


def provider_keeps(connection: Connection, invoice: Invoice) -> bool:
    """True while the biller's own retries go on and the connection says to wait for them, or never to take over."""
    if connection.take_over_after is None:
        return True
    if connection.take_over_after == 0 or invoice.provider_retry_at is None:
        return False
    return invoice.provider_attempt_count <= connection.take_over_after


def _apply(scope: Scope, case: Case, plan: Plan, failure: Failure, options: list[TokenOption], stamp: Stamp) -> None:
    if plan.step == NextStep.BOOKED:
        _book(scope, case, plan, failure, options, stamp)
        return
    if plan.review:
        _review(scope.invoice, case, plan, stamp)
    if plan.step in (NextStep.SENDING, NextStep.AWAITING, NextStep.RESOLVING):
        case_set_step(case, scope.invoice, plan.step, plan.at, plan.why, stamp)
        return
    if plan.step == NextStep.PAUSED:
        job_park(scope, stamp, plan.why)
        if not case.paused_by:
            case.paused_by = "configuration"
            row_save(case, "paused_by")
    else:
        job_end(scope, stamp, exhausted=plan.exhausted)
        if plan.exhausted:
            _charge_end(scope.invoice, plan, stamp)
    if plan.exhausted and case.exhausted_at is None:
        case.exhausted_at = stamp.now
        text = "No further automatic retry is possible for this invoice."
        alert(scope.invoice, "exhausted", text, stamp, saves=(case, ["exhausted_at"]))
    if plan.limits_exhausted:
        _tell_limits(scope.invoice, case, options, stamp)
    if plan.lost:
        _lose(scope, case, plan, stamp)
    else:
        tokens = considered(options, None)
        case_set_step(case, scope.invoice, plan.step, plan.at, plan.why, stamp, tokens=tokens)


def _tell_limits(invoice: Invoice, case: Case, options: list[TokenOption], stamp: Stamp) -> None:
    """`alert.limits_exhausted`, once per case: the networks allow none of the tokens before its deadline."""
    told = Event.objects.filter(invoice=invoice, kind="alert.limits_exhausted", data__case=case.public_id)
    if told.exists():
        return
    tokens = considered(options, None)
    text = "The networks' limits of every payment method are used up until after the deadline."
    alert(invoice, "limits_exhausted", text, stamp, {"case": case.public_id, "tokens": tokens})


def _lose(scope: Scope, case: Case, plan: Plan, stamp: Stamp) -> None:
    """Close the case without money; at its deadline the policy's final action decides what becomes of the invoice.

    Where the merchant's own systems are to decide, `case.final_action` tells them (webhooks out).
    """
    action = case_policy(case).for_segment(case.segment).final_action if plan.final else FinalAction.LEAVE_OPEN
    case_close(scope, case, "write_off" if action is FinalAction.WRITE_OFF else "lose", reason=plan.why, stamp=stamp)
    if action is FinalAction.WEBHOOK:
        data = {"action": action.value, "amount_minor": scope.invoice.due_minor}
        record_event(
            invoice=scope.invoice,
            kind="case.final_action",
            stamp=stamp,
            subject_type="case",
            subject_id=case.public_id,
            data=data,
        )
    if action in (FinalAction.CANCEL, FinalAction.WRITE_OFF):
        reason = "written_off" if action is FinalAction.WRITE_OFF else "canceled"
        move(
            scope.invoice,
            "cancel",
            invoice=scope.invoice,
            stamp=stamp,
            cancel_reason=reason,
            data={"reason": reason},
        )


def _review(invoice: Invoice, case: Case, plan: Plan, stamp: Stamp) -> None:
    kind = ReviewKind(plan.review)
    choices = {
        ReviewKind.CONFIGURATION: ["repaired"],
        ReviewKind.FRAUD: ["noted"],
        ReviewKind.NO_PLAN: ["paid", "not_paid"],
    }[kind]
    subject_type, subject_id = "case", case.public_id
    # A broken connection, or a token that our set-up cannot charge, is one question however many invoices wait for it.
    if kind is ReviewKind.CONFIGURATION and case.connection.paused_reason:
        subject_type, subject_id = "connection", case.connection.public_id
    elif kind is ReviewKind.CONFIGURATION and plan.token_pk is not None:
        subject_type, subject_id = "token", Token.objects.values_list("public_id", flat=True).get(pk=plan.token_pk)
    review_open(
        invoice=invoice,
        kind=kind,
        subject_type=subject_type,
        subject_id=subject_id,
        facts={"why": plan.why, "category": case.category, "code": case.code},
        choices=choices,
        stamp=stamp,
    )


def staff_decide(scope: Scope, case: Case, why: str, stamp: Stamp) -> None:
    """No machine goes on with this case: its booked retry ends, and staff are asked whether the invoice was paid."""
    review_open(
        invoice=scope.invoice,
        kind=ReviewKind.NO_PLAN,
        subject_type="case",
        subject_id=case.public_id,
        facts={"why": why},
        choices=["paid", "not_paid"],
        stamp=stamp,
    )
    job_end(scope, stamp, done=True)
    case_set_step(case, scope.invoice, NextStep.STAFF, None, why, stamp)


def _charge_end(invoice: Invoice, plan: Plan, stamp: Stamp) -> None:
    """No machine will charge this transaction again: it FAILED, and the invoice with it."""
    charge = open_charge(invoice)
    if charge is not None and charge.status in (TransactionStatus.RETRYING, TransactionStatus.INIT):
        move(charge, "fail", invoice=invoice, stamp=stamp, finished_at=stamp.now, failure=plan.why[:500])
        charge = None
    if invoice.status == InvoiceStatus.PROCESSING and charge is None:
        move(invoice, "fail", invoice=invoice, stamp=stamp, data={"why": plan.why})


def _book(scope: Scope, case: Case, plan: Plan, failure: Failure, options: list[TokenOption], stamp: Stamp) -> None:
    assert plan.at is not None
    decision = {
        "kind": failure_kind(failure),
        "stands_for": retry_stands_for(case, failure),
        "category": failure.verdict.category.value,
        "code": case.code,
        "source": failure.verdict.source,
        "failed_at": failure.at.isoformat(),
        "considered": considered(options, plan.token_pk),
        "policy_version": case.policy_version.version,
        "segment": case.segment,
        "decided_at": stamp.now.isoformat(),
    }
    if scope.invoice.status == InvoiceStatus.INIT:
        move(scope.invoice, "start", invoice=scope.invoice, stamp=stamp)
    elif scope.invoice.status == InvoiceStatus.PROCESS_FAILED:
        move(scope.invoice, "resume", invoice=scope.invoice, stamp=stamp)
    job_book(
        scope,
        case,
        token_pk=plan.token_pk,
        due_at=plan.at,
        trigger=Trigger.AUTOMATIC,
        why=plan.why,
        decision=decision,
        stamp=stamp,
    )
