"""The outbox, the texts and their preview, settings, and addresses that get no mail. Writes go through the services."""

from django import forms
from django.contrib import admin
from django.db import models
from django.http import Http404
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils.decorators import method_decorator
from django.utils.html import format_html

from accounts.admin.base import MemberFilter, TenantAdmin, badge, column, report, values_filter
from accounts.selectors import may, merchants_with_role
from accounts.states import Role
from notifications.catalogue import shipped_names, shipped_templates
from notifications.frames import framing_page, mail_frame
from notifications.links import link_url
from notifications.models import (
    CaseAttribution,
    Message,
    MessageSettings,
    MessageTemplate,
    PaymentLink,
    Suppression,
)
from notifications.rendering import PLACEHOLDERS, with_links
from notifications.selectors import text_of
from notifications.services.links import links_revoke
from notifications.services.preview import preview_case, preview_write
from notifications.services.settings import message_settings_set, message_template_set, template_problems
from notifications.services.suppressions import suppression_lift
from recovery_site.common import clock
from retries.categories import Category


class ManagedAdmin(TenantAdmin):
    """Managers add and change; the merchant of a row never changes."""

    change_role = Role.MANAGER

    def has_add_permission(self, request):
        return merchants_with_role(request.user, Role.MANAGER).exists()

    def formfield_for_foreignkey(self, db_field, request, **kwargs):
        if db_field.name == "merchant":
            kwargs["queryset"] = merchants_with_role(request.user, Role.MANAGER)
        return super().formfield_for_foreignkey(db_field, request, **kwargs)


@admin.register(Message)
@method_decorator(framing_page, name="change_view")
class MessageAdmin(TenantAdmin):
    """The outbox: one row per message with its whole life."""

    ordering = ("-pk",)
    list_display = (
        "public_id",
        "template",
        "state",
        "address",
        "subject",
        "invoice",
        "merchant",
        "due_at",
        "sent_at",
        "clicked_at",
        "acted_at",
    )
    list_filter = ("status", values_filter("template", shipped_names()), "audience", ("merchant", MemberFilter))
    list_select_related = ("invoice", "merchant")
    search_exact = ("public_id", "invoice__public_id", "address")
    exclude = ("text", "html", "link", "lease_until")
    readonly_fields = ("mail", "payers_page")
    actions = ("revoke",)

    @column("Status")
    def state(self, message):
        return badge("message", message.status)

    @column("Mail")
    def mail(self, message):
        if not message.html:
            return "Not written yet"
        address = reverse("admin:notifications_message_html", args=[message.pk])
        return format_html(
            '<iframe class="mail-frame" src="{}" title="The mail as it was sent" sandbox></iframe>'
            '<details><summary>Plain text</summary><pre class="json">{}</pre></details>',
            address,
            with_links(message.text, link="[link]", unsubscribe="[link]"),
        )

    @column("Payer's page")
    def payers_page(self, message):
        if message.link_id is None:
            return "-"
        return format_html('<a href="{}">Open it as the payer sees it</a>', link_url(message.link.public_id))

    def get_readonly_fields(self, request, obj=None):
        """The payer's link is the right to act for the payer: for those who may act themselves."""
        if obj is not None and not may(request.user, obj.merchant, Role.SUPPORT):
            return tuple(name for name in super().get_readonly_fields(request, obj) if name != "payers_page")
        return super().get_readonly_fields(request, obj)

    def get_fields(self, request, obj=None):
        hidden = {"payers_page"} if obj is not None and not may(request.user, obj.merchant, Role.SUPPORT) else set()
        return [name for name in super().get_fields(request, obj) if name not in hidden]

    def get_urls(self):
        one = path("<int:pk>/html/", self.admin_site.admin_view(self.html_view), name="notifications_message_html")
        return [one, *super().get_urls()]

    def html_view(self, request, pk):
        message = self.get_queryset(request).filter(pk=pk).first()
        if message is None or not message.html:
            raise Http404("There is no such mail.")
        return mail_frame(request, with_links(message.html, link="#", unsubscribe="#"))

    @admin.action(description="Revoke the links in these messages …", permissions=["act"])
    def revoke(self, request, queryset):
        rows = self.few(request, queryset.filter(link__isnull=False), Role.SUPPORT)
        if rows is None:
            return None
        page = self.confirm(
            request,
            rows,
            action="revoke",
            title="Revoke links",
            button="Revoke",
            describe=lambda message: "The payer's page behind its link closes at once.",
            danger=True,
        )
        if page is not None:
            return page
        done = sum(
            links_revoke(
                invoice_pk=message.invoice_id, link_pk=message.link_id, by=f"user:{request.user.pk}", now=clock.now()
            )
            for message in rows
        )
        report(self, request, done, [])
        return None


class TemplateForm(forms.ModelForm):
    class Meta:
        model = MessageTemplate
        fields = ("merchant", "name", "locale", "segment", "category", "subject", "body", "button", "enabled")

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        names = ", ".join(f"{{{name}}}" for name in PLACEHOLDERS)
        self.fields["body"].help_text += f" Placeholders: {names}. The button stands before the last paragraph."
        if "name" in self.fields:
            self.fields["name"].help_text += f" Shipped: {', '.join(shipped_names())}."
        if "category" in self.fields:
            choices = [("", "Every category"), *((one.value, one.value) for one in Category)]
            self.fields["category"] = forms.ChoiceField(choices=choices, required=False)

    def clean(self):
        cleaned = super().clean() or self.cleaned_data
        texts = {name: cleaned.get(name, "") for name in ("subject", "body", "button")}
        for name, problems in template_problems(**texts).items():
            self.add_error(name, problems)
        return cleaned


