"""Merchants, people and their roles, API keys, the kill switches. Every write goes through the services."""

from django import forms
from django.contrib import admin, messages
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.models import Group
from django.http import HttpRequest
from django.template.response import TemplateResponse

from accounts.admin.base import MemberFilter, TenantAdmin, column, reason_of
from accounts.models import ApiKey, GlobalSwitch, Membership, Merchant, User
from accounts.scopes import Scope
from accounts.selectors import merchants_with_role
from accounts.services import (
    NewApiKey,
    api_key_create,
    api_key_revoke,
    api_key_rotate,
    global_charging_set,
    membership_set,
    merchant_charging_set,
    merchant_refund_limit_set,
    timezone_require,
)
from accounts.states import Role
from recovery_site.common import clock
from recovery_site.common.errors import InvalidInput, RecoveryError

# Roles at merchants decide what people may do; Django's groups would only confuse.
admin.site.unregister(Group)
admin.site.site_header = "Revenue Recovery"
admin.site.site_title = "Revenue Recovery"
admin.site.index_title = "Records"


class NamedFormSet(forms.BaseInlineFormSet):
    """Fields of a table have no label beside them: each says its name to those who cannot see the column's head."""

    def add_fields(self, form, index):
        super().add_fields(form, index)
        for name, field in form.fields.items():
            field.widget.attrs.setdefault("aria-label", str(field.label or name.replace("_", " ").capitalize()))


class MembershipInline(admin.TabularInline):
    model = Membership
    formset = NamedFormSet
    extra = 0
    autocomplete_fields = ("merchant",)


@admin.register(User)
class PersonAdmin(DjangoUserAdmin):
    """Accounts are for superusers; a merchant's owners manage roles under Memberships."""

    inlines = (MembershipInline,)
    list_display = ("username", "first_name", "last_name", "roles", "is_staff", "is_active", "last_login")
    list_filter = ("is_staff", "is_superuser", "is_active")
    filter_horizontal = ()
    readonly_fields = ("last_login", "date_joined")

    def get_queryset(self, request):
        return super().get_queryset(request).prefetch_related("memberships__merchant")

    @column("Roles")
    def roles(self, user):
        if user.is_superuser:
            return "everything"
        return ", ".join(f"{row.get_role_display()} of {row.merchant}" for row in user.memberships.all()) or "none"

    def save_formset(self, request, form, formset, change):
        """Roles are given and taken by the service, which keeps every merchant's last owner."""
        if formset.model is not Membership:
            super().save_formset(request, form, formset, change)
            return
        formset.save(commit=False)
        for gone in formset.deleted_objects:
            self._set(request, gone.user, gone.merchant, None)
        for row in (*formset.new_objects, *(row for row, _ in formset.changed_objects)):
            self._set(request, row.user, row.merchant, row.role)

    def _set(self, request, user, merchant, role):
        try:
            membership_set(user=user, merchant=merchant, role=role)
        except RecoveryError as error:
            self.message_user(request, error.message, messages.ERROR)


@admin.register(Membership)
class MembershipAdmin(TenantAdmin):
    """An owner changes and takes roles; who has no account yet gets one from a superuser."""

    change_role = Role.OWNER
    list_display = ("user", "merchant", "role")
    list_filter = ("role", ("merchant", MemberFilter))
    list_select_related = ("user", "merchant")
    readonly_fields = ("user", "merchant")
    search_exact = ("user__username", "user__email")

    def has_delete_permission(self, request, obj=None):
        return self.has_change_permission(request, obj)

    def save_model(self, request, obj, form, change):
        self._set(request, obj, obj.role)

    def delete_model(self, request, obj):
        self._set(request, obj, None)

    def _set(self, request, membership, role):
        try:
            membership_set(user=membership.user, merchant=membership.merchant, role=role)
        except RecoveryError as error:
            self.message_user(request, error.message, messages.ERROR)


