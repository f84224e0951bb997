"""Alerts and where they go. Alerts are acknowledged on the alerts page."""

from django import forms
from django.contrib import admin

from accounts.admin.base import MemberFilter, TenantAdmin, column
from accounts.selectors import merchants_with_role
from accounts.states import Role
from notifications.models import Alert, AlertDelivery, AlertRoute
from notifications.services.alert_delivery import alert_route_set, alert_target
from notifications.states import AlertChannel
from recovery_site.common.errors import InvalidInput


@admin.register(Alert)
class AlertAdmin(TenantAdmin):
    ordering = ("-pk",)
    list_display = ("text", "kind", "invoice", "merchant", "raised_at", "repeats", "acknowledged_by", "acknowledged_at")
    list_filter = (("acknowledged_at", admin.EmptyFieldListFilter), ("merchant", MemberFilter))
    list_select_related = ("invoice", "merchant")
    search_exact = ("invoice__public_id",)


class AlertRouteForm(forms.ModelForm):
    target = forms.CharField(
        max_length=500,
        required=False,
        help_text="A mail address, or the address of a Slack-compatible webhook. It is stored encrypted and not shown"
        " again; leave it empty to keep the one there is.",
    )
    kinds = forms.CharField(
        required=False,
        help_text="Kinds of alerts, separated by commas, such as exhausted, paid_twice, fraud. Empty means all.",
    )

    class Meta:
        model = AlertRoute
        fields = ("merchant", "name", "channel", "target", "kinds", "enabled")

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.initial["kinds"] = ", ".join(self.instance.kinds)
        self.initial["target"] = self.instance.address

    def clean_kinds(self):
        return [kind for kind in self.cleaned_data["kinds"].replace(",", " ").split() if kind]

    def clean(self):
        cleaned = super().clean() or self.cleaned_data
        target, channel = cleaned.get("target", ""), cleaned.get("channel")
        if channel and (target or self.instance.channel != channel):
            try:
                alert_target(AlertChannel(channel), target)
            except InvalidInput as error:
                self.add_error("target", error.message)
        return cleaned


@admin.register(AlertRoute)
class AlertRouteAdmin(TenantAdmin):
    """Managers say who hears of what."""

    form = AlertRouteForm
    change_role = Role.MANAGER
    list_display = ("name", "merchant", "channel", "address", "hears", "enabled")
    list_filter = ("channel", ("merchant", MemberFilter))
    list_select_related = ("merchant",)

    @column("Hears of")
    def hears(self, route):
        return ", ".join(route.kinds) or "everything"

    def has_add_permission(self, request):
        return merchants_with_role(request.user, Role.MANAGER).exists()

    def get_readonly_fields(self, request, obj=None):
        return ("merchant", "name") if obj else ()

    def formfield_for_foreignkey(self, db_field, request, **kwargs):
        if db_field.name == "merchant":
            kwargs["queryset"] = merchants_with_role(request.user, Role.MANAGER)
        return super().formfield_for_foreignkey(db_field, request, **kwargs)

    def save_model(self, request, obj, form, change):
        obj.pk = alert_route_set(
            merchant=obj.merchant,
            name=obj.name,
            channel=AlertChannel(obj.channel),
            target=form.cleaned_data["target"],
            kinds=obj.kinds,
            enabled=obj.enabled,
            actor=f"user:{request.user.pk}",
        ).pk


@admin.register(AlertDelivery)
class AlertDeliveryAdmin(TenantAdmin):
    ordering = ("-pk",)
    list_display = ("alert", "route", "merchant", "status", "tries", "due_at", "finished_at", "last_error")
    list_filter = ("status", ("merchant", MemberFilter))
    list_select_related = ("alert", "route", "merchant")
