"""The biller's view: an invoice failed, was paid, changed, was voided or given up."""

from invoices.models import Attempt, Connection, Invoice
from invoices.services.attempts import attempt_told_paid
from invoices.services.ledger import Stamp, invoice_lock
from invoices.states import (
    INVOICE_OPEN,
    INVOICE_PAID,
    AttemptStatus,
    DisputeStatus,
    Origin,
    TransactionKind,
)
from providers.base import DeclineFacts, InvoiceFacts, PaymentEvent, PaymentFacts
from recovery_site.common.db import for_no_key_update
from retries.handler.entry import Entry, enter, enter_invoice
from retries.handler.joining import halves_find, payment_found, payment_misnamed, payment_vouched
from retries.handler.resolve import SAME_CHARGE_WITHIN, Subject
from retries.handler.tries import payment_report, refuse_while_sending, report_decline, try_counted
from retries.locking import Scope, open_case
from retries.services import outcomes
from retries.services.cancel import invoice_end
from retries.services.planning import case_plan, nothing_due, staff_decide

_NO_CUSTOMER = "The invoice names no customer, so nobody could be asked or charged again."
_BOOKED = "The payment of this invoice is already booked."


def invoice_failed(event: PaymentEvent, connection: Connection, subject: Subject, stamp: Stamp) -> str:
    """A failed collection as the biller tells it, mostly without the reason: the payment's own event brings that."""
    facts = event.invoice
    assert facts is not None
    if subject.customer_pk is None:
        return _NO_CUSTOMER
    entry = enter(event, subject.customer_pk, stamp)
    scope = enter_invoice(event, entry, subject, facts, stamp)
    if facts.amount_minor == 0 or (scope.invoice.status in INVOICE_OPEN and scope.invoice.due_minor == 0):
        return _settle(scope, stamp)
    if subject.attempt_pk is not None:
        refuse_while_sending(scope.invoice)  # our own request failed, and its answer says why
    elif not try_counted(
        scope.invoice, charge_id=facts.charge_id, biller_number=facts.attempt_count, at=event.occurred_at
    ):
        refuse_while_sending(scope.invoice)
        payment = _payment_of(scope.invoice, facts)
        attempt = payment_report(
            scope, entry, payment, event.occurred_at, stamp, failed=True, biller_number=facts.attempt_count
        )
        report_decline(scope, attempt, DeclineFacts(), connection, event, event.occurred_at, stamp)
        halves_find(entry, scope.invoice, event.occurred_at, stamp)
        return ""
    case = open_case(scope.invoice)
    if case is None:
        return "" if entry.invoice_news else "The failure is known, and its case is closed."
    held = scope.invoice.provider_invoice_id is not None and case.hold_until is not None and bool(case.code)
    if held:
        case.hold_until = None
        case.save(update_fields=["hold_until"])
    if held or entry.invoice_news or entry.method is not None:
        case_plan(scope, case, stamp)
    return ""


def _payment_of(invoice: Invoice, facts: InvoiceFacts) -> PaymentFacts:
    return PaymentFacts(
        charge_id=facts.charge_id,
        payment_id=facts.payment_id,
        amount_minor=invoice.due_minor or facts.amount_minor,
        currency=invoice.currency,
        invoice_id=facts.id,
    )


def invoice_paid(event: PaymentEvent, connection: Connection, subject: Subject, stamp: Stamp) -> str:
    """The biller has booked the invoice as paid, by whatever means."""
    facts = event.invoice
    assert facts is not None
    if subject.customer_pk is None:
        return _NO_CUSTOMER
    entry = enter(event, subject.customer_pk, stamp)
    scope = enter_invoice(event, entry, subject, facts, stamp)
    invoice = scope.invoice
    if invoice.status in INVOICE_PAID:
        payment_vouched(invoice, event.occurred_at)
        return ""
    known = _named(connection, subject, facts)
    if known is not None and known.invoice_id != invoice.pk:
        return "The payment of this invoice is already booked for another one."
    if known is not None and known.status == AttemptStatus.SUCCEEDED:
        return _BOOKED
    if known is not None:
        if not facts.charge_id:
            refuse_while_sending(invoice)  # its answer brings the payment's id
        attempt = Attempt.objects.select_for_update(no_key=True).get(pk=known.pk)
        outcomes.charge_has_succeeded(scope, attempt, captured_minor=attempt.amount_minor, provider={}, stamp=stamp)
        return ""
    if not facts.charge_id:
        return _paid_namelessly(event, scope, entry, stamp)
    refuse_while_sending(invoice)
    return _settle(scope, stamp) if invoice.due_minor == 0 else _book(event, scope, entry, stamp)