class MerchantForm(forms.ModelForm):
    class Meta:
        model = Merchant
        fields = ("name", "timezone", "refund_approval_above_minor")

    def clean_timezone(self):
        try:
            timezone_require(self.cleaned_data["timezone"])
        except InvalidInput as error:
            raise forms.ValidationError(error.message) from error
        return self.cleaned_data["timezone"]

    refund_approval_above_minor = forms.IntegerField(
        label="Refunds need a second person above",
        required=False,
        min_value=0,
        max_value=(1 << 63) - 1,
        help_text=Merchant._meta.get_field("refund_approval_above_minor").help_text,
    )


@admin.register(Merchant)
class MerchantAdmin(TenantAdmin):
    """Name, zone and refund limit are the owners' to change; the switch is an action with a reason."""

    form = MerchantForm
    merchant_path = ""
    change_role = Role.OWNER
    list_display = ("name", "public_id", "timezone", "charging")
    list_filter = ("charging_enabled",)
    fields = ("name", "timezone", "refund_approval_above_minor", "public_id", "charging_enabled", "created_at")
    readonly_fields = ("public_id", "charging_enabled", "created_at")
    search_fields = ("name",)
    actions = ("charging_off", "charging_on")

    def get_queryset(self, request):
        rows = super(TenantAdmin, self).get_queryset(request)
        return rows.filter(pk__in=merchants_with_role(request.user, Role.VIEWER))

    def get_search_fields(self, request):
        return self.search_fields

    def get_search_results(self, request, queryset, search_term):
        return queryset.filter(name__icontains=search_term.replace("\x00", "")), False

    def merchant_of(self, obj):
        return obj

    def save_model(self, request, obj, form, change):
        """The limit through its service, which keeps who changed it from what to what."""
        obj.save(update_fields=["name", "timezone"])
        limit = form.cleaned_data.get("refund_approval_above_minor")
        merchant_refund_limit_set(merchant_pk=obj.pk, above_minor=limit, user=request.user)

    @column("Charging")
    def charging(self, merchant):
        return "on" if merchant.charging_enabled else "switched off"

    @admin.action(description="Switch charging off …", permissions=["manage"])
    def charging_off(self, request, queryset):
        return self._switch(request, queryset, enabled=False)

    @admin.action(description="Switch charging on …", permissions=["manage"])
    def charging_on(self, request, queryset):
        return self._switch(request, queryset, enabled=True)

    def _switch(self, request, queryset, *, enabled):
        rows = self.few(request, queryset, Role.MANAGER)
        if rows is None:
            return None
        word = "on" if enabled else "off"
        what = "Retries that are due go out again." if enabled else "No charge and no refund is sent any more."
        page = self.confirm(
            request,
            rows,
            action=f"charging_{word}",
            title=f"Switch charging {word}",
            button=f"Switch charging {word}",
            describe=lambda merchant: what,
            danger=not enabled,
        )
        if page is not None:
            return page
        for merchant in rows:
            merchant_charging_set(
                merchant_pk=merchant.pk, enabled=enabled, reason=reason_of(request), user=request.user
            )
        self.message_user(request, f"Charging is {word} for {', '.join(map(str, rows))}.", messages.SUCCESS)
        return None


class SwitchForm(forms.ModelForm):
    class Meta:
        model = GlobalSwitch
        fields = ("charging_enabled", "reason")

    reason = forms.CharField(
        max_length=500, widget=forms.Textarea(attrs={"rows": 3}), help_text="Everybody who wonders reads it."
    )


@admin.register(GlobalSwitch)
class GlobalSwitchAdmin(admin.ModelAdmin):
    """The one row that stops everything; superusers only."""

    form = SwitchForm
    list_display = ("__str__", "charging_enabled", "reason", "changed_at")

    def has_add_permission(self, request):
        return request.user.is_superuser and not GlobalSwitch.objects.exists()

    def has_delete_permission(self, request, obj=None):
        return False

    def save_model(self, request, obj, form, change):
        obj.pk = 1
        global_charging_set(enabled=obj.charging_enabled, reason=obj.reason, user=request.user)


