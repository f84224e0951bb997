"""What a merchant reports through the API becomes the same event as a webhook and goes through the same handler."""

from dataclasses import dataclass
from datetime import datetime

from django.db import transaction

from accounts.models import Merchant
from invoices.models import Connection, Customer, Invoice, ProviderPayment
from invoices.services.ledger import Stamp
from invoices.services.parties import connection_create
from invoices.states import ConnectionMode
from providers.base import CustomerFacts, DeclineFacts, EventKind, InvoiceFacts, MethodFacts, PaymentEvent, PaymentFacts
from providers.decline_tables import decline_table
from recovery_site.common.errors import Conflict, InvalidInput
from retries.handler import event_handle
from retries.handler.entry import enter, enter_invoice
from retries.handler.resolve import subject_find
from retries.payments import Payment, payment_find, payment_require

# Codes of the API's own, which mean what its documentation says whatever the provider would mean by them.
OWN_CODES = "generic"


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentReport:
    """A charge that was tried; `kind` says what came of it. `name` is the merchant's id of the transaction, or ours.

    The rest may be left out for one that is known. `charge_id` names this one try, so that a further one can be told
    from the same one told again.
    """

    name: str
    occurred_at: datetime
    kind: EventKind = EventKind.PAYMENT_FAILED
    code: str = ""
    message: str = ""
    network_code: str = ""
    advice_code: str = ""
    user_id: str = ""
    amount_minor: int | None = None
    currency: str = ""
    payment_intent_id: str = ""
    payment_method_id: str = ""
    description: str = ""
    charge_id: str = ""


def payment_report(
    *, merchant: Merchant, report: PaymentReport, connection: Connection | None, now: datetime
) -> tuple[Payment, bool]:
    """Take a charge in, creating customer, invoice and transaction if they are new; what is next is planned then.

    Returns the payment and whether it was new to the ledger.

    A transaction that has failed before is reported again without effect, unless `charge_id` names another try.
    Raises InvalidInput for what a new transaction lacks, Conflict for one that is paid or closed, EventWaits.
    """
    known = payment_find(merchant=merchant, name=report.name)
    if known is not None and not report.charge_id and known.invoice.attempts.filter(kind="CHARGE").exists():
        return known, False
    if connection is not None and known is not None and known.invoice.connection_id != connection.pk:
        raise Conflict("This transaction belongs to another connection; leave the connection out.")
    account = known.invoice.connection if known else connection or connection_for_reports(merchant)
    event = _event(report, known, account)
    event_handle(event=event, connection=account, cause=f"api report of {report.name}"[:200], now=now)
    return payment_require(merchant=merchant, name=report.name), known is None


def _event(report: PaymentReport, known: Payment | None, connection: Connection) -> PaymentEvent:
    invoice = known.invoice if known else None
    amount_minor = report.amount_minor if report.amount_minor is not None else invoice.due_minor if invoice else None
    currency = report.currency or (invoice.currency if invoice else "")
    user_id = report.user_id or (invoice.customer.connector_customer_id if invoice else "")
    if amount_minor is None or not currency or not user_id:
        raise InvalidInput("This transaction is new: send metadata with user_id, amount and currency.")
    if invoice is not None and user_id != invoice.customer.connector_customer_id:
        raise Conflict("This transaction belongs to another customer.")
    return PaymentEvent(
        kind=report.kind,
        provider=code_language(report.code, connection),
        event_id=f"api:{report.name}:{report.charge_id}"[:300],
        event_type=f"api.{report.kind.value}",
        occurred_at=report.occurred_at,
        customer=CustomerFacts(id=user_id),
        invoice=None
        if invoice
        else InvoiceFacts(
            id=report.name,
            amount_minor=amount_minor,
            currency=currency,
            description=report.description,
            payment_id=report.payment_intent_id,
            issued_at=report.occurred_at,
        ),
        payment=PaymentFacts(
            charge_id=report.charge_id,
            payment_id=report.payment_intent_id or (_payment_id(invoice) if invoice else ""),
            amount_minor=amount_minor,
            currency=currency,
            invoice_id=(invoice.provider_invoice_id or "") if invoice else report.name,
            method=MethodFacts(token=report.payment_method_id) if report.payment_method_id else None,
            decline=_decline(report),
        ),
        source="api",
    )


@transaction.atomic
def payment_open(*, merchant: Merchant, report: PaymentReport, connection: Connection | None, now: datetime) -> Payment:
    """A payment that is to be made for the first time: customer, payment method and invoice, created if they are new.

    Raises InvalidInput for what it lacks, Conflict for a connection through which this service does not charge.
    """
    account = connection or connection_for_reports(merchant)
    if account.mode != ConnectionMode.CHARGE:
        raise Conflict(f"This service does not charge through {account}: charge, then report the attempt.")
    if not report.payment_method_id:
        raise InvalidInput("This transaction is new: send metadata with payment_method_id, too.")
    told = _event(report, None, account)
    facts = told.invoice
    assert facts is not None
    stamp = Stamp(actor="api", cause=f"api order of {report.name}"[:200], now=now)
    subject = subject_find(told, account, now)
    assert subject.customer_pk is not None
    entry = enter(told, subject.customer_pk, stamp)
    enter_invoice(told, entry, subject, facts, stamp)
    return payment_require(merchant=merchant, name=report.name)


def _decline(report: PaymentReport) -> DeclineFacts | None:
    if report.kind is not EventKind.PAYMENT_FAILED:
        return None
    return DeclineFacts(
        raw_code=report.code,
        network_code=report.network_code,
        advice_code=report.advice_code,
        message=report.message,
    )


def _payment_id(invoice: Invoice) -> str:
    """What an invoice without a name of its own is known by."""
    if invoice.provider_invoice_id:
        return ""
    link = ProviderPayment.objects.filter(invoice=invoice).order_by("id").first()
    return link.provider_payment_id if link else ""


def code_language(code: str, connection: Connection) -> str:
    """Whose decline table a reported code is read with: the API's own codes first, then the connection's provider."""
    return OWN_CODES if code in decline_table(OWN_CODES) else connection.provider


@transaction.atomic
def connection_for_reports(merchant: Merchant) -> Connection:
    """The merchant's only connection; without any, one is made through which it charges itself. Raises InvalidInput."""
    found = list(Connection.objects.filter(merchant=merchant).order_by("pk")[:2])
    if len(found) > 1:
        raise InvalidInput("You have several connections: name the one that this belongs to in `connection`.")
    if found:
        return found[0]
    Merchant.objects.select_for_update(no_key=True).get(pk=merchant.pk)
    again = Connection.objects.filter(merchant=merchant).order_by("pk").first()
    return again or connection_create(
        merchant=merchant, provider=OWN_CODES, config={"mode": ConnectionMode.SCHEDULE}, name="API reports"
    )


def customer_named(*, merchant: Merchant, name: str) -> list[Customer]:
    """The customers that a merchant means by an id: ours, or its own at any of its connections."""
    mine = Customer.objects.filter(merchant=merchant)
    ours = list(mine.filter(public_id=name))
    connections = Connection.objects.filter(merchant=merchant)
    return ours or list(Customer.objects.filter(connection__in=connections, connector_customer_id=name).order_by("pk"))
