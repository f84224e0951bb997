"""`/payments/...`: hand a failed payment over, ask where it stands, take it back."""

from typing import Any

from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.api.fields import minor_units
from accounts.api.views import ApiView
from accounts.scopes import Scope
from invoices.services.ledger import Stamp
from invoices.services.parties import connection_require
from recovery_site.common import clock
from retries.api.serializers import RetryRequestSerializer, RetryStatusSerializer
from retries.payments import Payment, RetryStatus, payment_require, retry_status
from retries.services.cancel import retry_cancel
from retries.services.reports import FailureReport, failure_report


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
        body = RetryRequestSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        given = body.validated_data
        metadata = given.get("metadata", {})
        amount = metadata.get("amount")
        connection = None
        if given.get("connection"):
            connection = connection_require(merchant=self.merchant, public_id=given["connection"])
        now = clock.now()
        currency = metadata.get("currency", "")
        report = FailureReport(
            name=transaction_id,
            occurred_at=min(given.get("occurred_at") or now, now),
            user_id=metadata.get("user_id", ""),
            amount_minor=None if amount is None else minor_units(amount, currency or "USD", "metadata.amount"),
            currency=currency,
            payment_intent_id=metadata.get("payment_intent_id", ""),
            payment_method_id=metadata.get("payment_method_id", ""),
            description=metadata.get("description", ""),
            charge_id=given.get("charge_id", ""),
            **given["error"],
        )
        payment, created = failure_report(merchant=self.merchant, report=report, connection=connection, now=now)
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
        stamp = Stamp(actor=self.caller.actor, cause="api", now=clock.now())
        retry_cancel(invoice=payment.invoice, stamp=stamp, reason="canceled through the API")
        return self._told(payment_require(merchant=self.merchant, name=transaction_id))
