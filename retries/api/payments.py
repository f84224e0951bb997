"""`/payments/...`: hand a failed payment over, ask where it stands, take it back."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.api.fields import NameField, StrictSerializer, minor_units
from accounts.api.views import ApiView
from accounts.models import Merchant
from accounts.scopes import Scope
from invoices.api.stamp import api_stamp
from invoices.models import Connection
from invoices.services.parties import connection_require
from invoices.states import INVOICE_PAID
from providers.base import EventKind
from recovery_site.common import clock
from recovery_site.common.errors import NotFound
from retries.api.serializers import (
    FailureSerializer,
    PaymentMetadataSerializer,
    RetryRequestSerializer,
    RetryStatusSerializer,
)
from retries.engine.drain import job_work
from retries.models import RetryJob
from retries.payments import (
    Payment,
    RetryStatus,
    customer_payments,
    never_failed,
    payment_find,
    payment_require,
    retry_stats,
    retry_status,
)
from retries.services.cancel import retry_cancel
from retries.services.manual import charge_first, retry_now
from retries.services.reports import PaymentReport, customer_named, payment_open, payment_report
from retries.states import NextStep
from tokens.models import Token


def status_body(status: RetryStatus) -> dict[str, Any]:
    """For `RetryStatusSerializer`."""
    names = (
        "transaction_id transaction invoice customer connection case job status attempts max_attempts total_attempts"
        " priority next_retry_at token created_at reason"
    )
    return {
        **{name: getattr(status, name) for name in names.split()},
        "error": {"code": status.error_code, "message": status.error_message, "category": status.category},
        "metadata": {
            "user_id": status.user_id,
            "amount": status.amount_minor,
            "currency": status.currency,
            "payment_intent_id": status.payment_intent_id,
            "payment_method_id": status.payment_method_id,
            "description": status.description,
        },
    }


def report_of(
    merchant: Merchant, name: str, given: Mapping[str, Any], kind: EventKind
) -> tuple[Connection | None, PaymentReport]:
    """A report's checked fields, and the connection it names."""
    metadata = given.get("metadata", {})
    amount, currency = metadata.get("amount"), metadata.get("currency", "")
    if amount is not None and not currency:
        known = payment_find(merchant=merchant, name=name)
        if known is None:
            raise serializers.ValidationError({"metadata": {"currency": ["An amount needs its currency."]}})
        currency = known.invoice.currency
    connection = None
    if given.get("connection"):
        connection = connection_require(merchant=merchant, public_id=given["connection"])
    now = clock.now()
    texts = ("user_id", "payment_intent_id", "payment_method_id", "description")
    return connection, PaymentReport(
        name=name,
        kind=kind,
        occurred_at=min(given.get("occurred_at") or now, now),
        amount_minor=None if amount is None else minor_units(amount, currency, "metadata.amount"),
        currency=currency,
        charge_id=given.get("charge_id", ""),
        **{text: metadata.get(text, "") for text in texts},
        **given.get("error", {}),
    )


def take_report(
    merchant: Merchant, name: str, given: Mapping[str, Any], kind: EventKind = EventKind.PAYMENT_FAILED
) -> tuple[Payment, bool]:
    """A report's checked fields into the ledger; the payment, and whether it was new."""
    connection, report = report_of(merchant, name, given, kind)
    return payment_report(merchant=merchant, report=report, connection=connection, now=clock.now())


