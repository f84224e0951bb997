"""Addresses of invoices, payments and everything about retrying them, under /api/v1/."""

from django.urls import path

from retries.api import invoices, payments

urlpatterns = [
    path("invoices", invoices.InvoiceListView.as_view(), name="invoices"),
    path("invoices/<public_id:id>", invoices.InvoiceView.as_view(), name="invoice"),
    path("payments/retry/<reference:transaction_id>", payments.PaymentRetryView.as_view(), name="payment-retry"),
]
