"""What people and programs do to an invoice: retry, pause, resume, cancel, write off, refund."""

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.api.fields import AmountField, StrictSerializer, minor_units
from accounts.api.problems import PersonRequired
from accounts.api.views import ApiView, RowView
from accounts.scopes import Scope
from invoices.api.serializers import InvoiceSerializer, TransactionSerializer
from invoices.api.stamp import api_stamp
from invoices.models import Invoice, Transaction
from invoices.services.ledger import Stamp
from invoices.states import TransactionKind
from recovery_site.common.errors import NotFound
from recovery_site.common.scrubbing import scrub_text
from retries.refunding import refund_approve, refund_refuse, refund_request
from retries.services.manual import case_pause, case_resume, invoice_cancel, retry_now
from tokens.models import Token


class ReasonSerializer(StrictSerializer):
    reason = serializers.CharField(max_length=300, help_text="Kept in the invoice's history, without card numbers.")

    def validate_reason(self, value: str) -> str:
        return scrub_text(value)[:300]


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

    def given(self) -> dict[str, Any]:
        return self.body(self.request_class)

    def stamp(self) -> Stamp:
        return api_stamp(self.caller)

    def told(self) -> Response:
        return Response(InvoiceSerializer(self.invoice()).data)


class InvoiceRetryView(_Action):
    """Book a retry, at once or for later, with the chosen or the best token; limits and charges in flight are kept."""

    request_class = RetryNowSerializer

    @extend_schema(request=RetryNowSerializer, responses=InvoiceSerializer)
    def post(self, request: Request, id: str) -> Response:  # noqa: A002  (the name in the address)
        invoice, given, token_pk = self.invoice(), self.given(), None
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
        case_pause(invoice_pk=self.invoice().pk, stamp=self.stamp(), reason=self.given()["reason"])
        return self.told()


class InvoiceResumeView(_Action):
    """Take a pause back; a manual retry that it stopped is booked again."""

    @extend_schema(request=ReasonSerializer, responses=InvoiceSerializer)
    def post(self, request: Request, id: str) -> Response:  # noqa: A002
        case_resume(invoice_pk=self.invoice().pk, stamp=self.stamp(), reason=self.given()["reason"])
        return self.told()


class InvoiceCancelView(_Action):
    """Give the invoice up for good."""

    @extend_schema(request=ReasonSerializer, responses=InvoiceSerializer)
    def post(self, request: Request, id: str) -> Response:  # noqa: A002
        invoice_cancel(invoice_pk=self.invoice().pk, stamp=self.stamp(), reason=self.given()["reason"])
        return self.told()


class InvoiceWriteOffView(_Action):
    """Give the invoice up as a loss."""

    @extend_schema(request=ReasonSerializer, responses=InvoiceSerializer)
    def post(self, request: Request, id: str) -> Response:  # noqa: A002
        given = self.given()
        invoice_cancel(invoice_pk=self.invoice().pk, stamp=self.stamp(), reason=given["reason"], write_off=True)
        return self.told()


def _shown(refund_pk: int) -> dict[str, Any]:
    rows = Transaction.objects.select_related("invoice", "refund_of", "duplicate_of")
    return TransactionSerializer(rows.get(pk=refund_pk)).data


class InvoiceRefundView(_Action):
    """Give money back; above the merchant's limit a second person has to release it in the staff queue."""

    scopes = {"POST": Scope.REFUNDS}
    request_class = RefundRequestSerializer
    serializer_class = TransactionSerializer

    @extend_schema(request=RefundRequestSerializer, responses={201: TransactionSerializer})
    def post(self, request: Request, id: str) -> Response:  # noqa: A002
        invoice, given = self.invoice(), self.given()
        amount = given.get("amount")
        refund = refund_request(
            invoice_pk=invoice.pk,
            amount_minor=None if amount is None else minor_units(amount, invoice.currency),
            reason=given["reason"],
            stamp=self.stamp(),
            charge_id=given.get("transaction", ""),
        )
        return Response(_shown(refund.pk), status=201)


class _RefundAnswer(RowView):
    """Above the merchant's limit only a person can answer, never the one who is behind the asking."""

    what = "refund"
    scopes = {"POST": Scope.REFUNDS}
    serializer_class = TransactionSerializer

    def rows(self):
        return Transaction.objects.filter(kind=TransactionKind.REFUND)

    def answered(self, answer: Any) -> Response:
        refund = self.row()
        if self.caller.user is None:
            raise PersonRequired("A second person has to answer: use a token that a person has granted.")
        note = self.body(ReasonSerializer)["reason"]
        answer(refund_pk=refund.pk, stamp=api_stamp(self.caller), note=note)
        return Response(_shown(refund.pk))


class RefundApproveView(_RefundAnswer):
    """Release a refund that waits for a second person; it is sent then."""

    @extend_schema(request=ReasonSerializer, responses=TransactionSerializer)
    def post(self, request: Request, id: str) -> Response:  # noqa: A002
        return self.answered(refund_approve)


class RefundRefuseView(_RefundAnswer):
    """Refuse a refund that waits for a second person; nothing is sent."""

    @extend_schema(request=ReasonSerializer, responses=TransactionSerializer)
    def post(self, request: Request, id: str) -> Response:  # noqa: A002
        return self.answered(refund_refuse)
