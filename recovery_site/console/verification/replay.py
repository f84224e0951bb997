"""Does the ledger tell its own story? The hash chain, the states that the events lead to, and the totals. Pure."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Any

from invoices.chain import Link, link_hash
from invoices.models import Attempt, Event, Transaction
from invoices.states import (
    ATTEMPT_MOVES,
    DISPUTE_MOVES,
    INVOICE_MOVES,
    TRANSACTION_MOVES,
    AttemptStatus,
    DisputeStatus,
    InvoiceStatus,
    TransactionKind,
    TransactionStatus,
)
from recovery_site.common.states import Move
from recovery_site.console.verification.types import Bundle, Problem
from retries.states import CASE_MOVES, CaseStatus

_MOVES: Mapping[str, tuple[Move, ...]] = {
    "invoice": INVOICE_MOVES,
    "transaction": TRANSACTION_MOVES,
    "attempt": ATTEMPT_MOVES,
    "dispute": DISPUTE_MOVES,
    "case": CASE_MOVES,
}
# What a subject is before its first event: reported attempts are told by their outcome alone.
_INITIAL: Mapping[str, str] = {
    "invoice": InvoiceStatus.INIT,
    "transaction": TransactionStatus.INIT,
    "attempt": AttemptStatus.SENDING,
    "dispute": DisputeStatus.OPEN,
    "case": CaseStatus.OPEN,
}


def chain_problems(bundle: Bundle) -> Iterator[Problem]:
    """Sequence numbers without gaps, every hash over the one before, and the invoice's own head of the chain."""
    previous = ""
    for expected, event in enumerate(bundle.events, start=1):
        if event.seq != expected:
            yield bundle.problem("gap_in_events", f"Event {expected} is missing; the next one is {event.seq}.")
            return
        if event.hash != link_hash(previous, _link(bundle, event)):
            yield bundle.problem("chain_broken", f"Event {event.seq} ({event.kind}) was changed after it was written.")
            return
        previous = event.hash
    head = (len(bundle.events), previous)
    if (bundle.invoice.last_seq, bundle.invoice.last_hash) != head:
        yield bundle.problem(
            "head_differs", f"The invoice points at event {bundle.invoice.last_seq}, the chain ends at {head[0]}."
        )


def _link(bundle: Bundle, event: Event) -> Link:
    return Link(
        invoice=bundle.invoice.public_id,
        seq=event.seq,
        subject_type=event.subject_type,
        subject_id=event.subject_id,
        kind=event.kind,
        from_state=event.from_state,
        to_state=event.to_state,
        actor=event.actor,
        cause=event.cause,
        data=event.data,
        occurred_at=event.occurred_at,
    )


def state_problems(bundle: Bundle) -> Iterator[Problem]:
    """Every move in the events is legal and starts where the one before ended, and the rows stand where they lead."""
    states: dict[tuple[str, str], str] = {}
    for event in bundle.events:
        if event.kind == "attempt.left":
            states.pop((event.subject_type, event.subject_id), None)
        elif event.to_state:
            yield from _follow(bundle, event, states)
    for kind, rows in _rows(bundle):
        for row in rows:
            told = states.pop((kind, row.public_id), None)
            if told != row.status:
                yield bundle.problem(
                    "state_differs", f"{kind} {row.public_id} is {row.status}, its events lead to {told or 'nothing'}."
                )
    for kind, public_id in states:
        yield bundle.problem("row_missing", f"Events tell of {kind} {public_id}, which does not exist.")


def _follow(bundle: Bundle, event: Event, states: dict[tuple[str, str], str]) -> Iterator[Problem]:
    subject = (event.subject_type, event.subject_id)
    before = states.get(subject)
    states[subject] = event.to_state
    if event.subject_type not in _MOVES or event.kind == "attempt.came":
        return
    initial = _INITIAL[event.subject_type]
    if before is None and not event.from_state:
        if event.to_state != initial:
            yield bundle.problem("illegal_move", f"Event {event.seq}: {subject[1]} began as {event.to_state}.")
        return
    if event.from_state != (before or initial):
        yield bundle.problem(
            "illegal_move", f"Event {event.seq}: {subject[1]} left {event.from_state}, but was {before or initial}."
        )
    elif not _legal(event):
        yield bundle.problem(
            "illegal_move", f"Event {event.seq}: {event.kind} may not move {event.from_state} to {event.to_state}."
        )


def _legal(event: Event) -> bool:
    name = event.kind.partition(".")[2]
    for move in _MOVES[event.subject_type]:
        named = move.name == name or event.subject_type == "case"
        if named and event.from_state in move.sources and move.target == event.to_state:
            return True
    return False


