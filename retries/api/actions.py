"""What people and programs do to an invoice: retry, pause, resume, cancel, write off, refund."""

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.api.fields import AmountField, StrictSerializer, minor_units
from accounts.api.views import ApiView
from accounts.scopes import Scope
from invoices.api.serializers import InvoiceSerializer, TransactionSerializer
from invoices.models import Invoice, Transaction
from invoices.services.ledger import Stamp
from recovery_site.common import clock
from recovery_site.common.errors import NotFound
from retries.refunding import refund_request
from retries.services.manual import case_pause, case_resume, invoice_cancel, retry_now
from tokens.models import Token


class ReasonSerializer(StrictSerializer):
    reason = serializers.CharField(max_length=300, help_text="Kept in the invoice's history.")


class RetryNowSerializer(ReasonSerializer):
    token = serializers.CharField(required=False, max_length=40, help_text="`tok_...`; default: the best one.")
    due_at = serializers.DateTimeField(required=False, help_text="Default: at once.")


class RefundRequestSerializer(ReasonSerializer):
    amount = AmountField(required=False, help_text="Default: all that is left.")
    transaction = serializers.CharField(required=False, max_length=40, help_text="Where several payments were made.")


class _Action(ApiView):
    scopes = {"POST": Scope.PAYMENTS}
    request_class: type[StrictSerializer] = ReasonSerializer
    serializer_class: Any = InvoiceSerializer

    def invoice(self) -> Invoice:
        found = Invoice.objects.select_related("connection", "customer").filter(
            merchant=self.merchant, public_id=self.kwargs["id"]
        )
        if (invoice := found.first()) is None:
            raise NotFound("There is no such invoice among yours.")
        return invoice

    def body(self):
        body = self.request_class(data=self.request.data)
        body.is_valid(raise_exception=True)
        return body.validated_data

    def stamp(self) -> Stamp:
        return Stamp(actor=self.caller.actor, cause="api", now=clock.now())

    def told(self) -> Response:
        return Response(InvoiceSerializer(self.invoice()).data)


class InvoiceRetryView(_Action):
    """Book a retry, at once or for later, with the chosen or the best token; limits and charges in flight are kept."""

    request_class = RetryNowSerializer

    @extend_schema(request=RetryNowSerializer, responses=InvoiceSerializer)
    def post(self, request: Request, id: str) -> Response:  # noqa: A002  (the name in the address)
        invoice, given, token_pk = self.invoice(), self.body(), None
        if given.get("token"):
            mine = Token.objects.filter(customer=invoice.customer, public_id=given["token"])
            token_pk = mine.values_list("pk", flat=True).first()
            if token_pk is None:
                raise NotFound("The customer has no such token.")
        retry_now(
            invoice_pk=invoice.pk,
            stamp=self.stamp(),
            reason=given["reason"],
            token_pk=token_pk,
            due_at=given.get("due_at"),
        )
        return self.told()


class InvoicePauseView(_Action):
    """Stop automatic retries until they are resumed."""

    @extend_schema(request=ReasonSerializer, responses=InvoiceSerializer)
    def post(self, request: Request, id: str) -> Response:  # noqa: A002
        case_pause(invoice_pk=self.invoice().pk, stamp=self.stamp(), reason=self.body()["reason"])
        return self.told()


class InvoiceResumeView(_Action):
    """Take a pause back."""

    @extend_schema(request=ReasonSerializer, responses=InvoiceSerializer)
    def post(self, request: Request, id: str) -> Response:  # noqa: A002
        case_resume(invoice_pk=self.invoice().pk, stamp=self.stamp(), reason=self.body()["reason"])
        return self.told()


class InvoiceCancelView(_Action):
    """Give the invoice up for good."""

    @extend_schema(request=ReasonSerializer, responses=InvoiceSerializer)
    def post(self, request: Request, id: str) -> Response:  # noqa: A002
        invoice_cancel(invoice_pk=self.invoice().pk, stamp=self.stamp(), reason=self.body()["reason"])
        return self.told()


class InvoiceWriteOffView(_Action):
    """Give the invoice up as a loss."""

    @extend_schema(request=ReasonSerializer, responses=InvoiceSerializer)
    def post(self, request: Request, id: str) -> Response:  # noqa: A002
        given = self.body()
        invoice_cancel(invoice_pk=self.invoice().pk, stamp=self.stamp(), reason=given["reason"], write_off=True)
        return self.told()


class InvoiceRefundView(_Action):
    """Give money back; above the merchant's limit a second person has to release it in the staff queue."""

    scopes = {"POST": Scope.REFUNDS}
    request_class = RefundRequestSerializer
    serializer_class = TransactionSerializer

    @extend_schema(request=RefundRequestSerializer, responses={201: TransactionSerializer})
    def post(self, request: Request, id: str) -> Response:  # noqa: A002
        invoice, given = self.invoice(), self.body()
        amount = given.get("amount")
        refund = refund_request(
            invoice_pk=invoice.pk,
            amount_minor=None if amount is None else minor_units(amount, invoice.currency),
            reason=given["reason"],
            stamp=self.stamp(),
            charge_id=given.get("transaction", ""),
        )
        shown = Transaction.objects.select_related("invoice", "refund_of", "duplicate_of").get(pk=refund.pk)
        return Response(TransactionSerializer(shown).data, status=201)