class PaymentRetryView(ApiView):
    """The retries of one transaction, by our id (`txn_...`) or yours."""

    serializer_class = RetryStatusSerializer
    scopes = {"POST": Scope.PAYMENTS, "DELETE": Scope.PAYMENTS}

    def _told(self, payment: Payment, status: int = 200) -> Response:
        return Response(self.get_serializer(status_body(retry_status(payment))).data, status=status)

    @extend_schema(
        operation_id="payment_retry_create",
        request=RetryRequestSerializer,
        responses={200: RetryStatusSerializer, 201: RetryStatusSerializer},
        tags=["payments"],
    )
    def post(self, request: Request, transaction_id: str) -> Response:
        """Report a failed payment and have it retried.

        Customer, invoice and transaction are created if they are new (201). The same transaction told again changes
        nothing (200), unless `charge_id` names another try.
        """
        given = self.body(RetryRequestSerializer)
        payment, created = take_report(self.merchant, transaction_id, given)
        return self._told(payment, 201 if created else 200)

    @extend_schema(operation_id="payment_retry_status", responses=RetryStatusSerializer, tags=["payments"])
    def get(self, request: Request, transaction_id: str) -> Response:
        """Where the retries of a transaction stand: attempts and maximum, priority, next time, and why."""
        return self._told(payment_require(merchant=self.merchant, name=transaction_id))

    @extend_schema(
        operation_id="payment_retry_cancel",
        responses={200: RetryStatusSerializer, 409: OpenApiResponse(description="Nothing is being retried.")},
        tags=["payments"],
    )
    def delete(self, request: Request, transaction_id: str) -> Response:
        """Stop retrying it. The invoice stays owed; a failure that is reported later starts anew."""
        payment = payment_require(merchant=self.merchant, name=transaction_id)
        retry_cancel(invoice=payment.invoice, stamp=api_stamp(self.caller), reason="canceled through the API")
        return self._told(payment_require(merchant=self.merchant, name=transaction_id))


class PaymentSerializer(serializers.Serializer):
    """One payment: how its invoice stands, and its retries."""

    transaction_id = serializers.CharField()
    status = serializers.CharField(help_text="Of the invoice.")
    currency = serializers.CharField()
    amount_minor = serializers.IntegerField()
    paid_minor = serializers.IntegerField()
    due_minor = serializers.IntegerField()
    refunded_minor = serializers.IntegerField()
    settled_at = serializers.DateTimeField(allow_null=True)
    retry = RetryStatusSerializer()


class PaymentView(ApiView):
    """One payment by our id (`txn_...`) or yours."""

    serializer_class = PaymentSerializer

    def get(self, request: Request, transaction_id: str) -> Response:
        payment = payment_require(merchant=self.merchant, name=transaction_id)
        names = "status currency amount_minor paid_minor due_minor refunded_minor settled_at".split()
        body = {name: getattr(payment.invoice, name) for name in names}
        body |= {"transaction_id": payment.name, "retry": status_body(retry_status(payment))}
        return Response(self.get_serializer(body).data)


class UserRetriesSerializer(serializers.Serializer):
    data = RetryStatusSerializer(many=True)  # type: ignore[assignment]  # the metaclass takes fields out


class UserRetriesView(ApiView):
    """The newest payments of a customer (`cus_...` or your id) that have failed, and where their retries stand."""

    serializer_class = UserRetriesSerializer

    def get(self, request: Request, customer_id: str) -> Response:
        customers = customer_named(merchant=self.merchant, name=customer_id)
        if not customers:
            raise NotFound("There is no such customer among yours.")
        found = [status_body(retry_status(payment)) for payment in customer_payments(customers)]
        return Response(self.get_serializer({"data": found}).data)


class RetryStatsSerializer(serializers.Serializer):
    """What is being recovered now; amounts in minor units per currency."""

    total = serializers.IntegerField(help_text="Open cases.")
    pending = serializers.IntegerField(help_text="Of these, with a retry booked or queued.")
    amounts = serializers.DictField(child=serializers.IntegerField())
    by_error_code = serializers.DictField(child=serializers.IntegerField())


class RetryStatsView(ApiView):
    """How much is being recovered now: total, pending, amounts per currency, by error code."""

    serializer_class = RetryStatsSerializer

    def get(self, request: Request) -> Response:
        return Response(self.get_serializer(retry_stats(self.merchant)).data)


class ProcessRequestSerializer(StrictSerializer):
    transaction_id = NameField(help_text="Yours or ours (`txn_...`); one that is new needs `metadata`.")
    metadata = PaymentMetadataSerializer(required=False)
    connection = serializers.CharField(
        required=False, max_length=40, help_text="Needed only where you have several connections (`con_...`)."
    )


class ProcessSerializer(serializers.Serializer):
    success = serializers.BooleanField()
    should_retry = serializers.BooleanField(help_text="True while a machine goes on by itself.")
    next_retry_at = serializers.DateTimeField(allow_null=True)
    reason = serializers.CharField()
    retry = RetryStatusSerializer()


