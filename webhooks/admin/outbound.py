"""Outbound endpoints and what was sent to them. Secrets are shown once; every write goes through the services."""

import json

from django import forms
from django.contrib import admin, messages
from django.template.response import TemplateResponse

from accounts.admin.base import MemberFilter, TenantAdmin, badge, clipped, column, pretty, reason_of, report
from accounts.selectors import merchants_with_role
from accounts.states import Role
from invoices.services.ledger import Stamp
from recovery_site.common import clock
from recovery_site.common.errors import RecoveryError
from recovery_site.common.targets import url_check
from webhooks.models import Delivery, DeliveryTry, OutboundEndpoint
from webhooks.outbound.catalogue import EventType
from webhooks.outbound.deliveries import deliveries_replay_all, delivery_replay
from webhooks.outbound.endpoints import (
    outbound_endpoint_create,
    outbound_endpoint_rotate,
    outbound_endpoint_switch,
    outbound_endpoint_update,
)
from webhooks.outbound.selectors import deliveries
from webhooks.states import DeliveryStatus


class EndpointForm(forms.ModelForm):
    url = forms.CharField(
        max_length=500,
        help_text="An https address that accepts POST.",
        widget=forms.TextInput(attrs={"class": "vLargeTextField"}),
    )
    event_types = forms.MultipleChoiceField(
        required=False,
        choices=[(kind.value, f"{kind.value}: {kind.label}") for kind in EventType],
        widget=forms.CheckboxSelectMultiple,
        help_text="None chosen: every type, also those that come later.",
    )

    class Meta:
        model = OutboundEndpoint
        fields = ("merchant", "url", "description", "event_types")

    def clean_url(self):
        try:
            url_check(self.cleaned_data["url"])
        except RecoveryError as error:
            raise forms.ValidationError(error.message) from error
        return self.cleaned_data["url"]


@admin.register(OutboundEndpoint)
class OutboundEndpointAdmin(TenantAdmin):
    """Managers say where events go."""

    form = EndpointForm
    change_role = Role.MANAGER
    ordering = ("-pk",)
    list_display = ("url", "hears", "enabled", "failures", "failing_since", "merchant")
    list_filter = ("enabled", ("merchant", MemberFilter))
    list_select_related = ("merchant",)
    search_exact = ("public_id", "url")
    actions = ("switch_on", "switch_off", "new_secret", "replay_dead")
    _known = ("public_id", "enabled", "disabled_at", "disabled_reason", "failures", "failing_since", "created_at")

    @column("Hears of")
    def hears(self, endpoint):
        return ", ".join(endpoint.event_types) or "everything"

    def has_add_permission(self, request):
        return self.has_manage_permission(request)

    def get_fields(self, request, obj=None):
        return EndpointForm.Meta.fields + (self._known if obj else ())

    def get_readonly_fields(self, request, obj=None):
        return ("merchant", *self._known) if obj else ()

    def formfield_for_foreignkey(self, db_field, request, **kwargs):
        kwargs["queryset"] = merchants_with_role(request.user, Role.MANAGER)
        return super().formfield_for_foreignkey(db_field, request, **kwargs)

    def save_model(self, request, obj, form, change):
        wanted = {name: form.cleaned_data[name] for name in ("url", "description", "event_types")}
        if change:
            outbound_endpoint_update(endpoint_pk=obj.pk, **wanted)
            return
        new = outbound_endpoint_create(merchant=obj.merchant, **wanted)
        obj.pk, obj.public_id, obj.new_secret = new.endpoint.pk, new.endpoint.public_id, new

    def response_add(self, request, obj, post_url_continue=None):
        return self._shown(request, [obj.new_secret])

    def _shown(self, request, secrets):
        context = {
            **self.admin_site.each_context(request),
            "title": "Signing secret",
            "opts": self.model._meta,
            "secrets": secrets,
        }
        response = TemplateResponse(request, "admin/webhook_secret.html", context)
        response["Cache-Control"] = "no-store"
        return response

    @admin.action(description="Switch on …", permissions=["manage"])
    def switch_on(self, request, queryset):
        return self._switch(request, queryset, enabled=True)

    @admin.action(description="Switch off …", permissions=["manage"])
    def switch_off(self, request, queryset):
        return self._switch(request, queryset, enabled=False)

    def _switch(self, request, queryset, *, enabled):
        word = "on" if enabled else "off"
        waits = "What waited goes out now." if enabled else "What waits is kept; new events are not."
        rows = self._asked(request, queryset, f"switch_{word}", f"Switch endpoints {word}", waits, danger=not enabled)
        if not isinstance(rows, list):
            return rows
        for endpoint in rows:
            outbound_endpoint_switch(
                endpoint_pk=endpoint.pk, enabled=enabled, reason=reason_of(request), now=clock.now()
            )
            self.log_change(request, endpoint, f"Switched {word}: {reason_of(request)}")
        report(self, request, len(rows), [])
        return None

    @admin.action(description="Replace the secret …", permissions=["manage"])
    def new_secret(self, request, queryset):
        both = "A new secret is shown once; for 24 hours both sign."
        rows = self._asked(request, queryset, "new_secret", "Replace signing secrets", both)
        if not isinstance(rows, list):
            return rows
        secrets = []
        for endpoint in rows:
            secrets.append(outbound_endpoint_rotate(endpoint_pk=endpoint.pk, now=clock.now()))
            self.log_change(request, endpoint, f"Secret replaced: {reason_of(request)}")
        return self._shown(request, secrets)

    @admin.action(description="Send everything again that was given up …", permissions=["manage"])
    def replay_dead(self, request, queryset):
        again = "Every delivery that was given up is sent again, with the same id and body."
        rows = self._asked(request, queryset, "replay_dead", "Send given-up deliveries again", again)
        if not isinstance(rows, list):
            return rows
        stamp = _stamp(request)
        count = 0
        for endpoint in rows:
            dead = deliveries(endpoint=endpoint, statuses=[DeliveryStatus.DEAD])
            count += len(deliveries_replay_all(deliveries=dead, stamp=stamp))
            self.log_change(request, endpoint, f"Given-up deliveries replayed: {reason_of(request)}")
        self.message_user(request, f"{count} deliveries are on their way again.", messages.SUCCESS)
        return None

    def _asked(self, request, queryset, action, title, what, *, danger=False):
        """The rows once the person has confirmed, until then the response that asks (None: nothing may be done)."""
        rows = self.few(request, queryset, Role.MANAGER)
        if rows is None:
            return None
        page = self.confirm(
            request, rows, action=action, title=title, button=title, describe=lambda row: what, danger=danger
        )
        return rows if page is None else page


