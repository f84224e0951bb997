from invoices.models.billing import Attempt, Dispute, Invoice, ProviderPayment, Transaction
from invoices.models.journal import Event, OutboxMessage, ReviewItem
from invoices.models.parties import Connection, Customer

__all__ = [
    "Attempt",
    "Connection",
    "Customer",
    "Dispute",
    "Event",
    "Invoice",
    "OutboxMessage",
    "ProviderPayment",
    "ReviewItem",
    "Transaction",
]