@admin.register(MessageTemplate)
class MessageTemplateAdmin(ManagedAdmin):
    """A merchant's own texts. The shipped ones hold where there is none; a new row starts from them."""

    form = TemplateForm
    list_display = ("name", "locale", "segment", "category", "subject", "merchant", "enabled", "preview_link")
    list_filter = ("name", "locale", "enabled", ("merchant", MemberFilter))
    list_select_related = ("merchant",)
    change_form_template = "admin/notifications/messagetemplate/change_form.html"

    @column("Preview")
    def preview_link(self, row):
        return format_html(
            '<a href="{}">Preview</a>', reverse("admin:notifications_messagetemplate_preview", args=[row.pk])
        )

    def get_readonly_fields(self, request, obj=None):
        return ("merchant", "name", "locale", "segment", "category") if obj else ()

    def get_changeform_initial_data(self, request):
        """`?name=update_card&locale=de` starts from the shipped text."""
        initial = super().get_changeform_initial_data(request)
        wanted = (initial.get("name", "payment_failed"), initial.get("locale", "en"))
        for shipped in shipped_templates():
            if (shipped.name, shipped.locale) == wanted and shipped.category == initial.get("category", ""):
                texts = {"subject": shipped.subject, "body": shipped.body, "button": shipped.button}
                return {"name": shipped.name, "locale": shipped.locale, **texts, **initial}
        return initial

    def save_model(self, request, obj, form, change):
        values = {name: getattr(obj, name) for name in TemplateForm.Meta.fields}
        obj.pk = message_template_set(**values, actor=f"user:{request.user.pk}").pk

    def get_urls(self):
        view = self.admin_site.admin_view
        name = "notifications_messagetemplate"
        return [
            path("<int:pk>/preview/", view(self.preview_view), name=f"{name}_preview"),
            path("<int:pk>/preview/html/", view(self.preview_html_view), name=f"{name}_preview_html"),
            *super().get_urls(),
        ]

    def _preview(self, request, pk):
        row = self.get_queryset(request).filter(pk=pk).first()
        if row is None:
            raise Http404("There is no such text.")
        text = text_of(row)
        case = preview_case(row.merchant, text, request.GET.get("invoice", "").strip())
        return row, case, preview_write(text, case, now=clock.now()) if case else None

    @method_decorator(framing_page)
    def preview_view(self, request, pk):
        row, case, written = self._preview(request, pk)
        context = {
            **self.admin_site.each_context(request),
            "title": f"Preview: {row}",
            "opts": self.model._meta,
            "row": row,
            "case": case,
            "written": written,
            "invoice": request.GET.get("invoice", ""),
        }
        return TemplateResponse(request, "admin/notifications/messagetemplate/preview.html", context)

    def preview_html_view(self, request, pk):
        written = self._preview(request, pk)[2]
        return mail_frame(request, written.html if written else "")


@admin.register(MessageSettings)
class MessageSettingsAdmin(ManagedAdmin):
    formfield_overrides = {models.URLField: {"assume_scheme": "https"}}
    list_display = ("merchant", "sender", "default_locale", "cap_count", "cap_days", "gap_hours", "card_notes")
    list_select_related = ("merchant",)

    def get_readonly_fields(self, request, obj=None):
        return ("merchant",) if obj else ()

    def save_model(self, request, obj, form, change):
        values = {name: value for name, value in form.cleaned_data.items() if name != "merchant"}
        actor = f"user:{request.user.pk}"
        obj.pk = message_settings_set(merchant=obj.merchant, values=values, actor=actor).pk


@admin.register(Suppression)
class SuppressionAdmin(TenantAdmin):
    ordering = ("-pk",)
    list_display = ("address", "reason", "merchant", "since", "lifted_at", "lifted_by")
    list_filter = ("reason", ("lifted_at", admin.EmptyFieldListFilter), ("merchant", MemberFilter))
    list_select_related = ("merchant",)
    search_exact = ("address",)
    actions = ("lift",)

    @admin.action(description="Let these addresses get mail again …", permissions=["act"])
    def lift(self, request, queryset):
        rows = self.few(request, queryset.filter(lifted_at=None), Role.SUPPORT)
        if rows is None:
            return None
        page = self.confirm(
            request,
            rows,
            action="lift",
            title="Lift suppressions",
            button="Lift",
            describe=lambda row: "Only do this if the owner of the address has asked for it.",
        )
        if page is not None:
            return page
        by, now = f"user:{request.user.pk}", clock.now()
        report(self, request, sum(suppression_lift(suppression_pk=row.pk, by=by, now=now) for row in rows), [])
        return None


@admin.register(PaymentLink)
class PaymentLinkAdmin(TenantAdmin):
    ordering = ("-pk",)
    list_display = ("public_id", "invoice", "purpose", "merchant", "issued_by", "issued_at", "expires_at", "revoked_at")
    list_filter = ("purpose", ("merchant", MemberFilter))
    list_select_related = ("invoice", "merchant")
    search_exact = ("public_id", "invoice__public_id")


@admin.register(CaseAttribution)
class CaseAttributionAdmin(TenantAdmin):
    ordering = ("-pk",)
    list_display = ("case", "source", "why", "message", "merchant", "recovered_at", "rule")
    list_filter = ("source", ("merchant", MemberFilter))
    list_select_related = ("case", "message", "merchant")
