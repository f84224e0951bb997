"""Addresses of cards and tokens, under /api/v1/."""

from django.urls import path

from tokens.api import views

urlpatterns = [
    path("cards", views.CardListView.as_view(), name="cards"),
    path("cards/<public_id:id>", views.CardView.as_view(), name="card"),
    path("cards/<public_id:id>/budget", views.CardBudgetView.as_view(), name="card-budget"),
    path("tokens", views.TokenListView.as_view(), name="tokens"),
    path("tokens/<public_id:id>", views.TokenView.as_view(), name="token"),
]
