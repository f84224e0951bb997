"""Bulk runs: how far they are, what became of each invoice, and a way to stop."""

from django.contrib import admin, messages
from django.shortcuts import redirect

from accounts.admin.base import MemberFilter, TenantAdmin
from accounts.selectors import may
from accounts.states import Role
from invoices.services.ledger import Stamp
from recovery_site.common import clock
from recovery_site.common.errors import RecoveryError
from retries.models import BulkItem, BulkRun
from retries.services.bulk import bulk_progress, bulk_stop
from retries.states import BulkStatus

_TENANT = (("merchant", MemberFilter),)
# The page of a run names the newest of its items; the list has them all.
_SHOWN = 200


@admin.register(BulkRun)
class BulkRunAdmin(TenantAdmin):
    """Started from the list of invoices; this page shows a run and can stop it."""

    ordering = ("-pk",)
    list_display = ("public_id", "action", "merchant", "total", "reason", "actor", "created_at", "finished_at")
    list_filter = ("action", *_TENANT)
    list_select_related = ("merchant",)
    change_form_template = "admin/bulk_run.html"

    def change_view(self, request, object_id, form_url="", extra_context=None):
        """Progress; a POST stops what has not been worked yet."""
        run = self.get_object(request, object_id)
        if run is None:
            return super().change_view(request, object_id, form_url, extra_context)
        acting = may(request.user, run.merchant, Role.SUPPORT)
        if request.method == "POST" and acting:
            try:
                bulk_stop(run_pk=run.pk, stamp=Stamp(f"user:{request.user.pk}", "staff: stopped", clock.now()))
            except RecoveryError as error:
                self.message_user(request, error.message, messages.WARNING)
            else:
                self.message_user(request, "Stopped: what is done stays done.", messages.SUCCESS)
            return redirect("admin:retries_bulkrun_change", run.pk)
        progress = bulk_progress(run)
        items = BulkItem.objects.filter(run=run).exclude(status=BulkStatus.WAITING).select_related("invoice")
        extra = {
            **(extra_context or {}),
            "title": "Bulk run",
            "subtitle": None,
            "run": run,
            "progress": progress,
            "worked": run.total - progress["waiting"],
            "items": items.order_by("-worked_at", "-pk")[:_SHOWN],
            "running": run.finished_at is None,
            "may_stop": acting and run.finished_at is None,
        }
        return super().change_view(request, object_id, form_url, extra)


@admin.register(BulkItem)
class BulkItemAdmin(TenantAdmin):
    ordering = ("-pk",)
    list_display = ("invoice", "run", "merchant", "status", "message", "worked_at")
    list_filter = ("status", *_TENANT)
    list_select_related = ("invoice", "run", "merchant")
