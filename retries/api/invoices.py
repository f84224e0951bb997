"""`/invoices`: the ledger's view, with the recovery case that says what happens next."""

from django.db.models import Prefetch
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from accounts.api.views import DetailView, ListView
from invoices.api.filters import InvoiceFilters
from invoices.api.serializers import AttemptSerializer, InvoiceSerializer, TransactionSerializer
from invoices.models import Attempt, Invoice, Transaction
from retries.models import Case
from retries.states import CaseStatus, NextStep


class CaseSerializer(serializers.ModelSerializer):
    """One failure episode of an invoice."""

    id = serializers.CharField(source="public_id", help_text="`cas_...`")
    status = serializers.ChoiceField(choices=CaseStatus.choices)
    next_step = serializers.ChoiceField(choices=NextStep.choices)
    why = serializers.CharField(help_text="One sentence: why this is the next step.")
    policy_version = serializers.IntegerField(source="policy_version.version")

    class Meta:
        model = Case
        fields = (
            "id",
            "status",
            "segment",
            "category",
            "code",
            "first_category",
            "currency",
            "amount_minor",
            "recovered_minor",
            "recovered_by",
            "next_step",
            "next_step_at",
            "why",
            "paused_by",
            "automatic_barred",
            "exhausted_at",
            "policy_version",
            "opened_at",
            "closed_at",
            "close_reason",
            "created_at",
        )
        read_only_fields = fields


class InvoiceDetailSerializer(InvoiceSerializer):
    """With everything that happened to it, and the newest case."""

    case = serializers.SerializerMethodField()
    transactions = TransactionSerializer(many=True)
    attempts = AttemptSerializer(many=True)

    class Meta:
        model = Invoice
        fields = (*InvoiceSerializer.Meta.fields, "case", "transactions", "attempts")
        read_only_fields = fields

    @extend_schema_field(CaseSerializer(allow_null=True))
    def get_case(self, invoice):
        newest = next(iter(invoice.newest_cases), None)
        return CaseSerializer(newest).data if newest else None


class InvoiceListView(ListView):
    """Invoices, newest first."""

    serializer_class = InvoiceSerializer
    filterset_class = InvoiceFilters

    def rows(self):
        return Invoice.objects.select_related("connection", "customer")


class InvoiceView(DetailView):
    """One invoice with its transactions, attempts and newest case."""

    serializer_class = InvoiceDetailSerializer
    what = "invoice"

    def rows(self):
        # A prefetched row knows its invoice, so that no row asks for it again.
        transactions = Transaction.objects.select_related("refund_of", "duplicate_of").order_by("pk")
        attempts = Attempt.objects.select_related("transaction", "token", "card").order_by("pk")
        cases = Case.objects.select_related("policy_version").order_by("-pk")
        return Invoice.objects.select_related("connection", "customer").prefetch_related(
            Prefetch("transactions", transactions),
            Prefetch("attempts", attempts),
            Prefetch("cases", cases, to_attr="newest_cases"),
        )
