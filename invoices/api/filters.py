"""What lists of the ledger can be narrowed by; each condition has an index to enter by, or comes on top of one."""

from django_filters import rest_framework as filters

from accounts.api.filters import IdFilter, ListFilters, WordFilter
from invoices.models import Invoice
from invoices.states import InvoiceStatus


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
