"""The ledger as JSON. `id` is always our public id; `*_id` are ids of others; amounts are minor units."""

from rest_framework import serializers

from invoices.models import Attempt, Customer, Dispute, Event, Invoice, Transaction
from invoices.states import (
    AttemptStatus,
    DisputeKind,
    DisputeStatus,
    InvoiceStatus,
    Origin,
    TransactionKind,
    TransactionStatus,
    Trigger,
)


class InvoiceSerializer(serializers.ModelSerializer):
    """An amount owed."""

    id = serializers.CharField(source="public_id", help_text="`inv_...`")
    connection = serializers.CharField(source="connection.public_id")
    customer = serializers.CharField(source="customer.public_id")
    status = serializers.ChoiceField(choices=InvoiceStatus.choices)
    due_minor = serializers.IntegerField(help_text="What is still owed now.")

    class Meta:
        model = Invoice
        fields = (
            "id",
            "connection",
            "customer",
            "provider_invoice_id",
            "number",
            "description",
            "status",
            "currency",
            "amount_minor",
            "paid_minor",
            "due_minor",
            "refunded_minor",
            "credited_minor",
            "subscription_id",
            "plan",
            "interval",
            "cancel_reason",
            "issued_at",
            "due_at",
            "settled_at",
            "created_at",
        )
        read_only_fields = fields


class TransactionSerializer(serializers.ModelSerializer):
    """One movement of money for an invoice: a charge or a refund."""

    id = serializers.CharField(source="public_id", help_text="`txn_...`")
    invoice = serializers.CharField(source="invoice.public_id")
    kind = serializers.ChoiceField(choices=TransactionKind.choices)
    status = serializers.ChoiceField(choices=TransactionStatus.choices)
    refund_of = serializers.CharField(source="refund_of.public_id", allow_null=True, default=None)
    duplicate_of = serializers.CharField(source="duplicate_of.public_id", allow_null=True, default=None)

    class Meta:
        model = Transaction
        fields = (
            "id",
            "invoice",
            "kind",
            "status",
            "currency",
            "amount_minor",
            "captured_minor",
            "settles_minor",
            "refund_of",
            "duplicate_of",
            "reason",
            "failure",
            "created_by",
            "started_at",
            "finished_at",
            "reversed_at",
            "created_at",
        )
        read_only_fields = fields


class AttemptSerializer(serializers.ModelSerializer):
    """One call to a provider, ours or reported."""

    id = serializers.CharField(source="public_id", help_text="`att_...`: our reference at the provider.")
    invoice = serializers.CharField(source="invoice.public_id")
    transaction = serializers.CharField(source="transaction.public_id")
    token = serializers.CharField(source="token.public_id", allow_null=True, default=None)
    card = serializers.CharField(source="card.public_id", allow_null=True, default=None)
    kind = serializers.ChoiceField(choices=TransactionKind.choices)
    origin = serializers.ChoiceField(choices=Origin.choices, help_text="Who sent it.")
    trigger = serializers.ChoiceField(choices=Trigger.choices, help_text="Why it was sent.")
    status = serializers.ChoiceField(choices=AttemptStatus.choices)

    class Meta:
        model = Attempt
        fields = (
            "id",
            "invoice",
            "transaction",
            "token",
            "card",
            "kind",
            "origin",
            "trigger",
            "number",
            "status",
            "currency",
            "amount_minor",
            "captured_minor",
            "provider_id",
            "provider_payment_id",
            "network_reference",
            "gateway_reference",
            "raw_code",
            "network_code",
            "advice_code",
            "message",
            "category",
            "explanation",
            "counts",
            "returned_at",
            "attempted_at",
            "finished_at",
            "expected_by",
            "created_at",
        )
        read_only_fields = fields


class CustomerSerializer(serializers.ModelSerializer):
    """The payer at one connection."""

    id = serializers.CharField(source="public_id", help_text="`cus_...`")
    connection = serializers.CharField(source="connection.public_id")

    class Meta:
        model = Customer
        fields = (
            "id",
            "connection",
            "connector_customer_id",
            "email",
            "name",
            "country",
            "timezone",
            "locale",
            "first_seen_at",
            "created_at",
        )
        read_only_fields = fields


class DisputeSerializer(serializers.ModelSerializer):
    """A card dispute or a bank return of one attempt."""

    id = serializers.CharField(source="public_id", help_text="`dsp_...`")
    invoice = serializers.CharField(source="invoice.public_id")
    attempt = serializers.CharField(source="attempt.public_id")
    kind = serializers.ChoiceField(choices=DisputeKind.choices)
    status = serializers.ChoiceField(choices=DisputeStatus.choices)

    class Meta:
        model = Dispute
        fields = (
            "id",
            "invoice",
            "attempt",
            "provider_id",
            "kind",
            "status",
            "currency",
            "amount_minor",
            "reason_code",
            "opened_at",
            "respond_by",
            "closed_at",
            "applied_at",
        )
        read_only_fields = fields


class EventSerializer(serializers.ModelSerializer):
    """One entry of an invoice's history; `seq` counts from 1 within the invoice, `hash` covers the one before."""

    id = serializers.IntegerField(source="pk")
    invoice = serializers.CharField(source="invoice.public_id")
    data = serializers.JSONField()  # type: ignore[assignment]  # the metaclass takes fields out

    class Meta:
        model = Event
        fields = (
            "id",
            "invoice",
            "seq",
            "subject_type",
            "subject_id",
            "kind",
            "from_state",
            "to_state",
            "actor",
            "cause",
            "data",
            "occurred_at",
            "recorded_at",
            "hash",
        )
        read_only_fields = fields
