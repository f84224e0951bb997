"""Addresses of the dashboards, included under /dashboard/."""

from django.urls import path

from analytics import views

urlpatterns = [
    path("", views.dashboard, name="dashboard"),
    path("live/", views.live, name="dashboard-live"),
    path("invoices/", views.invoices, name="dashboard-invoices"),
    path("invoices/export.csv", views.invoices_export, name="dashboard-invoices-export"),
    path("alerts/", views.alerts, name="dashboard-alerts"),
    path("alerts/seen/", views.alerts_seen, name="dashboard-alerts-seen"),
]
