"""Invoices in the admin, with what only the layers above the ledger know: the case, the actions, the case page."""

import re

from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.db.models import Prefetch
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.html import format_html
from django.utils.http import url_has_allowed_host_and_scheme

from accounts.admin.base import LIST_LIMIT, badge, column, report
from accounts.models import Merchant
from accounts.selectors import merchants_for, merchants_with_role
from accounts.states import Role
from invoices.admin import InvoiceAdmin
from invoices.models import Invoice
from recovery_site.common import clock
from recovery_site.console.actions import ACTIONS, staff_stamp
from recovery_site.console.forms import BulkForm
from recovery_site.console.lookup import invoice_pks_find
from retries.models import BulkItem, BulkRun, Case
from retries.services.bulk import AT_ONCE, LARGEST, BulkOrder, bulk_drain, bulk_foresee, bulk_start
from retries.states import BulkAction, BulkStatus, CaseStatus
from tokens.models import Card, Token

# So many invoices are foreseen one by one before a person says yes; the others are counted.
FORESEEN = 100


def _case(invoice: Invoice) -> Case | None:
    """The open case, prefetched by the list's queryset."""
    return next(iter(getattr(invoice, "open_cases", ())), None)


class CaseInvoiceAdmin(InvoiceAdmin):
    """The list; one invoice is the console's case page."""

    list_display = ("page", "state", "step", "due", "amount", "customer", "merchant", "issued_at")  # type: ignore[assignment]
    list_display_links = None
    actions = ("retry", "pause", "resume", "cancel")

    def get_queryset(self, request):
        open_cases = Prefetch("cases", queryset=Case.objects.filter(status=CaseStatus.OPEN), to_attr="open_cases")
        return super().get_queryset(request).prefetch_related(open_cases)

    def get_search_results(self, request, queryset, search_term):
        """Any id of an invoice, transaction, attempt, payment, refund or dispute, a number, a customer's e-mail, or
        the last four digits of a card."""
        term = search_term.strip()
        if not term:
            return queryset, False
        if "@" in term:
            mine = merchants_for(request.user)
            return queryset.filter(customer__merchant__in=mine, customer__email__in={term, term.lower()}), False
        pks = invoice_pks_find(term, merchants_for(request.user))
        if not pks and re.fullmatch(r"[0-9]{4}", term):
            cards = Card.objects.filter(merchant__in=merchants_for(request.user), last4=term)
            holders = Token.objects.filter(card__in=cards).values_list("customer", flat=True)[:LIST_LIMIT]
            return queryset.filter(customer__in=list(holders)), False
        return queryset.filter(pk__in=pks), False

    def change_view(self, request, object_id, form_url="", extra_context=None):
        """The admin's own page of an invoice would show one row of a story: the case page shows the story."""
        invoice = self.get_object(request, object_id)
        if invoice is None:
            return super().change_view(request, object_id, form_url, extra_context)
        return redirect("console:invoice", public_id=invoice.public_id)

    @column("Invoice")
    def page(self, invoice):
        return format_html('<a href="{}">{}</a>', reverse("console:invoice", args=[invoice.public_id]), invoice)

    @column("Next step")
    def step(self, invoice):
        case = _case(invoice)
        return badge("step", case.next_step) if case else "-"

    @admin.action(description="Retry now …", permissions=["act"])
    def retry(self, request, queryset):
        return self._act(request, queryset, "retry")

    @admin.action(description="Pause automatic retries …", permissions=["act"])
    def pause(self, request, queryset):
        return self._act(request, queryset, "pause")

    @admin.action(description="Resume automatic retries …", permissions=["act"])
    def resume(self, request, queryset):
        return self._act(request, queryset, "resume")

    @admin.action(description="Cancel …", permissions=["act"])
    def cancel(self, request, queryset):
        return self._act(request, queryset, "cancel")

    def _act(self, request, queryset, name: str):
        """Ask with a preview, then write a run down for each merchant and begin it; the worker does what is left."""
        pks = self._allowed(request, queryset)
        if pks is None:
            return None
        form = BulkForm(request.POST if "confirmed" in request.POST else None, action=name, now=clock.now())
        if not form.is_valid() or request.POST.get("confirmed") == "preview":
            return self._ask(request, pks, name, form)
        runs = self._start(request, pks, form.order, form.cleaned_data["reason"])
        done, refused = 0, []
        for run in runs:
            worked = BulkItem.objects.filter(run=run).select_related("invoice").order_by("pk")
            done += sum(item.status == BulkStatus.DONE for item in worked)
            refused += [f"{item.invoice}: {item.message}" for item in worked if item.status == BulkStatus.REFUSED]
        report(self, request, done, refused)
        unfinished = [run for run in runs if BulkRun.objects.filter(pk=run.pk, finished_at=None).exists()]
        if not unfinished:
            return self._back(request)
        self.message_user(request, "The worker does the rest; this page shows how far it is.", messages.INFO)
        return redirect("admin:retries_bulkrun_change", unfinished[0].pk)

    def changelist_view(self, request, extra_context=None):
        """Whoever selected nothing goes back to where they were."""
        back = self._back(request) if request.method == "POST" and "action" in request.POST else None
        if back is not None and not request.POST.getlist(ACTION_CHECKBOX_NAME):
            self.message_user(request, "Select at least one row first.", messages.WARNING)
            return back
        return super().changelist_view(request, extra_context)

    @staticmethod
    def _place(request) -> str:
        """The page of ours that a bulk action was begun on, if that is not this list."""
        place = request.POST.get("back", "")
        ours = url_has_allowed_host_and_scheme(place, {request.get_host()}, require_https=request.is_secure())
        return place if ours and place.startswith("/") else ""

    def _back(self, request):
        place = self._place(request)
        return redirect(place) if place else None

    def _allowed(self, request, queryset):
        """Keys of the selected invoices at whose merchants the person may act, or None with a message."""
        allowed = queryset.filter(merchant__in=merchants_with_role(request.user, Role.SUPPORT))
        pks = list(allowed.order_by("pk").values_list("pk", flat=True)[: LARGEST + 1])
        if len(pks) > LARGEST:
            self.message_user(request, f"Select at most {LARGEST} invoices at a time.", messages.ERROR)
            return None
        if not pks:
            self.message_user(request, "Your role does not allow this for any of the selected rows.", messages.ERROR)
            return None
        return pks

    def _ask(self, request, pks, name: str, form: "BulkForm"):
        """The page that foresees what will happen, and asks for the reason."""
        if request.POST.get("confirmed") == "preview":
            form.errors.pop("reason", None)
        stamp = staff_stamp(request.user, "preview", clock.now())
        rows = list(self.get_queryset(request).filter(pk__in=pks[:FORESEEN]).select_related("customer").order_by("pk"))
        foreseen = bulk_foresee(rows, form.order, stamp=stamp)
        action = ACTIONS[name]
        context = {
            **self.admin_site.each_context(request),
            "title": action.title if len(pks) == 1 else f"{BulkAction(name).label} {len(pks):,} invoices?",
            "opts": self.model._meta,
            "button": action.confirm,
            "danger": action.tone == "danger",
            "action": name,
            "rows": list(zip(rows, foreseen, strict=True)),
            "will": sum(one.will for one in foreseen),
            "total": len(pks),
            "may_happen": sum(one.will for one in foreseen) + len(pks) - len(rows),
            "back": self._place(request),
            "more": len(pks) - len(rows),
            "across": request.POST.get("select_across") == "1",
            "pks": request.POST.getlist(ACTION_CHECKBOX_NAME),
            "checkbox_name": ACTION_CHECKBOX_NAME,
            "form": form,
        }
        return TemplateResponse(request, "admin/bulk_confirm.html", context)

    def _start(self, request, pks, order: BulkOrder, reason: str) -> list[BulkRun]:
        now = clock.now()
        stamp = staff_stamp(request.user, reason, now)
        runs = []
        for merchant in Merchant.objects.filter(pk__in=Invoice.objects.filter(pk__in=pks).values("merchant")):
            run = bulk_start(merchant=merchant, invoice_pks=pks, order=order, reason=reason, stamp=stamp)
            bulk_drain(now=now, run_pk=run.pk, limit=AT_ONCE)
            runs.append(run)
        return runs


admin.site.unregister(Invoice)
admin.site.register(Invoice, CaseInvoiceAdmin)
