"""Invoices in the admin, with what only the layers above the ledger know: the case, the actions, the case page."""

from django.contrib import admin
from django.db.models import Prefetch
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.html import format_html

from accounts.admin.base import badge, column, reason_of, report
from accounts.selectors import merchants_for
from accounts.states import Role
from invoices.admin import InvoiceAdmin
from invoices.models import Invoice
from recovery_site.common import clock
from recovery_site.common.errors import RecoveryError
from recovery_site.console.actions import ACTIONS, act
from recovery_site.console.lookup import invoice_pks_find
from retries.models import Case
from retries.services.manual import legal_actions
from retries.states import CaseStatus

_WILL = {
    "retry": "A retry of {due} is booked with the best payment method.",
    "pause": "Automatic retries stop until somebody resumes them.",
    "resume": "The next step is planned anew.",
    "cancel": "Nothing more is collected of the {due} due.",
}


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
        """Any id of an invoice, transaction, attempt, payment, refund or dispute, a number, or a customer's e-mail."""
        term = search_term.strip()
        if not term:
            return queryset, False
        if "@" in term:
            mine = merchants_for(request.user)
            return queryset.filter(customer__merchant__in=mine, customer__email__in={term, term.lower()}), False
        return queryset.filter(pk__in=invoice_pks_find(term, merchants_for(request.user))), False

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
        rows = self.few(request, queryset, Role.SUPPORT)
        if rows is None:
            return None
        action = ACTIONS[name]
        page = self.confirm(
            request,
            rows,
            action=name,
            title=action.title,
            button=action.confirm,
            describe=lambda invoice: self._will(invoice, name),
            danger=action.tone == "danger",
        )
        if page is not None:
            return page
        done, refused = 0, []
        for invoice in rows:
            try:
                act(name, invoice, user=request.user, reason=reason_of(request), now=clock.now())
            except RecoveryError as error:
                refused.append(f"{invoice}: {error.message}")
            else:
                done += 1
        report(self, request, done, refused)
        return None

    def _will(self, invoice: Invoice, name: str) -> str:
        if name not in legal_actions(invoice, _case(invoice)):
            return f"Nothing: the invoice is {invoice.get_status_display().lower()} and does not allow it."
        return _WILL[name].format(due=self.due(invoice))


admin.site.unregister(Invoice)
admin.site.register(Invoice, CaseInvoiceAdmin)