def _paid_namelessly(event: PaymentEvent, scope: Scope, entry: Entry, stamp: Stamp) -> str:
    """Paid, by a payment that the biller does not name and that may stand in another invoice by a guess."""
    if (other := payment_found(entry, scope.invoice, event.occurred_at, stamp)) is not None:
        scope = Scope(customer=entry.customer, cards=entry.cards, invoice=other)
    if scope.invoice.status in INVOICE_PAID:
        payment_vouched(scope.invoice, event.occurred_at)
        return ""
    if payment_misnamed(scope.invoice, event.occurred_at, stamp):
        return ""
    return _paid_somehow(event, scope, entry, stamp)


def _paid_somehow(event: PaymentEvent, scope: Scope, entry: Entry, stamp: Stamp) -> str:
    """Paid, by a payment that the biller does not name: one that is known, ours that is in doubt, or another one."""
    facts, invoice = event.invoice, scope.invoice
    assert facts is not None
    taken_back = _taken_back(invoice, event)
    if not taken_back and _paid_then(invoice, event):
        return _BOOKED
    refuse_while_sending(invoice)
    if invoice.due_minor == 0:
        return _settle(scope, stamp)
    if (ours := _in_doubt(invoice)) is not None:
        # Which payment the biller means, nobody can tell yet: ours if it succeeded, else another one.
        attempt_told_paid(ours, invoice, at=event.occurred_at, payment_id=facts.payment_id, stamp=stamp)
        return ""
    if not taken_back:
        return _book(event, scope, entry, stamp)
    case = open_case(invoice)
    if case is None:
        return "The invoice is already closed in this ledger."
    staff_decide(scope, case, "It is called paid after a payment of it was lost: is there a new one?", stamp)
    return ""


def _book(event: PaymentEvent, scope: Scope, entry: Entry, stamp: Stamp) -> str:
    """A payment made elsewhere, of whatever the biller says was paid."""
    assert event.invoice is not None
    payment = _payment_of(scope.invoice, event.invoice)
    attempt = payment_report(scope, entry, payment, event.occurred_at, stamp)
    outcomes.charge_has_succeeded(scope, attempt, captured_minor=attempt.amount_minor, provider={}, stamp=stamp)
    return ""


def _named(connection: Connection, subject: Subject, facts: InvoiceFacts) -> Attempt | None:
    """The payment that the biller means, where it names it or tells it about our own request."""
    charges = Attempt.objects.filter(connection=connection, kind=TransactionKind.CHARGE)
    if facts.charge_id:
        return charges.filter(provider_id=facts.charge_id).first()
    return charges.filter(pk=subject.attempt_pk).first() if subject.attempt_pk is not None else None


def _in_doubt(invoice: Invoice) -> Attempt | None:
    """Our charge of the invoice whose result is not known."""
    ours = Attempt.objects.filter(invoice=invoice, kind=TransactionKind.CHARGE, origin=Origin.OURS)
    return for_no_key_update(ours.filter(status__in=(AttemptStatus.UNKNOWN, AttemptStatus.AWAITING))).first()


def _paid_then(invoice: Invoice, event: PaymentEvent) -> bool:
    """True if a payment of that time is booked: the one the biller speaks of, though its money may be gone since.

    One that never settled the invoice, though it came in its currency, was a part: the biller speaks of the rest.
    """
    around = (event.occurred_at - SAME_CHARGE_WITHIN, event.occurred_at + SAME_CHARGE_WITHIN)
    booked = Attempt.objects.filter(
        invoice=invoice, kind=TransactionKind.CHARGE, status=AttemptStatus.SUCCEEDED, attempted_at__range=around
    )
    currencies = set(booked.values_list("currency", flat=True))
    return bool(currencies) and (invoice.settled_at is not None or invoice.currency not in currencies)


