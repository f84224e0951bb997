"""Addresses of the staff pages, included under /console/."""

from django.urls import path, re_path

from recovery_site.console import connection_views as accounts
from recovery_site.console import views

app_name = "console"
urlpatterns = [
    path("work/", views.work, name="work"),
    path("queue/", views.queue, name="queue"),
    path("queue/<slug:public_id>/take/", views.queue_take, name="queue-take"),
    path("queue/<slug:public_id>/answer/", views.queue_answer, name="queue-answer"),
    path("connections/", accounts.connections, name="connections"),
    path("connections/new/<slug:provider>/", accounts.connection_new, name="connection-new"),
    path("connections/<slug:public_id>/", accounts.connection_page, name="connection"),
    path("connections/<slug:public_id>/live/", accounts.connection_live, name="connection-live"),
    path("connections/<slug:public_id>/check/", accounts.connection_test, name="connection-check"),
    path(
        "connections/<slug:public_id>/credentials/",
        accounts.connection_credentials,
        name="connection-credentials",
    ),
    path("connections/<slug:public_id>/webhooks/", accounts.connection_webhooks, name="connection-webhooks"),
    path("invoices/<slug:public_id>/", views.invoice_page, name="invoice"),
    path("invoices/<slug:public_id>/live/", views.invoice_live, name="invoice-live"),
    path("invoices/<slug:public_id>/note/", views.invoice_note, name="invoice-note"),
    path("invoices/<slug:public_id>/assign/", views.invoice_assignment, name="invoice-assign"),
    re_path(
        r"^invoices/(?P<public_id>[-\w]+)/(?P<action>retry|pause|resume|refund|cancel|write_off)/$",
        views.invoice_act,
        name="invoice-act",
    ),
]