class NewKeyForm(forms.ModelForm):
    class Meta:
        model = ApiKey
        fields = ("merchant", "name", "scopes", "expires_at")

    scopes = forms.MultipleChoiceField(choices=Scope.choices, widget=forms.CheckboxSelectMultiple)


@admin.register(ApiKey)
class ApiKeyAdmin(TenantAdmin):
    """A key's text is on the page that creates it and nowhere else."""

    list_display = ("name", "prefix", "merchant", "scopes", "created_at", "expires_at", "last_used_at", "revoked_at")
    list_filter = (("merchant", MemberFilter), ("revoked_at", admin.EmptyFieldListFilter))
    list_select_related = ("merchant",)
    exclude = ("key_hash",)
    search_exact = ("prefix", "name")
    actions = ("revoke", "replace")

    def has_add_permission(self, request):
        return self.has_manage_permission(request)

    def get_form(self, request, obj=None, change=False, **kwargs):
        if obj is None:
            kwargs |= {"form": NewKeyForm, "fields": NewKeyForm.Meta.fields}
        return super().get_form(request, obj, change=change, **kwargs)

    def get_fields(self, request, obj=None):
        return NewKeyForm.Meta.fields if obj is None else super().get_fields(request, obj)

    def formfield_for_foreignkey(self, db_field, request, **kwargs):
        kwargs["queryset"] = merchants_with_role(request.user, Role.MANAGER)
        return super().formfield_for_foreignkey(db_field, request, **kwargs)

    def save_model(self, request, obj, form, change):
        """Through the service; the text goes with the object to the one page that shows it."""
        new = api_key_create(
            merchant=obj.merchant,
            name=obj.name,
            scopes=form.cleaned_data["scopes"],
            expires_at=obj.expires_at,
            created_by=request.user,
        )
        obj.pk = new.row.pk
        obj.new_key = new

    def response_add(self, request, obj, post_url_continue=None):
        return self._shown(request, [obj.new_key])

    def _shown(self, request: HttpRequest, keys: list[NewApiKey]) -> TemplateResponse:
        context = {
            **self.admin_site.each_context(request),
            "title": "New API key",
            "opts": self.model._meta,
            "keys": keys,
        }
        response = TemplateResponse(request, "admin/api_key_created.html", context)
        response["Cache-Control"] = "no-store"
        return response

    @admin.action(description="Revoke …", permissions=["manage"])
    def revoke(self, request, queryset):
        rows = self.few(request, queryset, Role.MANAGER)
        if rows is None:
            return None
        page = self.confirm(
            request,
            rows,
            action="revoke",
            title="Revoke API keys",
            button="Revoke them",
            describe=lambda key: "Programs that use this key are refused from now on.",
            danger=True,
        )
        if page is not None:
            return page
        for key in rows:
            api_key_revoke(api_key_pk=key.pk, now=clock.now())
            self.log_change(request, key, f"Revoked: {reason_of(request)}")
        self.message_user(request, "The keys are revoked.", messages.SUCCESS)
        return None

    @admin.action(description="Replace by a new key …", permissions=["manage"])
    def replace(self, request, queryset):
        rows = self.few(request, queryset, Role.MANAGER)
        if rows is None:
            return None
        page = self.confirm(
            request,
            rows,
            action="replace",
            title="Replace API keys",
            button="Make new keys",
            describe=lambda key: "A new key with the same scopes is shown once; this one ends after 24 hours.",
        )
        if page is not None:
            return page
        keys: list[NewApiKey] = []
        for key in rows:
            try:
                keys.append(api_key_rotate(api_key_pk=key.pk, now=clock.now(), by=request.user))
            except RecoveryError as error:
                self.message_user(request, error.message, messages.ERROR)
            else:
                self.log_change(request, key, f"Replaced: {reason_of(request)}")
        return self._shown(request, keys) if keys else None
