"""Addresses of OAuth, included under /oauth/."""

from django.urls import path

from accounts.oauth import views

urlpatterns = [
    path("authorize", views.Authorize.as_view(), name="oauth-authorize"),
    path("token", views.Token.as_view(), name="oauth-token"),
    path("revoke", views.Revoke.as_view(), name="oauth-revoke"),
]
