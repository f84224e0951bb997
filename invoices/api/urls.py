"""Addresses of the ledger, under /api/v1/."""

from django.urls import path

from invoices.api import connections, views

urlpatterns = [
    path("customers", views.CustomerListView.as_view(), name="customers"),
    path("customers/<public_id:id>", views.CustomerView.as_view(), name="customer"),
    path("connections", connections.ConnectionListView.as_view(), name="connections"),
    path("connections/<public_id:id>", connections.ConnectionView.as_view(), name="connection"),
    path("connections/<public_id:id>/check", connections.ConnectionCheckView.as_view(), name="connection-check"),
    path(
        "connections/<public_id:id>/credentials",
        connections.ConnectionCredentialsView.as_view(),
        name="connection-credentials",
    ),
    path("transactions", views.TransactionListView.as_view(), name="transactions"),
    path("transactions/<public_id:id>", views.TransactionView.as_view(), name="transaction"),
    path("refunds", views.RefundListView.as_view(), name="refunds"),
    path("refunds/<public_id:id>", views.RefundView.as_view(), name="refund"),
    path("attempts", views.AttemptListView.as_view(), name="attempts"),
    path("attempts/<public_id:id>", views.AttemptView.as_view(), name="attempt"),
    path("disputes", views.DisputeListView.as_view(), name="disputes"),
    path("disputes/<public_id:id>", views.DisputeView.as_view(), name="dispute"),
    path("events", views.EventListView.as_view(), name="events"),
    path("events/<row:id>", views.EventView.as_view(), name="event"),
]
