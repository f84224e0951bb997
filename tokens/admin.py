"""Cards and tokens in the admin: to look at; they change by the provider's word and by declines."""

from django.contrib import admin

from accounts.admin.base import MemberFilter, TenantAdmin, badge, column
from tokens.models import Card, ImportedMark, RetryLimit, Token

_ACCOUNT = (("merchant", MemberFilter), ("connection", MemberFilter))


@admin.register(Card)
class CardAdmin(TenantAdmin):
    ordering = ("-pk",)
    list_display = ("__str__", "kind", "funding", "country", "connection", "merchant", "stopped_at", "wait_until")
    list_filter = ("network", "kind", ("stopped_at", admin.EmptyFieldListFilter), *_ACCOUNT)
    list_select_related = ("connection", "merchant")
    search_exact = ("public_id",)
    search_in_connections = ("fingerprint",)


@admin.register(Token)
class TokenAdmin(TenantAdmin):
    ordering = ("-pk",)
    list_display = ("__str__", "state", "customer", "is_default", "decline_code", "last_success_at", "merchant")
    list_filter = ("status", *_ACCOUNT)
    list_select_related = ("card", "customer", "merchant")
    search_exact = ("public_id",)
    search_in_connections = ("provider_token",)

    @column("Status")
    def state(self, token):
        return badge("token", token.status)


@admin.register(ImportedMark)
class ImportedMarkAdmin(TenantAdmin):
    ordering = ("-pk",)
    list_display = ("card", "token", "at", "count", "source", "merchant")
    list_filter = (("merchant", MemberFilter),)
    list_select_related = ("card", "token__card", "merchant")


@admin.register(RetryLimit)
class RetryLimitAdmin(TenantAdmin):
    """To look at; a limit is set through its service, which refuses one that is looser than the network's."""

    list_display = ("merchant", "network", "name", "limit", "changed_by", "changed_at")
    list_filter = ("network", ("merchant", MemberFilter))
    list_select_related = ("merchant",)
