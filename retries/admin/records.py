"""Cases, jobs, gates and bulk runs in the admin: to look at; staff act on the case page."""

from django.contrib import admin

from accounts.admin.base import MemberFilter, TenantAdmin, badge, category_badge, column, money, pretty
from invoices.admin import CategoryFilter
from retries.models import (
    Beat,
    Case,
    Outage,
    ProviderGate,
    RetryJob,
)

_TENANT = (("merchant", MemberFilter),)
_ACCOUNT = (("merchant", MemberFilter), ("connection", MemberFilter))


@admin.register(Case)
class CaseAdmin(TenantAdmin):
    ordering = ("-pk",)
    list_display = (
        "public_id",
        "invoice",
        "merchant",
        "state",
        "step",
        "next_step_at",
        "category_shown",
        "amount",
        "segment",
        "opened_at",
    )
    list_filter = ("status", "next_step", CategoryFilter, *_ACCOUNT)
    list_select_related = ("invoice", "merchant")
    exclude = ("failure",)
    readonly_fields = ("failure_shown",)
    search_exact = ("public_id", "invoice__public_id")

    @column("Status")
    def state(self, case):
        return badge("case", case.status)

    @column("Next step")
    def step(self, case):
        return badge("step", case.next_step)

    @column("Reason")
    def category_shown(self, case):
        return category_badge(case.category)

    @column("Amount")
    def amount(self, case):
        return money(case.amount_minor, case.currency)

    @column("Failure")
    def failure_shown(self, case):
        return pretty(case.failure)


@admin.register(RetryJob)
class RetryJobAdmin(TenantAdmin):
    ordering = ("-pk",)
    list_display = ("public_id", "invoice", "merchant", "state", "due_at", "band", "trigger", "why", "last_error")
    list_filter = ("status", "trigger", "kind", *_ACCOUNT)
    list_select_related = ("invoice", "merchant")
    exclude = ("decision", "claim_token")
    readonly_fields = ("decision_shown",)
    search_exact = ("public_id", "invoice__public_id")

    @column("Status")
    def state(self, job):
        return badge("job", job.status)

    @column("Decision")
    def decision_shown(self, job):
        return pretty(job.decision)


@admin.register(ProviderGate)
class ProviderGateAdmin(TenantAdmin):
    """Whether providers may be called now; the engine opens and shuts them by itself."""

    list_display = ("connection", "merchant", "asked_until", "shut_until", "strain", "last_error")
    list_filter = _TENANT
    list_select_related = ("connection", "merchant")


@admin.register(Outage)
class OutageAdmin(TenantAdmin):
    ordering = ("-pk",)
    list_display = ("connection", "merchant", "began_at", "ended_at", "error")
    list_filter = _ACCOUNT
    list_select_related = ("connection", "merchant")


@admin.register(Beat)
class BeatAdmin(admin.ModelAdmin):
    """Workers' signs of life belong to no merchant: superusers only, to look at."""

    list_display = ("name", "at")

    def has_add_permission(self, request):
        return False

    def has_change_permission(self, request, obj=None):
        return False

    def has_delete_permission(self, request, obj=None):
        return False