_GOES_ON = {step.value for step in (NextStep.BOOKED, NextStep.QUEUED, NextStep.SENDING, NextStep.RESOLVING)}


class PaymentProcessView(ApiView):
    """Charge what is due of a payment now, with automatic retries after it. A payment that is paid stays as it is.

    One that is new is created from `metadata` (user_id, amount, currency, payment_method_id) and charged for the first
    time.
    """

    serializer_class = ProcessSerializer
    scopes = {"POST": Scope.PAYMENTS}
    calls_out = True

    @extend_schema(request=ProcessRequestSerializer, responses=ProcessSerializer)
    def post(self, request: Request) -> Response:
        given = self.body(ProcessRequestSerializer)
        name, now = given["transaction_id"], clock.now()
        payment = payment_find(merchant=self.merchant, name=name) or self._opened(name, given, now)
        if payment.invoice.status not in INVOICE_PAID:
            job_work(self._booked(payment, given, now).pk, now=now)
            payment = payment_require(merchant=self.merchant, name=name)
        status = retry_status(payment)
        paid = payment.invoice.status in INVOICE_PAID
        told = {
            "success": paid,
            "should_retry": not paid and status.status in _GOES_ON,
            "next_retry_at": status.next_retry_at,
            "reason": status.reason or ("The payment is settled." if paid else ""),
            "retry": status_body(status),
        }
        return Response(self.get_serializer(told).data)

    def _opened(self, name: str, given: Mapping[str, Any], now: datetime) -> Payment:
        if "metadata" not in given:
            raise NotFound("There is no such transaction among yours; send metadata to have it charged as a new one.")
        connection, report = report_of(self.merchant, name, given, EventKind.INVOICE_UPDATED)
        return payment_open(merchant=self.merchant, report=report, connection=connection, now=now)

    def _booked(self, payment: Payment, given: Mapping[str, Any], now: datetime) -> RetryJob:
        invoice, stamp, token_pk = payment.invoice, api_stamp(self.caller), None
        if method := given.get("metadata", {}).get("payment_method_id"):
            mine = Token.objects.filter(customer=invoice.customer, provider_token=method)
            token_pk = mine.values_list("pk", flat=True).first()
            if token_pk is None:
                raise NotFound("The customer has no such payment method.")
        if never_failed(invoice):
            return charge_first(invoice_pk=invoice.pk, stamp=stamp, token_pk=token_pk)
        return retry_now(invoice_pk=invoice.pk, stamp=stamp, reason="asked through the API", token_pk=token_pk)


class AttemptReportSerializer(StrictSerializer):
    """One charge that you made yourself."""

    transaction_id = NameField(help_text="Yours or ours, of the payment that was tried.")
    charge_id = NameField(help_text="Your processor's id of this one try; told again it changes nothing.")
    status = serializers.ChoiceField(choices=("declined", "succeeded", "pending"))
    error = FailureSerializer(required=False)
    metadata = PaymentMetadataSerializer(required=False)
    connection = serializers.CharField(required=False, max_length=40)
    occurred_at = serializers.DateTimeField(required=False)

    def validate(self, attrs):
        if (attrs["status"] == "declined") != ("error" in attrs):
            raise serializers.ValidationError({"error": ["Send it with declined, and only then."]})
        return attrs


_TOLD = {
    "declined": EventKind.PAYMENT_FAILED,
    "succeeded": EventKind.PAYMENT_SUCCEEDED,
    "pending": EventKind.PAYMENT_PENDING,
}


class AttemptReportView(ApiView):
    """For merchants who charge themselves: report a try, hear when to try next and with what, or why not.

    Its connection has the mode `schedule`: nothing is ever charged through it by this service.
    """

    serializer_class = RetryStatusSerializer
    scopes = {"POST": Scope.PAYMENTS}

    @extend_schema(request=AttemptReportSerializer, responses={200: RetryStatusSerializer, 201: RetryStatusSerializer})
    def post(self, request: Request) -> Response:
        given = self.body(AttemptReportSerializer)
        payment, created = take_report(self.merchant, given["transaction_id"], given, _TOLD[given["status"]])
        return Response(self.get_serializer(status_body(retry_status(payment))).data, status=201 if created else 200)
