"""The ledger to read: customers, transactions, refunds, attempts, disputes, events."""

from accounts.api.views import DetailView, ListView, ResourceView
from invoices.api import filters
from invoices.api.serializers import (
    AttemptSerializer,
    CustomerSerializer,
    DisputeSerializer,
    EventSerializer,
    TransactionSerializer,
)
from invoices.models import Attempt, Customer, Dispute, Event, Transaction
from invoices.states import TransactionKind


class _Customers(ResourceView):
    serializer_class = CustomerSerializer

    def rows(self):
        return Customer.objects.select_related("connection")


class CustomerListView(_Customers, ListView):
    """Customers, newest first."""

    filterset_class = filters.CustomerFilters


class CustomerView(_Customers, DetailView):
    """One customer."""

    what = "customer"


class _Transactions(ResourceView):
    serializer_class = TransactionSerializer

    def rows(self):
        return Transaction.objects.select_related("invoice", "refund_of", "duplicate_of")


class TransactionListView(_Transactions, ListView):
    """Charges and refunds, newest first."""

    filterset_class = filters.TransactionFilters
    orderings = {"created_at": "created_at"}


class TransactionView(_Transactions, DetailView):
    """One transaction."""

    what = "transaction"


class _Refunds(_Transactions):
    def rows(self):
        return super().rows().filter(kind=TransactionKind.REFUND)


class RefundListView(_Refunds, ListView):
    """Refunds, newest first."""

    filterset_class = filters.RefundFilters


class RefundView(_Refunds, DetailView):
    """One refund."""

    what = "refund"


class _Attempts(ResourceView):
    serializer_class = AttemptSerializer

    def rows(self):
        return Attempt.objects.select_related("invoice", "transaction", "token", "card")


class AttemptListView(_Attempts, ListView):
    """Attempts of ours and of others, newest first."""

    filterset_class = filters.AttemptFilters
    orderings = {"created_at": "created_at", "attempted_at": "attempted_at"}


class AttemptView(_Attempts, DetailView):
    """One attempt."""

    what = "attempt"


class _Disputes(ResourceView):
    serializer_class = DisputeSerializer

    def rows(self):
        return Dispute.objects.select_related("invoice", "attempt")


class DisputeListView(_Disputes, ListView):
    """Card disputes and bank returns, newest first."""

    filterset_class = filters.DisputeFilters


class DisputeView(_Disputes, DetailView):
    """One dispute."""

    what = "dispute"


class _Events(ResourceView):
    serializer_class = EventSerializer
    what = "event"
    lookup_field = "pk"

    def rows(self):
        return Event.objects.select_related("invoice")


class EventListView(_Events, ListView):
    """The invoices' histories, newest entry first."""

    filterset_class = filters.EventFilters


class EventView(_Events, DetailView):
    """One entry of an invoice's history."""
