"""Staff alerts in the admin: to look at; they are acknowledged on the alerts page."""

from django.contrib import admin

from accounts.admin.base import MemberFilter, TenantAdmin
from notifications.models import Alert


@admin.register(Alert)
class AlertAdmin(TenantAdmin):
    ordering = ("-pk",)
    list_display = ("text", "kind", "invoice", "merchant", "raised_at", "acknowledged_by", "acknowledged_at")
    list_filter = (("acknowledged_at", admin.EmptyFieldListFilter), ("merchant", MemberFilter))
    list_select_related = ("invoice", "merchant")
    search_exact = ("invoice__public_id",)
