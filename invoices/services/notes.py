"""Telling a billing system of payments and refunds of its invoices that were made elsewhere: once, or visibly not.

Woken by the outbox, with no transaction open. The biller is read before it is written to and every note has a key of
its own, so the same note may come as often as it likes.
"""

from datetime import datetime
from typing import cast

import structlog
from django.db import transaction
from django.db.models import F

from invoices.models import Attempt, BillerNote, Event, Invoice, OutboxMessage, Transaction
from invoices.outbox import Consumer
from invoices.selectors.parties import attempt_account, connection_client
from invoices.services.ledger import Stamp, alert, invoice_lock, record_event
from invoices.services.outbox import MAX_TRIES
from invoices.services.parties import customer_lock
from invoices.states import INVOICE_PAID, AttemptStatus, NoteStatus, Origin, TransactionKind
from providers.base import ProviderUnavailable, ProviderUncertain
from providers.billing import BillerClient, NoteOutcome, NoteResult, PaymentNote, RefundNote
from providers.registry import provider
from recovery_site.common.db import DatabaseClock, fit
from recovery_site.common.errors import Conflict, InvalidInput, NotFound
from recovery_site.common.scrubbing import scrub_text

log = structlog.get_logger()
NAME = "biller_notes"
_WOKEN_BY = frozenset({"transaction.succeed", "invoice.settle"})
# By then it is no hiccup: a minute and more after the payment.
_ALERT_AFTER = 3
_OPEN = (NoteStatus.WAITING, NoteStatus.LATER)


class NoteWaits(ProviderUnavailable):
    """The note cannot be written before another one is."""

    code = "note_waits"


def notes_deliver(event: Event) -> None:
    """Write what this event means a biller has to know. Raises while it could not: the outbox brings it again."""
    if event.kind == "invoice.settle":
        waiting = BillerNote.objects.filter(invoice=event.invoice_id, status=NoteStatus.LATER)
        for pk in waiting.order_by("pk").values_list("pk", flat=True):
            _write(pk, now=event.occurred_at)
        return
    note_pk = _note_ensure(event.subject_id)
    if note_pk is not None:
        _write(note_pk, now=event.occurred_at)


CONSUMER = Consumer(name=NAME, wants=lambda kind: kind in _WOKEN_BY, handle=notes_deliver)


def _note_ensure(transaction_id: str) -> int | None:
    """The note of a transaction, created if the biller has to be told of it; None if it knows by itself."""
    found = Transaction.objects.select_related("invoice__connection", "refund_of").get(public_id=transaction_id)
    invoice = found.invoice
    if not invoice.provider_invoice_id or made_elsewhere(found) is None:
        return None
    note, _ = BillerNote.objects.get_or_create(
        transaction=found,
        defaults={
            "merchant_id": found.merchant_id,
            "connection_id": invoice.connection_id,
            "invoice_id": invoice.pk,
        },
    )
    return note.pk


def made_elsewhere(found: Transaction) -> Attempt | None:
    """The successful attempt of ours that made this movement of money past the biller, if it was one.

    A refund of what the biller collected itself goes through the biller, which then knows of it.
    """
    attempt = _succeeded(found)
    if attempt is None or attempt.collected:
        return None
    if found.kind == TransactionKind.REFUND and (found.refund_of is None or made_elsewhere(found.refund_of) is None):
        return None
    try:
        traits = connection_client(found.invoice.connection).traits
    except InvalidInput:
        return None  # a connection without usable settings: nothing was charged for it here
    return attempt if traits.bills and traits.records else None


def _succeeded(found: Transaction) -> Attempt | None:
    attempts = Attempt.objects.filter(transaction=found, status=AttemptStatus.SUCCEEDED, origin=Origin.OURS)
    return attempts.select_related("gateway", "connection").order_by("id").first()


def _write(note_pk: int, *, now: datetime) -> None:
    """One try. Raises ProviderUnavailable or ProviderUncertain while there are tries left."""
    note = BillerNote.objects.select_related("invoice", "connection", "transaction__refund_of").get(pk=note_pk)
    if note.status not in _OPEN:
        return
    try:
        result = _tell(note)
    except (ProviderUnavailable, ProviderUncertain) as error:
        if _failed(note, error.message, now):
            return
        raise
    _told(note, result, now)


def _tell(note: BillerNote) -> NoteResult:
    attempt = _succeeded(note.transaction)
    assert attempt is not None
    biller = cast(BillerClient, connection_client(note.connection))
    if note.transaction.kind == TransactionKind.CHARGE:
        return biller.payment_note(
            PaymentNote(
                invoice_id=note.invoice.provider_invoice_id or "",
                amount_minor=note.transaction.captured_minor or 0,
                currency=note.transaction.currency,
                reference=attempt.public_id,
                paid_at=attempt.finished_at or attempt.attempted_at,
                paid_with=provider(attempt_account(attempt).provider).title,
                payment_id=attempt.provider_id or attempt.provider_payment_id,
                settles=note.invoice.status in INVOICE_PAID,
                idempotency_key=f"note-{note.transaction.public_id}",
            )
        )
    return _tell_refund(note, attempt, biller)


