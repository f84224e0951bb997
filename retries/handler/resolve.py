"""Whose event is it? Finds the customer, the invoice and the attempt that an event speaks of, without any lock."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import Q, QuerySet

from invoices.models import Attempt, Connection, Dispute, Invoice, ProviderPayment
from invoices.services.billing import SUPERSEDED
from invoices.services.parties import customer_ensure
from invoices.states import INVOICE_OPEN, AttemptStatus, Origin, TransactionKind
from providers.base import DisputeFacts, EventKind, PaymentEvent, PaymentFacts, RefundFacts
from recovery_site.common.compiled import Compiled, Param
from recovery_site.common.errors import RecoveryError
from tokens.models import Token

# Reports of one charge by several event types arrive within this time of each other.
SAME_CHARGE_WITHIN = timedelta(hours=1)


class EventWaits(RecoveryError):
    """The event cannot be placed yet; it stays RECEIVED and is tried again after `retry_after`."""

    code = "event_waits"
    retryable = True

    def __init__(self, message: str, *, retry_after: timedelta = timedelta(seconds=2)) -> None:
        super().__init__(message)
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class Subject:
    """Primary keys of what an event is about; None where it is not known to the ledger yet."""

    customer_pk: int | None
    invoice_pk: int | None
    attempt_pk: int | None


def subject_find(event: PaymentEvent, connection: Connection, now: datetime) -> Subject:
    """Look up what the event names, most certain first. Creates the customer if the event names a new one.

    An invoice the ledger knows decides the customer: its row is the lock, whatever the event says.
    """
    attempt = attempt_find(event, connection)
    invoice = attempt.invoice if attempt is not None else _invoice(event, connection)
    if invoice is not None:
        return Subject(invoice.customer_id, invoice.pk, attempt.pk if attempt else None)
    customer_pk = _customer(event, connection, now)
    if customer_pk is None:
        return Subject(None, None, None)
    invoice_pk = (
        _unnamed_invoice(event, customer_pk) if event.invoice is not None or event.payment is not None else None
    )
    return Subject(customer_pk, invoice_pk, None)


def subject_again(event: PaymentEvent, connection: Connection, customer_pk: int, now: datetime) -> Subject:
    """Look up what the event names once more, under the lock of the customer that was found before. Raises EventWaits
    if it turns out to be about another one's."""
    subject = subject_find(event, connection, now)
    if subject.customer_pk != customer_pk:
        raise EventWaits("Another customer's invoice has just been found to be meant.")
    return subject


def attempt_find(event: PaymentEvent, connection: Connection) -> Attempt | None:
    """The attempt of this connection that an event names by our reference, an id of the provider or our request."""
    payment = event.payment
    if payment is not None:
        if payment.reference and (found := _BY_REFERENCE.first(connection=connection.pk, name=payment.reference)):
            return found
        if payment.charge_id and (found := _BY_CHARGE.first(connection=connection.pk, charge=payment.charge_id)):
            return found
    if event.idempotency_key and not (event.dispute or event.refunds):
        # What our own request has caused; a charge that has a name of its own is another one.
        sent = _charges().filter(connection=connection, idempotency_key=event.idempotency_key)
        return (sent.filter(provider_id=None) if payment is not None and payment.charge_id else sent).first()
    if payment is not None:
        return None
    for facts in (event.dispute, *event.refunds):
        if facts is not None and (found := _paid_attempt(facts, connection)):
            return found
    return None


def _paid_attempt(facts: DisputeFacts | RefundFacts, connection: Connection) -> Attempt | None:
    """The payment that a dispute or a refund is about, by what names it, what it belongs to, or their own id."""
    ours = Attempt.objects.filter(connection=connection).select_related("invoice")
    charges = ours.filter(kind=TransactionKind.CHARGE)
    if facts.charge_id and (found := charges.filter(provider_id=facts.charge_id).first()):
        return found
    if isinstance(facts, DisputeFacts):
        known = Dispute.objects.filter(connection=connection, provider_id=facts.id).select_related("attempt__invoice")
        if dispute := known.first():
            return dispute.attempt
    newest = ("-captured_minor", "-id")
    if facts.payment_id:
        by_payment = charges.filter(provider_payment_id=facts.payment_id)
        if facts.charge_id:
            # A biller's tries share one payment: a declined one of another charge is not what was paid. That waits.
            by_payment = by_payment.filter(Q(provider_id=None) | Q(captured_minor__gt=0))
        if found := by_payment.order_by(*newest).first():
            return found
    if facts.invoice_id and not facts.charge_id:
        of_invoice = charges.filter(invoice__provider_invoice_id=facts.invoice_id, captured_minor__gt=0)
        if found := of_invoice.order_by(*newest).first():
            return found
    if isinstance(facts, DisputeFacts):
        return None
    refund = ours.filter(kind=TransactionKind.REFUND, provider_id=facts.id).first()
    paid = charges.filter(transaction=refund.transaction.refund_of, captured_minor__gt=0) if refund else None
    return paid.order_by(*newest).first() if paid is not None else None


