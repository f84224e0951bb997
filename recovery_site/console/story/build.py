"""Rows into a story: plain copying, with the words people read."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from analytics.words import state_label
from invoices.models import Attempt, Dispute, Event, ReviewItem, StaffNote, Transaction
from invoices.selectors.parties import charging_obstacle
from invoices.states import Origin, TransactionKind
from recovery_site.common.money import format_money
from recovery_site.console.sentences import AttemptName, Told, actor_name, cause_text, sentence
from recovery_site.console.story.gather import Rows
from recovery_site.console.story.glossary import Glossary
from recovery_site.console.story.types import (
    AttemptFacts,
    CaseFacts,
    ConnectionFacts,
    CustomerFacts,
    DisputeFacts,
    InvoiceFacts,
    JobFacts,
    Money,
    NoteFacts,
    ReviewFacts,
    TimelineEntry,
    TransactionFacts,
)
from recovery_site.console.words import card_label, category_title, category_words, moment_text, plain
from retries.models import Case


def invoice_facts(rows: Rows) -> InvoiceFacts:
    invoice = rows.invoice
    return InvoiceFacts(
        pk=invoice.pk,
        public_id=invoice.public_id,
        title=str(invoice),
        number=invoice.number,
        provider_invoice_id=invoice.provider_invoice_id or "",
        description=invoice.description,
        status=invoice.status,
        status_label=invoice.get_status_display(),
        amount=Money(invoice.amount_minor, invoice.currency),
        due=Money(invoice.due_minor, invoice.currency),
        paid=Money(invoice.paid_minor, invoice.currency),
        refunded=Money(invoice.refunded_minor, invoice.currency),
        credited=Money(invoice.credited_minor, invoice.currency),
        subscription_id=invoice.subscription_id,
        plan=invoice.plan,
        interval=invoice.interval,
        issued_at=invoice.issued_at,
        due_at=invoice.due_at,
        settled_at=invoice.settled_at,
        cancel_reason=plain(invoice.cancel_reason),
        provider_attempt_count=invoice.provider_attempt_count,
        last_seq=invoice.last_seq,
    )


def customer_facts(rows: Rows) -> CustomerFacts:
    customer = rows.invoice.customer
    return CustomerFacts(
        pk=customer.pk,
        public_id=customer.public_id,
        label=str(customer),
        name=customer.name,
        email=customer.email,
        connector_customer_id=customer.connector_customer_id,
        country=customer.country,
        timezone=customer.timezone,
        first_seen_at=customer.first_seen_at,
    )


def connection_facts(rows: Rows) -> ConnectionFacts:
    connection = rows.invoice.connection
    return ConnectionFacts(
        public_id=connection.public_id,
        name=connection.name,
        provider=connection.provider,
        mode=connection.mode,
        mode_label=connection.get_mode_display(),
        obstacle=charging_obstacle(connection),
    )


def case_facts(case: Case, people: Mapping[str, str]) -> CaseFacts:
    return CaseFacts(
        public_id=case.public_id,
        status=case.status,
        status_label=case.get_status_display(),
        segment=plain(case.segment),
        policy_version=case.policy_version.version,
        category=case.category,
        category_title=category_title(case.category),
        category_words=category_words(case.category),
        code=case.code,
        opened_at=case.opened_at,
        closed_at=case.closed_at,
        close_reason=plain(case.close_reason),
        paused_by=actor_name(case.paused_by, people) if case.paused_by else "",
        automatic_barred=case.automatic_barred,
        exhausted_at=case.exhausted_at,
        amount=Money(case.amount_minor, case.currency),
        recovered=Money(case.recovered_minor, case.currency),
        recovered_by=plain(case.recovered_by),
    )


def job_facts(rows: Rows) -> JobFacts | None:
    job = rows.job
    if job is None:
        return None
    return JobFacts(
        public_id=job.public_id,
        status=job.status,
        status_label=job.get_status_display(),
        due_at=job.due_at,
        token=job.token.public_id if job.token else "",
        token_label=card_label(job.token.card.network, job.token.card.last4) if job.token else "",
        trigger=job.get_trigger_display(),
        why=rows.glossary.say(job.why),
        band=job.band,
        requested_by=actor_name(job.requested_by, rows.people),
        last_error=job.last_error,
    )


# Who sent it, in the words of a table column; the enumeration's own labels explain more than a column can hold.
_SENDERS: Mapping[str, str] = {Origin.OURS: "This service", Origin.PROVIDER: "The provider", Origin.OUTSIDE: "Outside"}


def attempt_facts(attempt: Attempt, glossary: Glossary) -> AttemptFacts:
    card = attempt.card
    captured = Money(attempt.captured_minor, attempt.currency) if attempt.captured_minor is not None else None
    failed = bool(attempt.category or attempt.raw_code)
    return AttemptFacts(
        public_id=attempt.public_id,
        transaction=attempt.transaction.public_id,
        kind=attempt.kind,
        number=attempt.number,
        status=attempt.status,
        status_label=attempt.get_status_display(),
        origin=attempt.origin,
        origin_label=_SENDERS.get(attempt.origin, attempt.get_origin_display()),
        trigger=attempt.trigger,
        trigger_label=attempt.get_trigger_display(),
        amount=Money(attempt.amount_minor, attempt.currency),
        captured=captured,
        card=card_label(card.network, card.last4) if card else "",
        token=attempt.token.public_id if attempt.token else "",
        raw_code=attempt.raw_code,
        network_code=attempt.network_code,
        advice_code=attempt.advice_code,
        message=attempt.message,
        category=attempt.category,
        category_title=category_title(attempt.category) if failed else "",
        category_words=category_words(attempt.category) if failed else "",
        explanation=attempt.explanation,
        provider_id=attempt.provider_id or "",
        network_reference=attempt.network_reference,
        gateway_reference=attempt.gateway_reference,
        attempted_at=attempt.attempted_at,
        finished_at=attempt.finished_at,
        expected_by=attempt.expected_by,
        returned_at=attempt.returned_at,
        counts=attempt.counts,
        why=glossary.brief(str(attempt.decision.get("why", ""))),
        decision=attempt.decision,
    )


def attempts_facts(rows: Rows) -> tuple[AttemptFacts, ...]:
    return tuple(attempt_facts(attempt, rows.glossary) for attempt in rows.attempts)


def transaction_facts(row: Transaction, people: Mapping[str, str]) -> TransactionFacts:
    return TransactionFacts(
        public_id=row.public_id,
        kind=row.kind,
        status=row.status,
        status_label=row.get_status_display(),
        amount=Money(row.amount_minor, row.currency),
        captured=Money(row.captured_minor, row.currency) if row.captured_minor is not None else None,
        refund_of=row.refund_of.public_id if row.refund_of else "",
        duplicate_of=row.duplicate_of.public_id if row.duplicate_of else "",
        reason=row.reason,
        failure=row.failure,
        created_by=actor_name(row.created_by, people),
        started_at=row.started_at,
        finished_at=row.finished_at,
    )


def note_facts(row: StaffNote, people: Mapping[str, str]) -> NoteFacts:
    return NoteFacts(
        public_id=row.public_id, author=actor_name(row.author, people), text=row.text, written_at=row.written_at
    )


def dispute_facts(row: Dispute) -> DisputeFacts:
    return DisputeFacts(
        public_id=row.public_id,
        provider_id=row.provider_id,
        kind_label=row.get_kind_display(),
        status=row.status,
        status_label=row.get_status_display(),
        amount=Money(row.amount_minor, row.currency),
        reason_code=row.reason_code,
        attempt=row.attempt.public_id,
        opened_at=row.opened_at,
        respond_by=row.respond_by,
        closed_at=row.closed_at,
        applied_at=row.applied_at,
    )


def review_facts(item: ReviewItem, people: Mapping[str, str], now: datetime) -> ReviewFacts:
    return ReviewFacts(
        pk=item.pk,
        public_id=item.public_id,
        kind=item.kind,
        kind_label=item.get_kind_display(),
        subject_id=item.subject_id,
        facts=facts_in_words(item.facts, now),
        choices=tuple(item.choices),
        owner=item.owner.get_full_name() or item.owner.get_username() if item.owner else "",
        opened_at=item.opened_at,
        resolved_at=item.resolved_at,
        resolution=plain(item.resolution),
        resolved_by=actor_name(item.resolved_by, people) if item.resolved_by else "",
        note=item.note,
    )


def facts_in_words(facts: Mapping[str, Any], now: datetime) -> tuple[tuple[str, str], ...]:
    """Name and value pairs for people: amounts as money, instants as moments; nested answers stay in the ledger."""
    shown = []
    for key, value in facts.items():
        if value in (None, "", [], {}) or isinstance(value, dict) or key.endswith("currency"):
            continue
        name = plain(key.removesuffix("_minor")).capitalize()
        shown.append((name, _fact(key, value, facts, now)))
    return tuple(shown)


def _fact(key: str, value: object, facts: Mapping[str, Any], now: datetime) -> str:
    if key.endswith("_minor") and isinstance(value, int):
        currency = str(facts.get(key.removesuffix("amount_minor") + "currency") or facts.get("currency") or "")
        return format_money(value, currency) if currency else str(value)
    if key.endswith("_status"):
        return state_label(key.removesuffix("_status"), str(value)) if key == "invoice_status" else str(value)
    if key.endswith(("_at", "_by", "_until")) and isinstance(value, str):
        try:
            return moment_text(datetime.fromisoformat(value), now)
        except ValueError:
            return value
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def timeline(rows: Rows) -> tuple[TimelineEntry, ...]:
    names = {
        attempt.public_id: AttemptName(
            attempt.number,
            attempt.kind,
            card_label(attempt.card.network, attempt.card.last4) if attempt.card else "",
        )
        for attempt in rows.attempts
    }
    refunds = frozenset(row.public_id for row in rows.transactions if row.kind == TransactionKind.REFUND)
    return tuple(_entry(event, rows, names, refunds) for event in rows.events)


def _entry(event: Event, rows: Rows, names: Mapping[str, AttemptName], refunds: frozenset[str]) -> TimelineEntry:
    line = sentence(
        Told(
            kind=event.kind,
            subject_id=event.subject_id,
            from_state=event.from_state,
            to_state=event.to_state,
            cause=event.cause,
            data=event.data,
            occurred_at=event.occurred_at,
            currency=rows.invoice.currency,
            attempts=names,
            refunds=refunds,
            people=rows.people,
        )
    )
    return TimelineEntry(
        seq=event.seq,
        kind=event.kind,
        text=rows.glossary.say(line.text),
        detail=rows.glossary.brief(line.detail),
        tone=line.tone,
        who=actor_name(event.actor, rows.people),
        cause=cause_text(event.cause),
        occurred_at=event.occurred_at,
        minor=line.minor,
    )
