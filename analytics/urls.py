"""Addresses of the dashboards, included under /dashboard/."""

from django.urls import path

from analytics import incident_views, message_views, views

urlpatterns = [
    path("", views.dashboard, name="dashboard"),
    path("live/", views.live, name="dashboard-live"),
    path("board/", views.board, name="dashboard-board"),
    path("reports/<slug:name>/", views.report, name="dashboard-report"),
    path("reports/<slug:name>/<slug:key>.csv", views.report_export, name="dashboard-report-export"),
    path("invoices/", views.invoices, name="dashboard-invoices"),
    path("invoices/export.csv", views.invoices_export, name="dashboard-invoices-export"),
    path("alerts/", views.alerts, name="dashboard-alerts"),
    path("incidents/", incident_views.incidents, name="dashboard-incidents"),
    path("incidents/<str:public_id>/", incident_views.incident, name="dashboard-incident"),
    path("messages/", message_views.messages, name="dashboard-messages"),
    path("messages/<str:public_id>/", message_views.message, name="dashboard-message"),
    path("messages/<str:public_id>/html/", message_views.message_html, name="dashboard-message-html"),
    path("alerts/seen/", views.alerts_seen, name="dashboard-alerts-seen"),
]
