"""Between steps 1 and 2: where a billing system owns the invoice, it is asked first (DESIGN section 11).

Two engines never work one invoice: before our first charge, be it made by the biller when told to or elsewhere, the
biller's own collection is switched off, and before each one its invoice is read fresh, so that a payment it has booked
meanwhile is ours to know.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import cast

from django.db import transaction

from invoices.models import Invoice, ProviderPayment
from invoices.selectors.parties import charging_connection, connection_client
from invoices.services.billing import collection_stop_note
from invoices.services.ledger import Stamp
from providers.base import EventKind, PaymentEvent, PaymentFacts
from providers.billing import BillerClient, CollectionStays
from retries.engine.claim import Claim
from retries.engine.prepare import Refused
from retries.handler import event_handle
from retries.locking import open_case, scope_lock
from retries.models import RetryJob
from retries.services.booking import job_end
from retries.services.planning import staff_decide
from tokens.models import Token
from tokens.services import token_name_at_gateway

# Nothing is collected of these any more.
_CLOSED = frozenset({"paid", "void", "uncollectible"})


@dataclass(frozen=True, slots=True)
class Stays:
    """The biller will not stop collecting this invoice itself, so nobody else may charge it; `why` in its words."""

    why: str


def biller_consult(claim: Claim, *, now: datetime) -> Stays | None:
    """Take in what the biller says now, and stop its own retries once; does nothing for gateways.

    Where a gateway charges for it, the biller is also asked what the gateway calls the payment method. No transaction
    is open. Raises ProviderUnavailable if the biller cannot be asked: then nothing may be charged.
    """
    job = RetryJob.objects.select_related("invoice__connection__gateway", "customer", "token").get(pk=claim.job_pk)
    invoice = job.invoice
    client = connection_client(invoice.connection)
    if not client.traits.bills:
        return None
    biller = cast(BillerClient, client)
    if not invoice.provider_invoice_id:
        _ask_whose(biller, invoice, now)
        invoice = Invoice.objects.select_related("connection__gateway").get(pk=claim.invoice_pk)
    if not invoice.provider_invoice_id:
        return None
    facts = biller.invoice_get(invoice.provider_invoice_id)
    if facts is None:
        return None
    if not invoice.collection_stopped and facts.status not in _CLOSED:
        try:
            answer = biller.stop_collection(invoice.provider_invoice_id)
        except CollectionStays as stays:
            return Stays(stays.message)
        collection_stop_note(invoice_pk=invoice.pk, answer=answer, now=now)
    event = PaymentEvent(
        kind=EventKind.INVOICE_UPDATED,
        provider=invoice.connection.provider,
        event_id=f"poll:{invoice.public_id}:{now.isoformat()}",
        event_type="invoice read before charging",
        occurred_at=now,
        # Whatever it had planned, the biller makes no more tries of its own.
        invoice=replace(facts, next_retry_at=None),
        source="poll",
    )
    event_handle(event=event, connection=invoice.connection, cause="read before charging", now=now)
    if charging_connection(invoice.connection) != invoice.connection and job.token is not None:
        _name_at_gateway(biller, job, job.token)
    return None


def _name_at_gateway(biller: BillerClient, job: RetryJob, token: Token) -> None:
    """Learn what the gateway calls the method that is about to be charged there; step 2 refuses one without a name."""
    known = biller.method_at_gateway(job.customer.connector_customer_id, token.provider_token)
    token_name_at_gateway(
        token_pk=token.pk,
        gateway_token=known.token if known else "",
        gateway_customer_id=known.customer if known else "",
    )


def collection_refuse(claim: Claim, stays: Stays, *, now: datetime) -> Refused:
    """The job ends and staff hear why: what this machine may not do, only a person can bring about."""
    stamp = Stamp(actor="system:engine", cause=f"job:{claim.job_pk}", now=now)
    with transaction.atomic():
        scope = scope_lock(customer_pk=claim.customer_pk, invoice_pk=claim.invoice_pk)
        case = open_case(scope.invoice)
        if case is None:
            job_end(scope, stamp, done=True)
        else:
            staff_decide(scope, case, stays.why, stamp)
    return Refused(stays.why, rebooked=False)


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