def _taken_back(invoice: Invoice, event: PaymentEvent) -> bool:
    """True if what had paid the invoice was lost before the biller's word, which may speak of a new payment or still of
    the old one: some never take that status back."""
    lost = invoice.disputes.filter(status=DisputeStatus.LOST, applied_at__isnull=False)
    return invoice.settled_at is not None and lost.filter(opened_at__lte=event.occurred_at).exists()


def _settle(scope: Scope, stamp: Stamp) -> str:
    """Nothing is due of this invoice any more (credited)."""
    if scope.invoice.status not in INVOICE_OPEN:
        return "The invoice is already closed in this ledger."
    nothing_due(scope, stamp, case=open_case(scope.invoice))
    return ""


def invoice_updated(event: PaymentEvent, connection: Connection, subject: Subject, stamp: Stamp) -> str:
    """News about an invoice; only one that this ledger knows is of interest."""
    facts = event.invoice
    assert facts is not None
    if subject.invoice_pk is None or subject.customer_pk is None:
        return "Nothing has failed on this invoice yet."
    if facts.status == "paid":
        return invoice_paid(event, connection, subject, stamp)
    if facts.status == "void":
        return invoice_voided(event, connection, subject, stamp)
    if facts.status == "uncollectible":
        return invoice_uncollectible(event, connection, subject, stamp)
    entry = enter(event, subject.customer_pk, stamp)
    scope = enter_invoice(event, entry, subject, facts, stamp)
    case = open_case(scope.invoice)
    if scope.invoice.status in INVOICE_OPEN and scope.invoice.due_minor == 0:
        return _settle(scope, stamp)
    if event.source == "poll" and not entry.invoice_news:
        # Read just before a charge: a plan made anew would take the job back that is about to be worked.
        return "The invoice is as it was known."
    if case is not None:
        case_plan(scope, case, stamp)
    return ""


def invoice_voided(event: PaymentEvent, connection: Connection, subject: Subject, stamp: Stamp) -> str:
    """The biller took the invoice back: nothing is owed any more."""
    return _end(event, subject, stamp, "canceled", write_off=False)


def invoice_uncollectible(event: PaymentEvent, connection: Connection, subject: Subject, stamp: Stamp) -> str:
    """The biller has given the invoice up."""
    return _end(event, subject, stamp, "written_off", write_off=True)


def _end(event: PaymentEvent, subject: Subject, stamp: Stamp, reason: str, *, write_off: bool) -> str:
    if subject.customer_pk is None or event.invoice is None:
        return _NO_CUSTOMER
    entry = enter(event, subject.customer_pk, stamp)
    # Also an invoice that is new to the ledger: its failure may be told after its end, and must find it ended.
    scope = enter_invoice(event, entry, subject, event.invoice, stamp)
    if scope.invoice.status not in INVOICE_OPEN:
        return "" if entry.invoice_news else "The invoice is already closed in this ledger."
    invoice_end(scope, reason=reason, write_off=write_off, stamp=stamp)
    halves_find(entry, scope.invoice, event.occurred_at, stamp)
    return ""


def subscription_ended(event: PaymentEvent, connection: Connection, subject: Subject, stamp: Stamp) -> str:
    """The subscription is over: its open invoices are no longer charged."""
    if subject.customer_pk is None or not event.subscription_id:
        return "This ledger knows no open invoice of the subscription."
    entry = enter(event, subject.customer_pk, stamp)
    open_ones = Invoice.objects.filter(
        customer=entry.customer, subscription_id=event.subscription_id, status__in=INVOICE_OPEN
    ).order_by("pk")
    ended = False
    for pk in open_ones.values_list("pk", flat=True):
        scope = Scope(customer=entry.customer, cards=entry.cards, invoice=invoice_lock(pk))
        invoice_end(scope, reason="subscription_ended", write_off=False, stamp=stamp)
        ended = True
    return "" if ended else "This ledger knows no open invoice of the subscription."
