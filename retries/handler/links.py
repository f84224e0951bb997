"""Which invoice a payment belongs to, where the format tells it in an event of its own (Stripe from basil on)."""

from datetime import timedelta

from invoices.models import Attempt, Connection, Invoice, ProviderPayment
from invoices.services.billing import SUPERSEDED, invoice_name, payment_link
from invoices.services.ledger import Stamp, invoice_lock
from invoices.services.reviews import review_open
from invoices.states import AttemptStatus, ReviewKind, TransactionKind
from providers.base import PaymentEvent, PaymentFacts
from retries.handler.entry import Entry, enter
from retries.handler.joining import halves_join, names_swap
from retries.handler.resolve import EventWaits, Subject

_PATIENCE = timedelta(seconds=30)


def _halves(connection: Connection, payment: PaymentFacts) -> tuple[Invoice | None, Invoice | None]:
    """The invoice of that name, and the one that the payment is known to belong to."""
    named = Invoice.objects.filter(connection=connection, provider_invoice_id=payment.invoice_id).first()
    links = ProviderPayment.objects.filter(connection=connection, provider_payment_id=payment.payment_id)
    link = links.select_related("invoice").first()
    return named, link.invoice if link is not None else None


def link_handle(event: PaymentEvent, connection: Connection, subject: Subject, stamp: Stamp) -> str:
    """PAYMENT_LINKED: joins the two halves, whatever was made of them before."""
    payment = event.payment
    assert payment is not None
    named, linked = _halves(connection, payment)
    known = linked or named
    if known is None:
        raise EventWaits("Neither the invoice nor the payment is known yet.", retry_after=_PATIENCE)
    entry = enter(event, known.customer_id, stamp)
    named, linked = _halves(connection, payment)  # whoever had the customer's lock may have written the other one
    if linked is None:
        assert named is not None, "an invoice never goes"
        payment_link(named, payment.payment_id)
    else:
        _join(entry, named, linked, payment, stamp)
    links = ProviderPayment.objects.filter(connection=connection, provider_payment_id=payment.payment_id)
    links.filter(told=False).update(told=True)  # no guess any more
    return ""


def _join(entry: Entry, named: Invoice | None, linked: Invoice, payment: PaymentFacts, stamp: Stamp) -> None:
    born = invoice_lock(linked.pk)
    if named is None:
        if born.cancel_reason == SUPERSEDED:
            return
        if born.provider_invoice_id is not None:
            raise EventWaits("The payment's invoice goes by another name, and this one is not known yet.")
        invoice_name(born, payment.invoice_id, stamp)
        return
    if named.pk == born.pk:
        return
    if named.customer_id == born.customer_id and born.provider_invoice_id is None:
        halves_join(entry, born_pk=born.pk, named_pk=named.pk, stamp=stamp)
    elif (named.customer_id, named.amount_minor, named.currency) == (
        born.customer_id,
        born.amount_minor,
        born.currency,
    ):
        _name_rightly(payment, born, named, stamp)
    else:
        _ask(born, {"payment": payment.payment_id, "belongs_to": named.public_id}, stamp)


def _name_rightly(payment: PaymentFacts, born: Invoice, named: Invoice, stamp: Stamp) -> None:
    """Two invoices that owe the same, one of which was guessed to be the payment's, exchange their names.

    Where the biller has called the named one paid, that word is of this name: the payment goes there if it is not told
    of yet. If it is, the word stays behind under the other name, which it was not said of, and a person has to look.
    """
    paid = Attempt.objects.filter(status=AttemptStatus.SUCCEEDED, kind=TransactionKind.CHARGE)
    by_word = paid.filter(invoice=named, provider_id=None, provider_payment_id="").exists()
    if by_word and not paid.filter(invoice=born, provider_payment_id=payment.payment_id).exists():
        ProviderPayment.objects.filter(invoice=born, provider_payment_id=payment.payment_id).update(invoice=named)
        return
    names_swap(born.pk, named.pk, stamp)
    if by_word:
        _ask(invoice_lock(named.pk), {"payment": payment.payment_id, "said_of": born.public_id}, stamp)


def _ask(invoice: Invoice, facts: dict[str, str], stamp: Stamp) -> None:
    review_open(
        invoice=invoice,
        kind=ReviewKind.UNMATCHED_PAYMENT,
        subject_type="invoice",
        subject_id=invoice.public_id,
        facts=facts,
        choices=["noted"],
        stamp=stamp,
    )
