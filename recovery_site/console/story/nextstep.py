"""What happens next, and why, in one sentence: the stored decision plus what only a reader knows."""

from collections.abc import Iterable
from datetime import datetime, timedelta

from analytics.words import state_tone
from invoices.models import Invoice
from invoices.selectors.parties import charging_obstacle
from invoices.states import ATTEMPT_OPEN, AttemptStatus, InvoiceStatus, TransactionKind
from recovery_site.console.sentences import actor_name
from recovery_site.console.story.gather import Rows, open_case_of
from recovery_site.console.story.types import NextStepFacts
from recovery_site.console.words import distance_text, duration_text, moment_text, rule_words
from retries.models import Case, RetryJob
from retries.selectors import provider_bar
from retries.states import JobStatus, NextStep

_FLIGHT = {
    AttemptStatus.SENDING: (NextStep.SENDING, "A charge is being sent right now."),
    AttemptStatus.AWAITING: (NextStep.AWAITING, "The bank has not settled the last charge yet."),
    AttemptStatus.UNKNOWN: (
        NextStep.RESOLVING,
        "Nobody knows yet whether the last charge went through; it is being looked up.",
    ),
}
_CLOSED = {
    InvoiceStatus.SETTLED: "Nothing is left to do: the invoice is paid.",
    InvoiceStatus.REFUNDED: "Nothing is left to do: the money was given back.",
    InvoiceStatus.CANCELED: "Nothing is left to do: the invoice was canceled.",
}
# A booked retry leaves within one sweep of its time; past this it is worth a remark.
_LATE_AFTER = timedelta(minutes=2)


def next_step(rows: Rows) -> NextStepFacts:
    """The invoice's next step at `rows.now`, its reason in one sentence and the circumstances beside it."""
    case = open_case_of(rows)
    if case is not None:
        step = NextStep(case.next_step)
        why = _why_of_case(rows, case, step)
        # The time of a sending is its lease, which lives on the database clock and means nothing to a reader.
        at = None if step is NextStep.SENDING else case.next_step_at
        return _facts(rows, step, at, why, _notes(rows, case, step))
    step, at, why = _without_case(rows)
    notes = _notes(rows, None, step) if step is not NextStep.NONE else []
    return _facts(rows, step, at, why, [*notes, *_questions(rows)] if step is NextStep.NONE else notes)


def _facts(rows: Rows, step: NextStep, at: datetime | None, why: str, notes: Iterable[str]) -> NextStepFacts:
    return NextStepFacts(
        step=step.value,
        label=str(step.label),
        tone=state_tone("step", step),
        at=at,
        at_text=moment_text(at, rows.now) if at else "",
        distance=distance_text(at, rows.now) if at else "",
        why=why,
        notes=tuple(notes),
    )


def _without_case(rows: Rows) -> tuple[NextStep, datetime | None, str]:
    """An invoice without an open case: in its first charge, closed, or still collected by the provider."""
    charges = [row for row in rows.attempts if row.kind == TransactionKind.CHARGE]
    open_now = [row for row in charges if row.status in ATTEMPT_OPEN]
    if open_now:
        step, why = _FLIGHT[AttemptStatus(open_now[-1].status)]
        return step, open_now[-1].expected_by or open_now[-1].next_check_at, why
    if rows.job is not None and rows.job.kind == TransactionKind.CHARGE:
        queued = rows.job.status == JobStatus.QUEUED
        why = rows.glossary.brief(rows.job.why) or "A charge is booked."
        return NextStep.QUEUED if queued else NextStep.BOOKED, rows.job.due_at, why
    status = InvoiceStatus(rows.invoice.status)
    if status in (InvoiceStatus.INIT, InvoiceStatus.PROCESSING):
        why = "The provider collects this invoice; no failure was told."
        return NextStep.PROVIDER, rows.invoice.provider_retry_at, why
    if status is InvoiceStatus.REFUNDING:
        return NextStep.NONE, None, "A refund is under way."
    if status is InvoiceStatus.PROCESS_FAILED:
        ended = rows.case.why if rows.case else ""
        return NextStep.NONE, None, ended or "Recovery of this invoice has ended without success."
    return NextStep.NONE, None, _closed(rows.invoice, status, rows.now)