def _tell_refund(note: BillerNote, attempt: Attempt, biller: BillerClient) -> NoteResult:
    """A refund follows its payment into the books, or not at all."""
    paid = BillerNote.objects.filter(transaction=note.transaction.refund_of).first()
    if paid is not None and paid.status in (NoteStatus.REFUSED, NoteStatus.FAILED):
        return NoteResult(outcome=NoteOutcome.REFUSED, why="The payment itself is not in the biller's books.")
    if paid is not None and paid.status != NoteStatus.WRITTEN:
        raise NoteWaits("The payment itself is not in the biller's books yet; the refund follows it.")
    return biller.refund_note(
        RefundNote(
            invoice_id=note.invoice.provider_invoice_id or "",
            amount_minor=note.transaction.captured_minor or 0,
            currency=note.transaction.currency,
            reference=attempt.public_id,
            refunded_at=attempt.finished_at or attempt.attempted_at,
            refunded_with=provider(attempt_account(attempt).provider).title,
            refund_id=attempt.provider_id or "",
            record_id=paid.record_id if paid is not None else "",
            reason=note.transaction.reason,
            idempotency_key=f"note-{note.transaction.public_id}",
        )
    )


def _told(note: BillerNote, result: NoteResult, now: datetime) -> None:
    if result.outcome is NoteOutcome.LATER:
        _save(note, NoteStatus.LATER, result.why, now)
        if Invoice.objects.filter(pk=note.invoice_id, status__in=INVOICE_PAID).exists():
            _write(note.pk, now=now)  # the rest was paid meanwhile, and its event may have passed already
    elif result.outcome is NoteOutcome.REFUSED:
        text = f"The billing system will not take down a {_what(note)}: {result.why}"
        _save(note, NoteStatus.REFUSED, result.why, now, alerting=("note_refused", text))
    else:
        note.record_id = fit(BillerNote, "record_id", result.record_id)
        _save(note, NoteStatus.WRITTEN, "", now)


def _failed(note: BillerNote, why: str, now: datetime) -> bool:
    """Count a try that came to nothing; True if it was the last."""
    tries = note.tries + 1
    if tries >= MAX_TRIES:
        text = f"A {_what(note)} is not in the billing system's books after {tries} tries: {why}"
        _save(note, NoteStatus.FAILED, why, now, alerting=("note_failed", text))
        return True
    text = f"The billing system does not know of a {_what(note)} yet: {why}"
    _save(note, NoteStatus(note.status), why, now, alerting=("note_late", text) if tries == _ALERT_AFTER else None)
    return False


def _what(note: BillerNote) -> str:
    return "payment" if note.transaction.kind == TransactionKind.CHARGE else "refund"


def _save(
    note: BillerNote, status: NoteStatus, why: str, now: datetime, *, alerting: tuple[str, str] | None = None
) -> None:
    """Keep a try's result, with an event once it has ended; `alerting` is an alert's name and sentence."""
    why = fit(BillerNote, "why", scrub_text(why))
    subject = note.transaction.public_id
    with transaction.atomic():
        customer_lock(note.invoice.customer_id)
        invoice = invoice_lock(note.invoice_id)
        BillerNote.objects.filter(pk=note.pk).update(
            status=status,
            why=why,
            record_id=note.record_id,
            tries=F("tries") + 1,
            tried_at=now,
            written_at=now if status == NoteStatus.WRITTEN else None,
        )
        stamp = Stamp(actor="system:notes", cause=f"note:{subject}", now=now)
        if status not in _OPEN:
            record_event(
                invoice=invoice,
                kind="note.closed",
                stamp=stamp,
                subject_type="transaction",
                subject_id=subject,
                to_state=status,
                data={"of": _what(note), "record_id": note.record_id, "why": why[:300]},
            )
        if alerting is not None:
            alert(invoice, alerting[0], scrub_text(alerting[1])[:400], stamp, {"transaction": subject})
    log.info("biller_note", transactionId=subject, status=status, tries=note.tries + 1, reason=why)


@transaction.atomic
def note_retry(*, note_pk: int, stamp: Stamp) -> None:
    """Try a note again that was refused or given up. Raises NotFound, Conflict if it is written or under way."""
    note = BillerNote.objects.select_related("transaction", "invoice").filter(pk=note_pk).first()
    if note is None:
        raise NotFound("This note does not exist.")
    customer_lock(note.invoice.customer_id)
    invoice = invoice_lock(note.invoice_id)
    stuck = BillerNote.objects.filter(pk=note_pk, status__in=(NoteStatus.REFUSED, NoteStatus.FAILED))
    if not stuck.update(status=NoteStatus.WAITING, tries=0):
        raise Conflict(f"This note is {note.get_status_display().lower()}; there is nothing to try again.")
    subject = note.transaction.public_id
    record_event(
        invoice=invoice,
        kind="note.retried",
        stamp=stamp,
        subject_type="transaction",
        subject_id=subject,
        data={"of": _what(note)},
    )
    OutboxMessage.objects.update_or_create(
        event=Event.objects.get(invoice=invoice, kind="transaction.succeed", subject_id=subject),
        consumer=NAME,
        defaults={
            "merchant_id": note.merchant_id,
            "attempts": 0,
            "due_at": DatabaseClock(),
            "done_at": None,
            "dead_at": None,
            "last_error": "",
        },
    )
