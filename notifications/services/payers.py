"""What payers do behind their links. Charges go through the retry services and the charge protocol, never around it."""

from datetime import datetime, timedelta
from uuid import uuid4

from django.db import transaction
from django.db.models import Q

from invoices.models import Connection, Customer, Invoice
from invoices.selectors.parties import connection_config
from invoices.services.ledger import Stamp, invoice_lock, record_event
from invoices.services.parties import customer_lock
from invoices.states import Trigger
from notifications.models import Message, PaymentLink
from notifications.states import LinkPurpose
from providers import registry
from providers.base import CustomerFacts, EventKind, MethodFacts, PaymentEvent
from providers.payer import PayerPages, TrialCard, TrialForm
from recovery_site.common.errors import Conflict
from retries.handler import event_handle
from retries.models import RetryJob
from retries.services.manual import customer_pay
from retries.states import JOB_OPEN
from tokens.models import Token

# Clicks within this time are one visit.
_VISIT = timedelta(hours=1)
_ACTOR = "customer"


def _stamp(link: PaymentLink, now: datetime) -> Stamp:
    return Stamp(_ACTOR, f"link:{link.public_id}", now)


def message_of(link: PaymentLink) -> Message | None:
    return Message.objects.filter(link=link).first()


def payer_form(connection: Connection) -> PayerPages | TrialForm | None:
    """What payers can do at this connection's provider by themselves."""
    return registry.payer(connection.provider, connection_config(connection))


@transaction.atomic
def page_opened(*, link: PaymentLink, now: datetime) -> bool:
    """The payer has opened the page from a message: a touch, once per visit. Writes `message.clicked`."""
    again = Q(last_clicked_at=None) | Q(last_clicked_at__lte=now - _VISIT)
    message = Message.objects.filter(again, link=link).first()
    if message is None:
        return False
    invoice = invoice_lock(link.invoice_id)
    if not Message.objects.filter(again, pk=message.pk).update(last_clicked_at=now):
        return False
    Message.objects.filter(pk=message.pk, clicked_at=None).update(clicked_at=now)
    _touch(link, invoice, "message.clicked", now, message)
    return True


def _touch(link: PaymentLink, invoice: Invoice, kind: str, now: datetime, message: Message | None) -> None:
    data = {"link": link.public_id} | ({"message": message.public_id, "template": message.template} if message else {})
    record_event(
        invoice=invoice,
        kind=kind,
        stamp=_stamp(link, now),
        subject_type="message" if message else "invoice",
        subject_id=message.public_id if message else "",
        data=data,
    )


def _acted(link: PaymentLink, kind: str, now: datetime) -> None:
    """The payer did something: a touch beside the event that it causes."""
    invoice, message = invoice_lock(link.invoice_id), message_of(link)
    if message is not None:
        Message.objects.filter(pk=message.pk, acted_at=None).update(acted_at=now)
    _touch(link, invoice, kind, now, message)


@transaction.atomic
def payer_pays(*, link: PaymentLink, now: datetime) -> None:
    """Charge the payment method on file at once, by the payer's own wish. Raises Conflict where that may not be."""
    customer_lock(link.customer_id)
    _acted(link, "page.pay", now)
    customer_pay(invoice_pk=link.invoice_id, stamp=_stamp(link, now))


@transaction.atomic
def payer_gives_method(*, link: PaymentLink, method: MethodFacts, now: datetime) -> None:
    """Another payment method, told like every other provider's news: it resumes what waits, within all budgets.

    Where that books nothing (a case after a return, one that was given up), the payer's own wish to pay does. Raises
    Conflict, and keeps the method, if neither may be.
    """
    customer = customer_lock(link.customer_id)
    connection = Connection.objects.get(pk=customer.connection_id)
    event_handle(
        event=_method_event(customer, connection, method, now),
        connection=connection,
        cause=f"link:{link.public_id}",
        now=now,
    )
    _acted(link, "page.method_updated", now)
    if link.purpose == LinkPurpose.CARD:
        return
    invoice = Invoice.objects.get(pk=link.invoice_id)
    booked = RetryJob.objects.filter(invoice=invoice, status__in=JOB_OPEN, trigger=Trigger.CARD_UPDATE)
    if invoice.due_minor and not booked.exists():
        token = Token.objects.filter(connection=connection, provider_token=method.token).first()
        _pay_or_leave(link, token, now)


def _pay_or_leave(link: PaymentLink, token: Token | None, now: datetime) -> None:
    """A refusal of the charge must not take the payment method back that was given."""
    try:
        with transaction.atomic():
            customer_pay(invoice_pk=link.invoice_id, stamp=_stamp(link, now), token_pk=token.pk if token else None)
    except Conflict:
        return


def _method_event(customer: Customer, connection: Connection, method: MethodFacts, now: datetime) -> PaymentEvent:
    return PaymentEvent(
        kind=EventKind.METHOD_UPDATED,
        provider=connection.provider,
        event_id=f"page_{uuid4().hex}",
        event_type="page.method_updated",
        occurred_at=now,
        customer=CustomerFacts(id=customer.connector_customer_id),
        method=method,
        source="page",
    )


def payer_chooses_card(*, link: PaymentLink, card: TrialCard, now: datetime, serial: str = "") -> None:
    """The test provider's form was filled in. Raises Conflict for a provider that is none."""
    form = payer_form(link.invoice.connection)
    if not isinstance(form, TrialForm):
        raise Conflict("This provider takes payment methods on its own pages only.")
    method = form.card_add(card, serial=serial or uuid4().hex[:10], at=now)
    payer_gives_method(link=link, method=method, now=now)


def payer_confirms(*, link: PaymentLink, token: Token, now: datetime) -> None:
    """The payer has confirmed at the test bank: the charge goes out at once. Raises Conflict, ProviderUnavailable."""
    form = payer_form(link.invoice.connection)
    if not isinstance(form, TrialForm):
        raise Conflict("This provider lets payers confirm on its own pages only.")
    form.confirm(token.provider_token)
    _confirmed(link, token, now)


@transaction.atomic
def _confirmed(link: PaymentLink, token: Token, now: datetime) -> None:
    customer_lock(link.customer_id)
    _acted(link, "page.confirmed", now)
    customer_pay(invoice_pk=link.invoice_id, stamp=_stamp(link, now), token_pk=token.pk)
