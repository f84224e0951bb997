from invoices.models.attempts import Attempt, Dispute
from invoices.models.billing import Invoice, ProviderPayment, Transaction
from invoices.models.casework import StaffNote
from invoices.models.journal import Event, OutboxMessage, ReviewItem
from invoices.models.notes import BillerNote
from invoices.models.parties import Connection, Customer

__all__ = [
    "Attempt",
    "BillerNote",
    "Connection",
    "Customer",
    "Dispute",
    "Event",
    "Invoice",
    "OutboxMessage",
    "ProviderPayment",
    "ReviewItem",
    "StaffNote",
    "Transaction",
]
