"""Bodies of the retry endpoints (docs/api.md)."""

from rest_framework import serializers

from accounts.api.fields import AmountField, CurrencyField, NameField, StrictSerializer
from retries.states import CaseStatus, NextStep

RETRY_STATUSES = (
    *(step.value for step in NextStep if step is not NextStep.NONE),
    *(status.value.lower() for status in CaseStatus if status is not CaseStatus.OPEN),
    "succeeded",
    "none",
)


class FailureSerializer(StrictSerializer):
    """Why it failed."""

    code = serializers.CharField(max_length=100, help_text="One of the API's own codes, or your processor's.")
    message = serializers.CharField(required=False, allow_blank=True, max_length=1000, default="")
    network_code = serializers.CharField(required=False, allow_blank=True, max_length=40, default="")
    advice_code = serializers.CharField(required=False, allow_blank=True, max_length=40, default="")


class PaymentMetadataSerializer(StrictSerializer):
    """Whose payment of what. All of it may be left out for a transaction that is known."""

    user_id = NameField(required=False, help_text="Your id of the customer.")
    amount = AmountField(required=False)
    currency = CurrencyField(required=False)
    payment_intent_id = NameField(required=False, help_text="What groups several tries of one payment.")
    payment_method_id = NameField(required=False, help_text="The stored card or mandate that was charged.")
    description = serializers.CharField(required=False, allow_blank=True, max_length=500)


class RetryRequestSerializer(StrictSerializer):
    error = FailureSerializer()
    metadata = PaymentMetadataSerializer(required=False)
    connection = serializers.CharField(
        required=False, max_length=40, help_text="Needed only where you have several connections (`con_...`)."
    )
    charge_id = NameField(required=False, help_text="Your processor's id of this one try; tells a further one apart.")
    occurred_at = serializers.DateTimeField(required=False, help_text="When it failed; default now.")


class RetryErrorSerializer(serializers.Serializer):
    code = serializers.CharField()
    message = serializers.CharField()
    category = serializers.CharField(help_text="What classification made of it.")


class RetryMetadataSerializer(serializers.Serializer):
    user_id = serializers.CharField()
    amount = serializers.IntegerField(help_text="Minor units.")
    currency = serializers.CharField()
    payment_intent_id = serializers.CharField()
    payment_method_id = serializers.CharField()
    description = serializers.CharField()


class RetryStatusSerializer(serializers.Serializer):
    """Where the retries of one payment stand, and why."""

    transaction_id = serializers.CharField(help_text="The id it was asked by.")
    transaction = serializers.CharField(help_text="`txn_...`")
    invoice = serializers.CharField(help_text="`inv_...`")
    customer = serializers.CharField(help_text="`cus_...`")
    connection = serializers.CharField(help_text="`con_...`")
    case = serializers.CharField(help_text="`cas_...`; empty if it never failed.")
    job = serializers.CharField(help_text="`job_...`; empty if no retry is planned.")
    status = serializers.ChoiceField(choices=RETRY_STATUSES)
    attempts = serializers.IntegerField(help_text="Retries made after this kind of failure.")
    max_attempts = serializers.IntegerField(help_text="As many as the policy grants after this kind of failure.")
    total_attempts = serializers.IntegerField(help_text="All tries of the invoice, the first one too.")
    priority = serializers.IntegerField(allow_null=True, help_text="0 goes first, 9 last; null without a retry.")
    next_retry_at = serializers.DateTimeField(allow_null=True)
    token = serializers.CharField(help_text="`tok_...`: what the next retry uses, else what was tried last.")
    created_at = serializers.DateTimeField(allow_null=True, help_text="When it first failed.")
    error = RetryErrorSerializer()
    metadata = RetryMetadataSerializer()
    reason = serializers.CharField(help_text="One sentence: why it stands as it does.")
