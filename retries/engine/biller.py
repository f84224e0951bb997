"""Between steps 1 and 2: where a billing system owns the invoice, it is asked first (DESIGN section 11).

Two engines never work one invoice: before our first gateway charge the biller's own collection is switched off, and
before each one its invoice is read fresh, so that a payment it has booked meanwhile is ours to know.
"""

from datetime import datetime
from typing import cast

from invoices.models import Invoice, ProviderPayment
from invoices.selectors.parties import connection_client
from invoices.services.billing import collection_stop_note
from invoices.states import ConnectionMode
from providers.base import EventKind, PaymentEvent, PaymentFacts
from providers.billing import BillerClient
from retries.engine.claim import Claim
from retries.handler import event_handle


def biller_consult(claim: Claim, *, now: datetime) -> None:
    """Take in what the biller says now and, in mode charge, stop its own retries once; does nothing for gateways.

    No transaction is open. Raises ProviderUnavailable if the biller cannot be asked: then nothing may be charged.
    """
    invoice = Invoice.objects.select_related("connection").get(pk=claim.invoice_pk)
    client = connection_client(invoice.connection)
    if not client.traits.bills:
        return
    biller = cast(BillerClient, client)
    if not invoice.provider_invoice_id:
        _ask_whose(biller, invoice, now)
        invoice = Invoice.objects.select_related("connection").get(pk=claim.invoice_pk)
    if not invoice.provider_invoice_id:
        return
    facts = biller.invoice_get(invoice.provider_invoice_id)
    if facts is None:
        return
    event = PaymentEvent(
        kind=EventKind.INVOICE_UPDATED,
        provider=invoice.connection.provider,
        event_id=f"poll:{invoice.public_id}:{now.isoformat()}",
        event_type="invoice read before charging",
        occurred_at=now,
        invoice=facts,
        source="poll",
    )
    event_handle(event=event, connection=invoice.connection, cause="read before charging", now=now)
    if invoice.connection.mode == ConnectionMode.CHARGE and not invoice.collection_stopped:
        collection_stop_note(invoice_pk=invoice.pk, answer=biller.stop_collection(invoice.provider_invoice_id), now=now)


def _ask_whose(biller: BillerClient, invoice: Invoice, now: datetime) -> None:
    """Before a payment that could not name its invoice is charged on its own: does it belong to one after all?"""
    for payment in ProviderPayment.objects.filter(invoice=invoice).order_by("pk"):
        owner = biller.invoice_of_payment(payment.provider_payment_id)
        if not owner:
            continue
        event = PaymentEvent(
            kind=EventKind.PAYMENT_LINKED,
            provider=invoice.connection.provider,
            event_id=f"poll:{payment.provider_payment_id}:{now.isoformat()}",
            event_type="payment read before charging",
            occurred_at=now,
            payment=PaymentFacts(
                payment_id=payment.provider_payment_id,
                amount_minor=invoice.amount_minor,
                currency=invoice.currency,
                invoice_id=owner,
            ),
            source="poll",
        )
        event_handle(event=event, connection=invoice.connection, cause="read before charging", now=now)
        return
