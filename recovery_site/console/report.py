"""A story as one JSON object (its shape stands in docs/commands.md) and as text for a terminal."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from recovery_site.console.story.types import (
    AttemptFacts,
    CaseFacts,
    InvoiceStory,
    Money,
    TokenFacts,
    TransactionFacts,
)
from recovery_site.console.words import moment_text


def story_json(story: InvoiceStory) -> dict[str, Any]:
    """Amounts are integer minor units beside `currency`, times ISO 8601 in UTC, absent values null."""
    invoice = story.invoice
    return {
        "invoice": invoice.public_id,
        "status": invoice.status,
        "merchant": story.merchant_public_id,
        "connection": {
            "id": story.connection.public_id,
            "provider": story.connection.provider,
            "mode": story.connection.mode,
            "obstacle": story.connection.obstacle,
        },
        "customer": story.customer.public_id,
        "connector_customer_id": story.customer.connector_customer_id,
        "provider_invoice_id": invoice.provider_invoice_id or None,
        "number": invoice.number,
        "subscription_id": invoice.subscription_id or None,
        "currency": invoice.amount.currency,
        "amount_minor": invoice.amount.minor,
        "due_minor": invoice.due.minor,
        "paid_minor": invoice.paid.minor,
        "refunded_minor": invoice.refunded.minor,
        "credited_minor": invoice.credited.minor,
        "next_step": {
            "step": story.next_step.step,
            "at": _iso(story.next_step.at),
            "why": story.next_step.why,
            "notes": list(story.next_step.notes),
        },
        "actions": sorted(story.actions),
        "case": _case(story.case) if story.case else None,
        "transactions": [_transaction(row) for row in story.transactions],
        "attempts": [_attempt(row) for row in story.attempts],
        "tokens": [_token(row) for row in story.tokens],
        "disputes": [
            {
                "id": row.public_id,
                "provider_id": row.provider_id,
                "status": row.status,
                "amount_minor": row.amount.minor,
                "currency": row.amount.currency,
                "reason_code": row.reason_code,
                "attempt": row.attempt,
                "opened_at": _iso(row.opened_at),
                "respond_by": _iso(row.respond_by),
            }
            for row in story.disputes
        ],
        "reviews": [
            {
                "id": row.public_id,
                "kind": row.kind,
                "subject": row.subject_id,
                "choices": list(row.choices),
                "opened_at": _iso(row.opened_at),
                "resolved_at": _iso(row.resolved_at),
                "resolution": row.resolution or None,
            }
            for row in story.reviews
        ],
        "timeline": [
            {
                "seq": row.seq,
                "kind": row.kind,
                "at": _iso(row.occurred_at),
                "text": row.text,
                "detail": row.detail,
                "by": row.who,
            }
            for row in story.timeline
        ],
    }


def _iso(at: datetime | None) -> str | None:
    return at.isoformat() if at is not None else None


def _case(case: CaseFacts) -> dict[str, Any]:
    return {
        "id": case.public_id,
        "status": case.status,
        "segment": case.segment,
        "policy_version": case.policy_version,
        "category": case.category or None,
        "code": case.code or None,
        "paused_by": case.paused_by or None,
        "opened_at": _iso(case.opened_at),
        "closed_at": _iso(case.closed_at),
        "close_reason": case.close_reason or None,
        "amount_minor": case.amount.minor,
        "recovered_minor": case.recovered.minor,
        "recovered_by": case.recovered_by or None,
    }


def _transaction(row: TransactionFacts) -> dict[str, Any]:
    return {
        "id": row.public_id,
        "kind": row.kind,
        "status": row.status,
        "amount_minor": row.amount.minor,
        "captured_minor": _minor(row.captured),
        "currency": row.amount.currency,
        "refund_of": row.refund_of or None,
        "duplicate_of": row.duplicate_of or None,
        "started_at": _iso(row.started_at),
        "finished_at": _iso(row.finished_at),
    }


def _attempt(row: AttemptFacts) -> dict[str, Any]:
    return {
        "id": row.public_id,
        "transaction": row.transaction,
        "kind": row.kind,
        "number": row.number,
        "status": row.status,
        "origin": row.origin,
        "trigger": row.trigger,
        "amount_minor": row.amount.minor,
        "captured_minor": _minor(row.captured),
        "currency": row.amount.currency,
        "token": row.token or None,
        "card": row.card,
        "provider_id": row.provider_id or None,
        "network_reference": row.network_reference or None,
        "gateway_reference": row.gateway_reference or None,
        "raw_code": row.raw_code or None,
        "network_code": row.network_code or None,
        "advice_code": row.advice_code or None,
        "category": row.category or None,
        "explanation": row.explanation,
        "why": row.why,
        "counts": row.counts,
        "attempted_at": _iso(row.attempted_at),
        "finished_at": _iso(row.finished_at),
    }


def _minor(money: Money | None) -> int | None:
    return money.minor if money is not None else None


def _token(row: TokenFacts) -> dict[str, Any]:
    return {
        "id": row.public_id,
        "label": row.label,
        "network": row.network,
        "expiry": row.expiry or None,
        "bin": row.bin or None,
        "issuer": row.issuer or None,
        "status": row.status,
        "usable": row.usable,
        "obstacle": row.obstacle or None,
        "default": row.is_default,
        "remaining": row.remaining,
        "allowed_at": _iso(row.allowed_at),
        "binding": row.binding or None,
        "rules": [
            {
                "name": rule.name,
                "words": rule.words,
                "used": rule.used,
                "limit": rule.limit,
                "remaining": rule.remaining,
                "releases_at": _iso(rule.releases_at),
            }
            for rule in row.rules
        ],
    }


def story_text(story: InvoiceStory) -> str:
    """The same for a terminal, in the order in which people ask."""
    return "\n".join([*_head(story), *_attempts(story), *_tokens(story), *_timeline(story)])


def _head(story: InvoiceStory) -> Iterator[str]:
    invoice, step = story.invoice, story.next_step
    yield f"Invoice {invoice.title} ({invoice.public_id}) of {story.merchant}: {invoice.status_label}"
    yield f"  {invoice.amount}, due {invoice.due}, paid {invoice.paid}, refunded {invoice.refunded}"
    yield f"  Customer {story.customer.label} at {story.connection.name}"
    yield f"Next step: {step.label}{f', {step.at_text} ({step.distance})' if step.at else ''}"
    yield f"  {step.why}"
    for note in step.notes:
        yield f"  - {note}"


def _attempts(story: InvoiceStory) -> Iterator[str]:
    yield f"Attempts ({len(story.attempts)})"
    for row in story.attempts:
        reason = f" {row.category_title} ({row.raw_code or 'no code'})" if row.category_title else ""
        moment = moment_text(row.attempted_at, story.now)
        yield f"  {row.number}. {moment}  {row.amount}  {row.card}  {row.status_label}{reason}"


def _tokens(story: InvoiceStory) -> Iterator[str]:
    yield f"Payment methods ({len(story.tokens)})"
    for row in story.tokens:
        left = row.obstacle or ("no limit" if row.remaining is None else f"{row.remaining} attempts left")
        yield f"  {row.label}: {row.status_label}, {left}{f' ({row.binding})' if row.binding else ''}"


def _timeline(story: InvoiceStory) -> Iterator[str]:
    yield f"Timeline ({len(story.timeline)})"
    for row in story.timeline:
        detail = f" {row.detail}" if row.detail else ""
        yield f"  {row.seq:>3} {moment_text(row.occurred_at, story.now)}  {row.text}{detail} [{row.who}]"
