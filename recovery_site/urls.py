"""Every address of the service."""

from django.contrib import admin
from django.urls import include, path

from notifications.inbound import mail_reports
from recovery_site import health, home, metrics

urlpatterns = [
    path("", home.root, name="home"),
    path("accounts/login/", home.LogIn.as_view(), name="login"),
    path("accounts/logout/", home.LogOut.as_view(), name="logout"),
    path("dashboard/", include("analytics.urls")),
    path("console/", include("recovery_site.console.urls")),
    path("webhooks/", include("webhooks.urls")),
    path("api/", include("recovery_site.api")),
    path("oauth/", include("accounts.oauth.urls")),
    path("pay/", include("notifications.hosted.urls")),
    path("mail/reports/<uuid:endpoint>/", mail_reports, name="mail-reports"),
    path("health/live", health.live, name="health-live"),
    path("health/ready", health.ready, name="health-ready"),
    path("metrics", metrics.metrics, name="metrics"),
    path("admin/", admin.site.urls),
]