def _closed(invoice: Invoice, status: InvoiceStatus, now: datetime) -> str:
    if status is InvoiceStatus.SETTLED and invoice.settled_at is not None:
        return f"Nothing is left to do: the invoice was settled on {moment_text(invoice.settled_at, now)}."
    if status is InvoiceStatus.CANCELED and invoice.cancel_reason == "written_off":
        return "Nothing is left to do: the invoice was written off."
    return _CLOSED[status]


def _why_of_case(rows: Rows, case: Case, step: NextStep) -> str:
    if step is NextStep.BOOKED and rows.job is not None and (waiting := _waits(rows, rows.job)):
        return waiting
    why = case.why
    if step is NextStep.PAUSED and case.paused_by.startswith("user:"):
        why = why.replace(case.paused_by, actor_name(case.paused_by, rows.people))
    return rows.glossary.brief(why) or "The next step is being decided."


def _waits(rows: Rows, job: RetryJob) -> str:
    """`Waits until ... because ...` if a rule, not the policy, set the time; else empty."""
    limit = limit_of(job)
    if not limit:
        return ""
    until = moment_text(job.due_at, rows.now)
    rule = rows.glossary.rule(limit)
    if rule is None:
        return f"Waits until {until} because {limit[0].lower()}{limit[1:]}."
    return f"Waits until {until} because {rule_words(rule)} are used up until then."


def limit_of(job: RetryJob) -> str:
    """The rule that decided the job's time, as stored with the decision; empty if the policy's delay did."""
    considered = job.decision.get("considered")
    if not isinstance(considered, list) or job.token is None:
        return ""
    for row in considered:
        if isinstance(row, dict) and row.get("token") == job.token.public_id:
            return str(row.get("limit") or "")
    return ""


def _notes(rows: Rows, case: Case | None, step: NextStep) -> list[str]:
    """What the stored decision cannot know: switches, a broken connection, who goes first, who has the question."""
    notes = []
    if step in (NextStep.BOOKED, NextStep.QUEUED):
        notes += _held(rows)
    if step is NextStep.QUEUED and rows.holder is not None:
        notes.append(_behind(rows.holder, rows.now))
    late_job = rows.job is not None and rows.now - rows.job.due_at > _LATE_AFTER
    if step is NextStep.BOOKED and not notes and rows.job is not None and late_job:
        late = duration_text(rows.now - rows.job.due_at)
        notes.append(f"It has been due for {late} and leaves as soon as a worker takes it.")
    if rows.job is not None and rows.job.last_error:
        notes.append(f"The last try to prepare it ended with an error: {rows.job.last_error}")
    if case is not None and case.automatic_barred:
        notes.append("No automatic charge is allowed any more; only staff or the customer can start one.")
    if step is NextStep.CUSTOMER and case is not None and case.next_step_at is not None:
        notes.append(f"Without a payment by {moment_text(case.next_step_at, rows.now)} recovery ends.")
    return notes + _questions(rows)


def _held(rows: Rows) -> list[str]:
    notes = []
    if rows.switch is not None:
        reason = f": {rows.switch.reason}" if rows.switch.reason else ""
        notes.append(f"Nothing is sent, because charging is switched off for everybody{reason.rstrip('.')}.")
    if not rows.invoice.merchant.charging_enabled:
        notes.append(f"Nothing is sent, because charging is switched off for {rows.invoice.merchant.name}.")
    obstacle = charging_obstacle(rows.invoice.connection)
    if obstacle:
        notes.append(f"Nothing is sent through {rows.invoice.connection.name}: {obstacle.rstrip('.')}.")
    bar = provider_bar(rows.invoice.connection, rows.now)
    if bar is not None:
        until = moment_text(bar[0], rows.now)
        notes.append(f"It waits because {bar[1]}; tried again {until}. That uses up no try.")
    return notes


def _behind(holder: RetryJob, now: datetime) -> str:
    if holder.status == JobStatus.RUNNING:
        return f"Invoice {holder.invoice} of the same customer is being charged right now."
    return f"Invoice {holder.invoice} of the same customer goes first, on {moment_text(holder.due_at, now)}."


def _questions(rows: Rows) -> list[str]:
    notes = []
    for item in rows.reviews:
        if item.resolved_at is None:
            owner = f"{item.owner} has taken it" if item.owner else "nobody has taken it yet"
            since = moment_text(item.opened_at, rows.now)
            notes.append(f"Staff question since {since}: {item.get_kind_display()}; {owner}.")
    return notes
