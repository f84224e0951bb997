"""The policy editor: a document checked field by field, tried on an invoice, compared, and saved as a new version."""

import json
from collections.abc import Mapping
from typing import Any

from django.conf import settings
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import Exists, OuterRef, Q, Subquery
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html

from accounts.admin.base import MemberFilter, TenantAdmin, column, pretty
from accounts.models import Merchant
from accounts.selectors import may, merchants_for, merchants_with_role
from accounts.states import Role
from invoices.models import Invoice
from recovery_site.common import clock
from recovery_site.common.errors import RecoveryError
from retries.documents import Problem, documents_diff
from retries.models import Case, PolicyVersion
from retries.policy import PRESETS, Policy, PolicyError, parse_policy, preset_document
from retries.previews import Preview, last_code, policy_preview
from retries.services.cases import policy_version_create, policy_version_current
from retries.states import CaseStatus
from retries.timing import strategy_names

_LONGEST = 200_000


@admin.register(PolicyVersion)
class PolicyVersionAdmin(TenantAdmin):
    """Versions are never changed; the editor makes the next one."""

    ordering = ("-pk",)
    list_display = ("version", "merchant", "in_force", "note", "created_by", "created_at", "compare")
    list_filter = (("merchant", MemberFilter),)
    list_select_related = ("merchant",)
    exclude = ("document",)
    readonly_fields = ("document_shown",)
    change_list_template = "admin/policy_list.html"
    change_form_template = "admin/policy_version.html"

    def get_urls(self) -> list[URLPattern]:
        own = [
            path("edit/<slug:public_id>/", self.admin_site.admin_view(self.edit_view), name="retries_policy_edit"),
            path("compare/<int:old>/<int:new>/", self.admin_site.admin_view(self.compare_view), name="policy_compare"),
        ]
        return [*own, *super().get_urls()]

    def changelist_view(self, request, extra_context=None):
        """With a button per merchant whose policy the person may change."""
        extra = {**(extra_context or {}), "editable": merchants_with_role(request.user, Role.MANAGER)[:20]}
        return super().changelist_view(request, extra)

    def change_view(self, request, object_id, form_url="", extra_context=None):
        version = self.get_object(request, object_id)
        extra = dict(extra_context or {})
        if version is not None:
            extra |= {
                "merchant_public_id": version.merchant.public_id,
                "may_edit": may(request.user, version.merchant, Role.MANAGER),
                "open_cases": Case.objects.filter(policy_version=version, status=CaseStatus.OPEN)[:1000].count(),
            }
        return super().change_view(request, object_id, form_url, extra)

    @column("Document")
    def document_shown(self, version):
        return pretty(version.document)

    def get_queryset(self, request):
        same = PolicyVersion.objects.filter(merchant=OuterRef("merchant"))
        later = same.filter(version__gt=OuterRef("version"))
        before = same.filter(version=OuterRef("version") - 1).values("pk")
        return super().get_queryset(request).annotate(replaced=Exists(later), before_pk=Subquery(before))

    @column("In force")
    def in_force(self, version):
        return "-" if version.replaced else "for new cases"

    @column("Compare")
    def compare(self, version):
        if version.before_pk is None:
            return "-"
        address = reverse("admin:policy_compare", args=[version.before_pk, version.pk])
        return format_html('<a href="{}">with version {}</a>', address, version.version - 1)

    # --- editor -----------------------------------------------------------------------------------

    def edit_view(self, request: HttpRequest, public_id: str) -> HttpResponse:
        """Check, preview and save a merchant's next version."""
        merchant = merchants_for(request.user).filter(public_id=public_id).first()
        if merchant is None:
            raise Http404("There is no such merchant.")
        if not may(request.user, merchant, Role.MANAGER):
            raise PermissionDenied("Only managers and owners change a policy; ask one of them.")
        draft = _Draft(request, merchant)
        if request.method == "POST" and "save" in request.POST and draft.policy is not None:
            saved = draft.save(request)
            if saved is not None:
                text = f"Saved as version {saved.version}: new cases follow it, running ones keep theirs."
                messages.success(request, text)
                return redirect("admin:retries_policyversion_change", saved.pk)
        context = {
            **self.admin_site.each_context(request),
            "title": f"Retry policy of {merchant}",
            "opts": self.model._meta,
            "draft": draft,
            "presets": PRESETS,
            "strategies": ("never", *strategy_names()),
        }
        status = 200 if not draft.problems else 400
        return TemplateResponse(request, "admin/policy_edit.html", context, status=status)

    def compare_view(self, request: HttpRequest, old: int, new: int) -> HttpResponse:
        """What differs between two versions of one merchant."""
        mine = PolicyVersion.objects.filter(merchant__in=merchants_for(request.user)).select_related("merchant")
        before, after = mine.filter(pk=old).first(), mine.filter(pk=new).first()
        if before is None or after is None or before.merchant_id != after.merchant_id:
            raise Http404("There are no such versions of one merchant.")
        context = {
            **self.admin_site.each_context(request),
            "title": f"Version {before.version} against version {after.version}",
            "opts": self.model._meta,
            "before": before,
            "after": after,
            "changes": documents_diff(before.document, after.document),
            "others": mine.filter(merchant=after.merchant_id).exclude(pk=after.pk).order_by("-version")[:50],
        }
        return TemplateResponse(request, "admin/policy_compare.html", context)


