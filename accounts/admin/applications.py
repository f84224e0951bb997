"""OAuth applications: made and ended by managers. Tokens are nobody's to look at."""

from django import forms
from django.contrib import admin, messages
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from oauth2_provider.models import AccessToken, DeviceGrant, Grant, IDToken, RefreshToken

from accounts.admin.base import MemberFilter, TenantAdmin, column, reason_of
from accounts.models import OAuthApplication
from accounts.oauth.services import application_create, application_revoke
from accounts.scopes import Scope
from accounts.selectors import merchants_with_role
from accounts.states import Role
from recovery_site.common import clock
from recovery_site.common.errors import InvalidInput

for _model in (OAuthApplication, AccessToken, DeviceGrant, Grant, IDToken, RefreshToken):
    if admin.site.is_registered(_model):
        admin.site.unregister(_model)


class ApplicationForm(forms.ModelForm):
    """The service's fields."""

    class Meta:
        model = OAuthApplication
        fields = ("merchant", "name", "redirect_uris", "scopes")

    name = forms.CharField(max_length=100)
    redirect_uris = forms.CharField(
        required=False,
        widget=forms.Textarea(attrs={"rows": 2}),
        label="Redirect addresses",
        help_text="Where people come back to after they allowed it, one per line. Empty: it acts for itself only.",
    )
    scopes = forms.MultipleChoiceField(choices=Scope.choices, widget=forms.CheckboxSelectMultiple)
    public = forms.BooleanField(
        required=False, label="No secret", help_text="For programs on other people's machines, which cannot keep one."
    )

    def _post_clean(self):
        """The model's own cleaning needs what only the service sets."""


@admin.register(OAuthApplication)
class OAuthApplicationAdmin(TenantAdmin):
    """A secret is on the page that creates it and nowhere else."""

    ordering = ("-pk",)
    list_display = ("name", "client_id", "merchant", "acts", "scopes", "created", "revoked_at")
    list_filter = (("merchant", MemberFilter), ("revoked_at", admin.EmptyFieldListFilter))
    list_select_related = ("merchant",)
    fields = ("merchant", "name", "client_id", "client_type", "redirect_uris", "scopes", "created", "revoked_at")
    search_exact = ("client_id", "name")
    actions = ("revoke",)

    @column("Acts for")
    def acts(self, application):
        return "people" if application.redirect_uris else "itself"

    def has_add_permission(self, request):
        return self.has_manage_permission(request)

    def get_form(self, request, obj=None, change=False, **kwargs):
        if obj is None:
            kwargs |= {"form": ApplicationForm, "fields": ApplicationForm.Meta.fields}
        return super().get_form(request, obj, change=change, **kwargs)

    def get_fields(self, request, obj=None):
        return (*ApplicationForm.Meta.fields, "public") if obj is None else super().get_fields(request, obj)

    def formfield_for_foreignkey(self, db_field, request, **kwargs):
        kwargs["queryset"] = merchants_with_role(request.user, Role.MANAGER)
        return super().formfield_for_foreignkey(db_field, request, **kwargs)

    def save_form(self, request, form, change):
        return OAuthApplication(merchant=form.cleaned_data["merchant"], name=form.cleaned_data["name"])

    def save_model(self, request, obj, form, change):
        given = form.cleaned_data
        new = application_create(
            merchant=given["merchant"],
            name=given["name"],
            scopes=given["scopes"],
            redirect_uris=given["redirect_uris"].split(),
            public=given["public"],
            created_by=request.user,
        )
        obj.pk, obj.client_id, obj.new = new.row.pk, new.row.client_id, new

    def save_related(self, request, form, formsets, change):
        """There is nothing related."""

    def changeform_view(self, request, object_id=None, form_url="", extra_context=None):
        try:
            return super().changeform_view(request, object_id, form_url, extra_context)
        except InvalidInput as error:
            self.message_user(request, error.message, messages.ERROR)
            return redirect(request.get_full_path())

    def _about(self, request):
        return {**self.admin_site.each_context(request), "title": "New application", "opts": self.model._meta}

    def response_add(self, request, obj, post_url_continue=None):
        context = {**self._about(request), "new": obj.new}
        response = TemplateResponse(request, "admin/application_created.html", context)
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
            title="Revoke applications",
            button="Revoke them",
            describe=lambda row: "Every token it has ends now; it gets no new ones.",
            danger=True,
        )
        if page is not None:
            return page
        for row in rows:
            application_revoke(application_pk=row.pk, now=clock.now())
            self.log_change(request, row, f"Revoked: {reason_of(request)}")
        self.message_user(request, "The applications are revoked.", messages.SUCCESS)
        return None
