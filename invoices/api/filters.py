"""What lists of the ledger can be narrowed by; each condition has an index to enter by, or comes on top of one."""

from django_filters import rest_framework as filters

from accounts.api.filters import IdFilter, ListFilters, WordFilter
from invoices.models import Attempt, Connection, Customer, Dispute, Event, Invoice, Transaction
from invoices.states import AttemptStatus, DisputeStatus, InvoiceStatus, Origin, TransactionKind, TransactionStatus


class InvoiceFilters(ListFilters):
    status = filters.ChoiceFilter(choices=InvoiceStatus.choices)
    connection = IdFilter("connection", "Of this connection (`con_...`).")
    customer = IdFilter("customer", "Of this customer (`cus_...`).")
    provider_invoice_id = WordFilter("provider_invoice_id", "The provider's or your own id.")
    number = WordFilter("number", "As printed on the invoice.", 100)
    subscription_id = WordFilter("subscription_id", "Of this subscription.")
    currency = WordFilter("currency", "ISO 4217, upper case.", 3)

    class Meta:
        model = Invoice
        fields: tuple[str, ...] = ()


class CustomerFilters(ListFilters):
    connection = IdFilter("connection", "Of this connection (`con_...`).")
    connector_customer_id = WordFilter("connector_customer_id", "The provider's or your own id.")

    class Meta:
        model = Customer
        fields: tuple[str, ...] = ()


class ConnectionFilters(ListFilters):
    provider = WordFilter("provider", "Of this provider.", 40)

    class Meta:
        model = Connection
        fields: tuple[str, ...] = ()


class TransactionFilters(ListFilters):
    invoice = IdFilter("invoice", "Of this invoice (`inv_...`).")
    kind = filters.ChoiceFilter(choices=TransactionKind.choices)
    status = filters.ChoiceFilter(choices=TransactionStatus.choices)

    class Meta:
        model = Transaction
        fields: tuple[str, ...] = ()


class RefundFilters(ListFilters):
    invoice = IdFilter("invoice", "Of this invoice (`inv_...`).")
    status = filters.ChoiceFilter(choices=TransactionStatus.choices)

    class Meta:
        model = Transaction
        fields: tuple[str, ...] = ()


class AttemptFilters(ListFilters):
    invoice = IdFilter("invoice", "Of this invoice (`inv_...`).")
    transaction = IdFilter("transaction", "Of this transaction (`txn_...`).")
    status = filters.ChoiceFilter(choices=AttemptStatus.choices)
    origin = filters.ChoiceFilter(choices=Origin.choices)
    category = WordFilter("category", "What classification made of it.", 30)

    class Meta:
        model = Attempt
        fields: tuple[str, ...] = ()


class DisputeFilters(filters.FilterSet):
    invoice = IdFilter("invoice", "Of this invoice (`inv_...`).")
    status = filters.ChoiceFilter(choices=DisputeStatus.choices)

    class Meta:
        model = Dispute
        fields: tuple[str, ...] = ()


class EventFilters(filters.FilterSet):
    invoice = IdFilter("invoice", "Of this invoice (`inv_...`).")
    kind = WordFilter("kind", "Such as `case.closed`.", 60)

    class Meta:
        model = Event
        fields: tuple[str, ...] = ()
