"""Common first half of the handlers: the locks, and what an event teaches about customer, method and invoice."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from invoices.models import Customer, Invoice
from invoices.services.billing import invoice_create, invoice_describe, invoice_name, payment_link
from invoices.services.ledger import Stamp, invoice_lock
from invoices.services.parties import customer_describe, customer_lock
from providers.base import InvoiceFacts, MethodFacts, PaymentEvent
from retries.handler.resolve import Subject
from retries.locking import Scope
from tokens.models import Card
from tokens.services import MethodKeys, cards_lock, method_apply, method_ensure

# Failures told late belong to the moment we learned of them: a horizon must not be over before the first try.
_OLD = timedelta(days=7)


@dataclass(slots=True)
class Entry:
    """Locked customer and cards, with the method the event named; the invoice follows by `enter_invoice`.

    `invoice_news`: the invoice is new, or what a plan rests on has changed with what the event said of it.
    """

    customer: Customer
    cards: list[Card]
    method: MethodKeys | None
    revived: bool
    invoice_news: bool = True


def enter(event: PaymentEvent, customer_pk: int, stamp: Stamp) -> Entry:
    """Lock the customer and all cards in order, after taking in what the event says about them."""
    customer = customer_lock(customer_pk)
    if event.customer is not None and event.customer.id == customer.connector_customer_id:
        customer_describe(customer, event.customer)
    method = event_method(event)
    keys, revived = None, False
    payment_id = event.payment.payment_id if event.payment else ""
    if method is not None:
        keys = method_ensure(
            customer=customer, method=method, now=stamp.now, told_at=event.occurred_at, payment_id=payment_id
        )
    cards = cards_lock(customer, also=[keys.card_pk] if keys else ())
    if method is not None and keys is not None:
        revived = method_apply(
            customer=customer, cards=cards, keys=keys, method=method, now=stamp.now, told_at=event.occurred_at
        )
    return Entry(customer=customer, cards=cards, method=keys, revived=revived)


def event_method(event: PaymentEvent) -> MethodFacts | None:
    """The payment method an event describes, wherever it stands; an invoice may name only the token."""
    method = event.method or (event.payment.method if event.payment else None)
    if method is None and event.invoice is not None and event.invoice.token:
        return MethodFacts(token=event.invoice.token)
    return method


def enter_invoice(event: PaymentEvent, entry: Entry, subject: Subject, facts: InvoiceFacts, stamp: Stamp) -> Scope:
    """The invoice locked, created if new, named and described by what the event says."""
    before = None
    if subject.invoice_pk is not None:
        invoice = invoice_lock(subject.invoice_pk)
        before = _planned_on(invoice)
    else:
        invoice = invoice_create(
            customer=entry.customer, facts=facts, provider_invoice_id=facts.id or None, stamp=stamp
        )
    if facts.id and _wants_name(invoice, facts.id, event) and not _name_taken(invoice, facts.id):
        invoice_name(invoice, facts.id, stamp)
    if event.invoice is not None:
        told_at = event.invoice.told_at or event.occurred_at
        invoice_describe(invoice, event.invoice, told_at=told_at, stamp=stamp)
    for payment_id in {facts.payment_id, event.payment.payment_id if event.payment else ""}:
        payment_link(invoice, payment_id)
    entry.invoice_news = before != _planned_on(invoice)
    return Scope(customer=entry.customer, cards=entry.cards, invoice=invoice)


def _planned_on(invoice: Invoice) -> tuple[object, ...]:
    """What of a biller's invoice a plan rests on; its own retries do not count once they are switched off, nor how many
    there were if none is to follow."""
    owed = (invoice.provider_invoice_id, invoice.due_minor, invoice.currency)
    if invoice.collection_stopped or invoice.provider_retry_at is None:
        return owed
    return (*owed, invoice.provider_retry_at, invoice.provider_attempt_count)


def _wants_name(invoice: Invoice, name: str, event: PaymentEvent) -> bool:
    """One without a name, or with that of its payment because it had no number yet (Paddle until it is billed)."""
    kept = invoice.provider_invoice_id
    payments = {event.payment.payment_id if event.payment else "", event.invoice.payment_id if event.invoice else ""}
    return kept is None or (kept in payments and name != kept)


def _name_taken(invoice: Invoice, name: str) -> bool:
    return Invoice.objects.filter(connection_id=invoice.connection_id, provider_invoice_id=name).exists()


def scope_of(entry: Entry, invoice_pk: int) -> Scope:
    return Scope(customer=entry.customer, cards=entry.cards, invoice=invoice_lock(invoice_pk))


def opened_at(failed_at: datetime, now: datetime) -> datetime:
    """When the case of a failure begins: then, or now if it is told long after."""
    return failed_at if now - failed_at <= _OLD else now