class _Draft:
    """What stands in the editor now, what is wrong with it, and what it would do."""

    def __init__(self, request: HttpRequest, merchant: Merchant) -> None:
        self.merchant, self.now = merchant, clock.now()
        self.current = policy_version_current(merchant.pk)
        sent = request.POST if request.method == "POST" else request.GET
        self.text = request.POST.get("document", "") if request.method == "POST" else self._start(sent)
        self.note = sent.get("note", "").strip()
        self.based_on = int(sent.get("based_on", "")) if sent.get("based_on", "").isdigit() else self.current.version
        self.invoice_id, self.code = sent.get("invoice", "").strip(), sent.get("code", "").strip()
        self.problems: list[Problem] = []
        self.document: dict[str, Any] = {}
        self.policy = self._read()
        self.preview_problem = ""
        self.preview = self._preview()

    def _start(self, query: Mapping[str, str]) -> str:
        """The version in force, or the one or the preset that the link names."""
        document = self.current.document
        if query.get("preset") in PRESETS:
            document = preset_document(query["preset"])
        elif query.get("version", "").isdigit():
            chosen = PolicyVersion.objects.filter(merchant=self.merchant, version=int(query["version"])).first()
            document = chosen.document if chosen else document
        return json.dumps(document, indent=2, ensure_ascii=False)

    def _read(self) -> Policy | None:
        if len(self.text) > _LONGEST:
            self.problems = [Problem("", f"The document is longer than {_LONGEST} characters; shorten it.")]
            return None
        try:
            self.document = json.loads(self.text)
        except RecursionError:
            self.problems = [Problem("", "The document is nested too deeply to be a policy.")]
            return None
        except ValueError as error:
            self.problems = [Problem("", f"This is no JSON: {error}.")]
            return None
        try:
            return parse_policy(self.document, default_max_attempts=settings.RETRY_MAX_ATTEMPTS)
        except PolicyError as error:
            self.problems = list(error.problems)
            return None

    @property
    def document_wrong(self) -> bool:
        return self.policy is None

    @property
    def changes(self) -> list[Any]:
        """What differs from the version in force."""
        return [] if self.document_wrong else documents_diff(self.current.document, self.document)

    def _preview(self) -> Preview | None:
        if not self.invoice_id or self.policy is None:
            return None
        ids = Q(public_id=self.invoice_id) | Q(provider_invoice_id=self.invoice_id) | Q(number=self.invoice_id)
        rows = Invoice.objects.filter(ids, merchant=self.merchant).select_related("connection", "customer")
        invoice = rows.first() if "\x00" not in self.invoice_id else None
        if invoice is None:
            self.preview_problem = f"{self.merchant} has no invoice {self.invoice_id}; give its id or its number."
            return None
        self.code = self.code or last_code(invoice)
        return policy_preview(self.policy, invoice, code=self.code, now=self.now)

    def save(self, request: HttpRequest) -> PolicyVersion | None:
        """The new version, or None with the reason among the problems."""
        if not self.note:
            self.problems = [Problem("note", "Say what changed and why; it stands beside the version.")]
            return None
        if not self.changes:
            self.problems = [Problem("", "Nothing differs from the version in force.")]
            return None
        try:
            return policy_version_create(
                merchant_id=self.merchant.pk,
                document=self.document,
                note=self.note,
                created_by=f"user:{request.user.pk}",
                based_on=self.based_on,
            )
        except RecoveryError as error:
            self.problems = [Problem("", error.message)]
            return None
