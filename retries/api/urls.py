"""Addresses of invoices, payments and everything about retrying them, under /api/v1/."""

from django.urls import path

from retries.api import actions, invoices, payments, resources

urlpatterns = [
    path("invoices", invoices.InvoiceListView.as_view(), name="invoices"),
    path("invoices/<public_id:id>", invoices.InvoiceView.as_view(), name="invoice"),
    path("invoices/<public_id:id>/retry", actions.InvoiceRetryView.as_view(), name="invoice-retry"),
    path("invoices/<public_id:id>/pause", actions.InvoicePauseView.as_view(), name="invoice-pause"),
    path("invoices/<public_id:id>/resume", actions.InvoiceResumeView.as_view(), name="invoice-resume"),
    path("invoices/<public_id:id>/cancel", actions.InvoiceCancelView.as_view(), name="invoice-cancel"),
    path("invoices/<public_id:id>/write-off", actions.InvoiceWriteOffView.as_view(), name="invoice-write-off"),
    path("invoices/<public_id:id>/refunds", actions.InvoiceRefundView.as_view(), name="invoice-refund"),
    path("refunds/<public_id:id>/approve", actions.RefundApproveView.as_view(), name="refund-approve"),
    path("refunds/<public_id:id>/refuse", actions.RefundRefuseView.as_view(), name="refund-refuse"),
    path("payments/attempts", payments.AttemptReportView.as_view(), name="attempt-report"),
    path("payments/process", payments.PaymentProcessView.as_view(), name="payment-process"),
    path("payments/retry/stats", payments.RetryStatsView.as_view(), name="payment-retry-stats"),
    path("payments/retry/user/<reference:customer_id>", payments.UserRetriesView.as_view(), name="user-retries"),
    path("payments/retry/<reference:transaction_id>", payments.PaymentRetryView.as_view(), name="payment-retry"),
    path("payments/<reference:transaction_id>", payments.PaymentView.as_view(), name="payment"),
    path("cases", resources.CaseListView.as_view(), name="cases"),
    path("cases/<public_id:id>", resources.CaseView.as_view(), name="case"),
    path("retry-jobs", resources.JobListView.as_view(), name="retry-jobs"),
    path("retry-jobs/<public_id:id>", resources.JobView.as_view(), name="retry-job"),
    path("policies", resources.PolicyListView.as_view(), name="policies"),
    path("policies/<int:version>", resources.PolicyView.as_view(), name="policy"),
    path("segments", resources.SegmentsView.as_view(), name="segments"),
    path("decline-overrides", resources.OverrideListView.as_view(), name="decline-overrides"),
]
