"""Addresses of the dashboards' figures, under /api/v1/."""

from django.urls import path

from analytics.api import views

urlpatterns = [
    path("analytics/overview", views.OverviewView.as_view(), name="analytics-overview"),
    path("analytics/failures", views.FailuresView.as_view(), name="analytics-failures"),
    path("analytics/retries", views.RetriesView.as_view(), name="analytics-retries"),
    path("analytics/policies", views.PoliciesView.as_view(), name="analytics-policies"),
    path("analytics/board", views.BoardView.as_view(), name="analytics-board"),
]
