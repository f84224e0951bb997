"""How decline codes are read: a merchant's overrides, in versions, and the report of codes that nobody knows."""

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path

from accounts.admin.base import MemberFilter, TenantAdmin, category_badge, column
from accounts.selectors import may, merchants_for, merchants_with_role
from accounts.states import Role
from providers.decline_tables import providers_with_codes
from recovery_site.common import clock
from recovery_site.common.errors import RecoveryError
from retries.categories import Category
from retries.models import DeclineOverride
from retries.services.overrides import decline_override_set
from retries.unlisted import DAYS, unlisted_codes

# What a code that nobody knows mostly turns out to be: one click each.
_ONE_CLICK = (Category.SOFT_DECLINE, Category.HARD_DECLINE, Category.INSUFFICIENT_FUNDS, Category.PROCESSING_ERROR)


def _words(category: Category) -> str:
    return category.value.replace("_", " ").capitalize()


class OverrideForm(forms.ModelForm):
    """One code, read in another way from now on."""

    class Meta:
        model = DeclineOverride
        fields = ("merchant", "provider", "code", "category", "note")

    provider = forms.ChoiceField(choices=[(name, name) for name in providers_with_codes()])
    category = forms.ChoiceField(
        required=False,
        choices=[("", "As shipped (take the override back)"), *((one.value, _words(one)) for one in Category)],
    )


@admin.register(DeclineOverride)
class DeclineOverrideAdmin(TenantAdmin):
    """Every change is a new version; the newest one counts for failures from now on."""

    ordering = ("-pk",)
    list_display = ("provider", "code", "read_as", "version", "merchant", "note", "created_by", "created_at")
    list_filter = ("provider", ("merchant", MemberFilter))
    list_select_related = ("merchant",)
    search_exact = ("code",)
    change_list_template = "admin/override_list.html"

    def get_urls(self) -> list[URLPattern]:
        own = [path("unknown/", self.admin_site.admin_view(self.unknown_view), name="retries_unknown_codes")]
        return [*own, *super().get_urls()]

    def has_add_permission(self, request):
        return self.has_manage_permission(request)

    def get_form(self, request, obj=None, change=False, **kwargs):
        if obj is None:
            kwargs |= {"form": OverrideForm, "fields": OverrideForm.Meta.fields}
        return super().get_form(request, obj, change=change, **kwargs)

    def get_fields(self, request, obj=None):
        return OverrideForm.Meta.fields if obj is None else super().get_fields(request, obj)

    def formfield_for_foreignkey(self, db_field, request, **kwargs):
        kwargs["queryset"] = merchants_with_role(request.user, Role.MANAGER)
        return super().formfield_for_foreignkey(db_field, request, **kwargs)

    def save_form(self, request, form, change):
        """Through the service; what it refuses is shown at the form."""
        return form.save(commit=False)

    def save_model(self, request, obj, form, change):
        saved = decline_override_set(
            merchant=obj.merchant,
            provider=obj.provider,
            code=obj.code,
            category=obj.category,
            note=obj.note,
            created_by=f"user:{request.user.pk}",
        )
        obj.pk, obj.version, obj.code = saved.pk, saved.version, saved.code

    def changeform_view(self, request, object_id=None, form_url="", extra_context=None):
        try:
            return super().changeform_view(request, object_id, form_url, extra_context)
        except RecoveryError as error:
            self.message_user(request, error.message, messages.ERROR)
            return redirect(request.get_full_path())

    @column("Read as")
    def read_as(self, override):
        return category_badge(override.category) if override.category else "as shipped"

    def unknown_view(self, request: HttpRequest) -> HttpResponse:
        """The report; a POST makes one of its codes known."""
        if request.method == "POST":
            self._make_known(request)
            return redirect("admin:retries_unknown_codes")
        mine = merchants_for(request.user)
        context = {
            **self.admin_site.each_context(request),
            "title": "Codes that nobody knows",
            "opts": self.model._meta,
            "codes": unlisted_codes(mine, now=clock.now()),
            "days": DAYS,
            "one_click": [(one.value, _words(one)) for one in _ONE_CLICK],
            "categories": [(one.value, _words(one)) for one in Category if one not in _ONE_CLICK],
            "managed": set(merchants_with_role(request.user, Role.MANAGER).values_list("pk", flat=True)),
        }
        return TemplateResponse(request, "admin/unknown_codes.html", context)

    def _make_known(self, request: HttpRequest) -> None:
        chosen = request.POST.get("merchant", "")
        merchant = merchants_for(request.user).filter(pk=chosen).first() if chosen.isdigit() else None
        if merchant is None or not may(request.user, merchant, Role.MANAGER):
            raise PermissionDenied("Only managers and owners change how a code is read; ask one of them.")
        try:
            saved = decline_override_set(
                merchant=merchant,
                provider=request.POST.get("provider", ""),
                code=request.POST.get("code", ""),
                category=request.POST.get("category", "") or request.POST.get("other", ""),
                note="From the report of unknown codes",
                created_by=f"user:{request.user.pk}",
            )
        except RecoveryError as error:
            self.message_user(request, error.message, messages.ERROR)
        else:
            words = _words(Category(saved.category)).lower()
            text = f"The code {saved.code} of {saved.provider} is read as {words} from now on."
            self.message_user(request, text, messages.SUCCESS)
