"""Two accounts, one debt: a gateway that charges for a billing system, and what that system echoes of our own notes."""

from dataclasses import replace
from datetime import timedelta

from invoices.models import BillerNote, Connection
from invoices.states import ConnectionMode, NoteStatus, TransactionKind
from providers.base import EventKind, PaymentEvent
from recovery_site.common.compiled import Compiled, Param
from retries.handler.resolve import EventWaits, attempt_find

_PATIENCE = timedelta(minutes=1)
NOT_OURS = "This account charges for a billing system only; what that system collects itself, it tells itself."
OWN_NOTE = "The billing system repeats what this service has told it of a payment that was made elsewhere."


def billers_of(connection: Connection) -> list[Connection]:
    """The billing systems whose invoices are charged through this account; only watched accounts may be gateways."""
    if connection.mode != ConnectionMode.OBSERVE:
        return []
    return _BILLERS.all(gateway=connection.pk)


_BILLERS = Compiled(lambda: Connection.objects.filter(gateway=Param("gateway")).order_by("pk"))


def for_biller(event: PaymentEvent, gateway: Connection, billers: list[Connection]) -> tuple[PaymentEvent, Connection]:
    """A gateway's event about a charge of ours, as an event of the billing system that it was made for.

    The payer and the method are the biller's to name: the gateway has its own words for both. The connection stays the
    gateway's if none of the charges is ours.
    """
    for biller in billers:
        attempt = attempt_find(event, biller)
        if attempt is None or attempt.gateway_id != gateway.pk:
            continue
        payment = None if event.payment is None else replace(event.payment, method=None, invoice_id="")
        return replace(event, customer=None, invoice=None, method=None, payment=payment), biller
    return event, gateway


def own_note(event: PaymentEvent, connection: Connection) -> str:
    """Why a biller's event about a payment or refund is only the echo of our note, empty if it is not.

    Raises EventWaits while a note is on its way, for until then nobody can tell.
    """
    if connection.gateway_id is None:
        return ""
    if event.kind is EventKind.REFUND_UPDATED:
        named = {facts.charge_id for facts in event.refunds} | {facts.id for facts in event.refunds}
    elif event.payment is not None and event.kind is not EventKind.PAYMENT_LINKED:
        named = {event.payment.charge_id}
    else:
        return ""
    notes = BillerNote.objects.filter(connection=connection, transaction__attempts__gateway__isnull=False)
    if notes.filter(record_id__in=named - {""}).exists():
        return OWN_NOTE
    if event.payment is None or event.kind is not EventKind.PAYMENT_SUCCEEDED:
        return ""
    if event.payment.reference and notes.filter(transaction__attempts__public_id=event.payment.reference).exists():
        return OWN_NOTE
    names = [event.payment.invoice_id, event.invoice.id if event.invoice else ""]
    on_its_way = notes.filter(
        status=NoteStatus.WAITING,
        transaction__kind=TransactionKind.CHARGE,
        invoice__provider_invoice_id__in=[name for name in names if name],
        transaction__captured_minor=event.payment.amount_minor,
    )
    if on_its_way.exists():
        raise EventWaits("This may be our own note, whose answer has not come yet.", retry_after=_PATIENCE)
    return ""