def _invoice(event: PaymentEvent, connection: Connection) -> Invoice | None:
    names = []
    if event.invoice is not None:
        names.append(event.invoice.id)
    if event.payment is not None and event.payment.invoice_id:
        names.append(event.payment.invoice_id)
    if names and (found := _BY_NAME.first(connection=connection.pk, name=names[0])):
        return found
    for payment_id in _payment_ids(event):
        if (link := _BY_PAYMENT.first(connection=connection.pk, payment=payment_id)) is not None:
            return link.invoice
    return None


def _charges() -> QuerySet[Attempt]:
    return Attempt.objects.filter(kind=TransactionKind.CHARGE).select_related("invoice").order_by("pk")


_BY_REFERENCE = Compiled(lambda: _charges().filter(connection=Param("connection"), public_id=Param("name"))[:1])
_BY_CHARGE = Compiled(lambda: _charges().filter(connection=Param("connection"), provider_id=Param("charge"))[:1])
_BY_NAME = Compiled(
    lambda: Invoice.objects.filter(connection=Param("connection"), provider_invoice_id=Param("name"))[:1]
)
_BY_PAYMENT = Compiled(
    lambda: ProviderPayment.objects.filter(
        connection=Param("connection"), provider_payment_id=Param("payment")
    ).select_related("invoice")[:1]
)


def _payment_ids(event: PaymentEvent) -> list[str]:
    found = [
        event.payment.payment_id if event.payment else "",
        event.invoice.payment_id if event.invoice else "",
    ]
    return [payment_id for payment_id in found if payment_id]


def _customer(event: PaymentEvent, connection: Connection, now: datetime) -> int | None:
    if event.customer is not None:
        return customer_ensure(connection=connection, facts=event.customer, now=min(now, event.occurred_at))
    method = event.method or (event.payment.method if event.payment else None)
    if method is not None:
        return (
            Token.objects.filter(connection=connection, provider_token=method.token)
            .values_list("customer_id", flat=True)
            .first()
        )
    if event.subscription_id:
        # The end of a subscription may name nothing else; only one with open invoices here is of interest.
        owing = Invoice.objects.filter(
            connection=connection, subscription_id=event.subscription_id, status__in=INVOICE_OPEN
        )
        return owing.order_by("pk").values_list("customer_id", flat=True).first()
    return None


def _unnamed_invoice(event: PaymentEvent, customer_pk: int) -> int | None:
    """Join the two halves that some formats send apart: a payment that cannot name its invoice, and that invoice.

    A candidate of the same customer has the same amount and currency at the same time: an invoice whose attempt has no
    charge id yet (for a payment), or one that has no name yet (for an invoice). A wrong guess among equal ones is put
    right when the provider says which payment is whose (`links`).
    """
    if event.payment is not None and event.invoice is None:
        if event.payment.names_invoice:
            return None
        return _oldest(placeholders_of(event.payment, event.occurred_at, customer_pk), _END.get(event.kind))
    facts = event.invoice
    if facts is None:
        return None
    around = (event.occurred_at - SAME_CHARGE_WITHIN, event.occurred_at + SAME_CHARGE_WITHIN)
    unnamed = Invoice.objects.filter(
        customer_id=customer_pk,
        provider_invoice_id__isnull=True,
        amount_minor=facts.amount_minor,
        currency=facts.currency,
        attempts__attempted_at__range=around,
    )
    return _oldest(unnamed.exclude(cancel_reason=SUPERSEDED), _END.get(event.kind))


# How the try has ended that an event tells of.
_END = {
    EventKind.PAYMENT_FAILED: AttemptStatus.DECLINED,
    EventKind.INVOICE_FAILED: AttemptStatus.DECLINED,
    EventKind.PAYMENT_SUCCEEDED: AttemptStatus.SUCCEEDED,
    EventKind.INVOICE_PAID: AttemptStatus.SUCCEEDED,
}


def placeholders_of(payment: PaymentFacts, occurred_at: datetime, customer_pk: int) -> QuerySet[Invoice]:
    """Invoices of the customer with a try at that time of which only the biller has told so far."""
    around = (occurred_at - SAME_CHARGE_WITHIN, occurred_at + SAME_CHARGE_WITHIN)
    placeholder = Q(
        attempts__provider_id__isnull=True,
        attempts__provider_payment_id="",
        attempts__kind=TransactionKind.CHARGE,
        attempts__attempted_at__range=around,
        attempts__amount_minor=payment.amount_minor,
        attempts__currency=payment.currency,
    ) & ~Q(attempts__origin=Origin.OURS)
    return Invoice.objects.filter(placeholder, customer_id=customer_pk).exclude(cancel_reason=SUPERSEDED)


def _oldest(invoices: QuerySet[Invoice], end: AttemptStatus | None) -> int | None:
    """Of several that owe the same the one whose try ended like the one that is told, else the one that came first:
    whichever it is, no debt is charged twice."""
    found = invoices.annotate(fits=Q(attempts__status=end)).order_by("-fits", "pk") if end else invoices.order_by("pk")
    return found.values_list("pk", flat=True).first()