def _rows(bundle: Bundle) -> Iterable[tuple[str, Iterable[Any]]]:
    yield "invoice", [bundle.invoice]
    yield "transaction", bundle.transactions
    yield "attempt", bundle.attempts
    yield "dispute", bundle.disputes
    yield "case", bundle.cases


def amount_problems(bundle: Bundle) -> Iterator[Problem]:
    """Amounts told by events against those of the rows; paid and refunded totals against the transactions."""
    yield from _owed(bundle)
    yield from _captured(bundle)
    yield from _credited(bundle)
    invoice = bundle.invoice
    done = [row for row in bundle.transactions if row.status == TransactionStatus.DONE]
    ours = [row for row in done if row.currency == invoice.currency]
    charges = sum(row.captured_minor or 0 for row in ours if row.kind == TransactionKind.CHARGE)
    refunds = sum(
        row.captured_minor or 0 for row in ours if row.kind == TransactionKind.REFUND and row.reversed_at is None
    )
    taken_back, lost = _taken_back(bundle)
    if invoice.paid_minor != charges - taken_back:
        yield bundle.problem(
            "paid_differs", f"paid_minor is {invoice.paid_minor}, the transactions say {charges - taken_back}."
        )
    if invoice.refunded_minor != refunds:
        yield bundle.problem(
            "refunded_differs", f"refunded_minor is {invoice.refunded_minor}, the transactions say {refunds}."
        )
    credited = sum(row.settles_minor or 0 for row in done if row.pk not in lost)
    if invoice.credited_minor != credited:
        yield bundle.problem(
            "credited_differs", f"credited_minor is {invoice.credited_minor}, the transactions say {credited}."
        )


def _taken_back(bundle: Bundle) -> tuple[int, set[int]]:
    """Lost disputes that took effect: the money of the invoice's currency that is gone, and of which payments.

    Of one payment no more is gone than it brought (a declined one brought nothing).
    """
    attempts = {row.pk: row for row in bundle.attempts}
    lost: Counter[int] = Counter()
    for row in bundle.disputes:
        if row.status == DisputeStatus.LOST and row.applied_at is not None:
            lost[row.attempt_id] += row.amount_minor
    gone = sum(
        min(amount, attempts[pk].captured_minor or 0)
        for pk, amount in lost.items()
        if pk in attempts and attempts[pk].currency == bundle.invoice.currency
    )
    return gone, {attempts[pk].transaction_id for pk in lost if pk in attempts}


def _owed(bundle: Bundle) -> Iterator[Problem]:
    told: tuple[object, object] | None = None
    for event in bundle.events:
        if event.kind == "invoice.created":
            told = (event.data.get("amount_minor"), event.data.get("currency"))
        elif event.kind == "invoice.amount_changed":
            told = tuple(event.data.get("to", (None, None)))[:2]
    if told != (bundle.invoice.amount_minor, bundle.invoice.currency):
        yield bundle.problem(
            "amount_differs",
            f"The invoice is over {bundle.invoice.amount_minor} {bundle.invoice.currency}, its events say {told}.",
        )


def _credited(bundle: Bundle) -> Iterator[Problem]:
    """What money in another currency pays is what a person has said, and nobody else."""
    told = {
        event.subject_id: event.data.get("settles_minor")
        for event in bundle.events
        if event.kind == "transaction.credit"
    }
    for row in bundle.transactions:
        if row.settles_minor != told.get(row.public_id):
            yield bundle.problem(
                "credit_differs",
                f"{row.public_id} settles {row.settles_minor}, its events say {told.get(row.public_id)}.",
            )


def _captured(bundle: Bundle) -> Iterator[Problem]:
    told = {
        event.subject_id: event.data["captured_minor"]
        for event in bundle.events
        if event.subject_type in ("attempt", "transaction") and "captured_minor" in event.data
    }
    rows: list[Attempt | Transaction] = [*bundle.attempts, *bundle.transactions]
    for row in rows:
        if row.public_id in told and row.captured_minor != told[row.public_id]:
            yield bundle.problem(
                "captured_differs",
                f"{row.public_id} captured {row.captured_minor}, its events say {told[row.public_id]}.",
            )


def order_problems(bundle: Bundle) -> Iterator[Problem]:
    """Attempts are numbered 1, 2, 3 per kind, in the order in which they were written down; one that came from another
    invoice is numbered in the order of its coming."""
    came = {event.subject_id for event in bundle.events if event.kind == "attempt.came"}
    for kind in TransactionKind.values:
        numbers = [row.number for row in bundle.attempts if row.kind == kind and row.public_id not in came]
        if any(second <= first for first, second in pairwise(numbers)):
            yield bundle.problem("attempt_numbers", f"{kind} attempts are numbered {numbers}.")