class TryInline(admin.TabularInline):
    """The delivery log."""

    model = DeliveryTry
    fields = readonly_fields = ("at", "status_code", "duration_ms", "error", "answer")
    ordering = ("pk",)
    extra = 0
    can_delete = False
    verbose_name_plural = "Tries"

    def has_add_permission(self, request, obj=None):
        return False

    def has_change_permission(self, request, obj=None):
        return False

    def has_view_permission(self, request, obj=None):
        return True


@admin.register(Delivery)
class DeliveryAdmin(TenantAdmin):
    ordering = ("-pk",)
    list_display = (
        "event_type",
        "state",
        "created_at",
        "error",
        "last_status",
        "tries",
        "endpoint",
        "message_id",
        "merchant",
    )
    list_filter = ("status", ("merchant", MemberFilter), ("endpoint", MemberFilter))
    list_select_related = ("endpoint", "merchant")
    exclude = ("body",)
    readonly_fields = ("body_shown",)
    search_exact = ("public_id", "message_id")
    actions = ("replay",)
    inlines = (TryInline,)

    @column("Status")
    def state(self, delivery):
        return badge("delivery", delivery.status)

    @column("Last error")
    def error(self, delivery):
        return clipped(delivery.last_error)

    @column("Body")
    def body_shown(self, delivery):
        return pretty(json.loads(delivery.body))

    @admin.action(description="Send again …", permissions=["act"])
    def replay(self, request, queryset):
        rows = self.few(request, queryset, Role.SUPPORT)
        if rows is None:
            return None
        page = self.confirm(
            request,
            rows,
            action="replay",
            title="Send deliveries again",
            button="Send them again",
            describe=lambda delivery: (
                "Is still on its way; nothing changes."
                if delivery.status == DeliveryStatus.PENDING
                else "Goes out again with the same id and body; its receiver knows it by the id."
            ),
        )
        if page is not None:
            return page
        done, refused = 0, []
        for delivery in rows:
            try:
                delivery_replay(delivery_pk=delivery.pk, stamp=_stamp(request))
            except RecoveryError as error:
                refused.append(f"{delivery}: {error.message}")
            else:
                self.log_change(request, delivery, f"Sent again: {reason_of(request)}")
                done += 1
        report(self, request, done, refused)
        return None


@admin.register(DeliveryTry)
class DeliveryTryAdmin(TenantAdmin):
    ordering = ("-pk",)
    list_display = ("delivery", "at", "status_code", "duration_ms", "error", "merchant")
    list_filter = (("merchant", MemberFilter),)
    list_select_related = ("delivery", "merchant")


def _stamp(request):
    return Stamp(actor=f"user:{request.user.pk}", cause=f"staff: {reason_of(request)}", now=clock.now())
