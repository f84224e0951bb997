"""Addresses of the payer's pages, included under /pay/."""

from django.urls import path

from notifications.hosted import views

app_name = "hosted"
urlpatterns = [
    path("stop/<str:token>/", views.unsubscribe, name="unsubscribe"),
    path("<str:token>/", views.page, name="page"),
    path("<str:token>/pay/", views.pay, name="pay"),
    path("<str:token>/method/", views.method, name="method"),
    path("<str:token>/confirm/", views.confirm, name="confirm"),
]
