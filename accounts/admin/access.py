"""Who used the API and the pages, and the answers kept for programs: to look at, never to edit."""

from django.contrib import admin

from accounts.admin.base import MemberFilter, TenantAdmin, values_filter
from accounts.models import ApiAccess, IdempotencyRecord, RateWindow


@admin.register(ApiAccess)
class ApiAccessAdmin(TenantAdmin):
    """Who read or changed what."""

    ordering = ("-pk",)
    list_display = ("at", "actor", "method", "route", "subject", "status_code", "merchant")
    list_filter = (values_filter("method", ("GET", "POST", "PUT", "PATCH", "DELETE")), ("merchant", MemberFilter))
    list_select_related = ("merchant",)
    search_exact = ("subject", "actor", "request_id")


@admin.register(IdempotencyRecord)
class IdempotencyRecordAdmin(TenantAdmin):
    """Kept answers, without what they say."""

    ordering = ("-pk",)
    list_display = ("key", "status_code", "created_at", "merchant")
    list_filter = (("merchant", MemberFilter),)
    list_select_related = ("merchant",)
    exclude = ("answer_encrypted",)
    search_exact = ("key",)


@admin.register(RateWindow)
class RateWindowAdmin(admin.ModelAdmin):
    """Calls counted while Redis was away; superusers only."""

    list_display = ("key", "started_at", "count")

    def has_add_permission(self, request):
        return False

    def has_change_permission(self, request, obj=None):
        return False

    def has_delete_permission(self, request, obj=None):
        return False
