"""The ledger in the admin: to look at, never to edit. Money moves through services, as do connections' switches."""

from django.contrib import admin
from django.urls import reverse
from django.utils.html import format_html
from django_q.tasks import async_task

from accounts.admin.base import (
    MemberFilter,
    TenantAdmin,
    badge,
    category_badge,
    column,
    money,
    pretty,
    reason_of,
    report,
    values_filter,
)
from accounts.states import Role
from invoices.models import (
    Attempt,
    BillerNote,
    Connection,
    Customer,
    Dispute,
    Event,
    Invoice,
    OutboxMessage,
    ProviderPayment,
    ReviewItem,
    StaffNote,
    Transaction,
)
from invoices.services.ledger import Stamp
from invoices.services.notes import note_retry
from invoices.services.parties import connection_switch
from invoices.states import TransactionKind
from providers.categories import Category
from recovery_site.common import clock
from recovery_site.common.errors import RecoveryError

_TENANT = (("merchant", MemberFilter),)
_ACCOUNT = (("merchant", MemberFilter), ("connection", MemberFilter))


CategoryFilter = values_filter("category", list(Category))


class LedgerAdmin(TenantAdmin):
    """Rows that only services write: no adding, changing or deleting here, newest first."""

    ordering = ("-pk",)

    @column("Amount")
    def amount(self, row):
        return money(row.amount_minor, row.currency)


@admin.register(Connection)
class ConnectionAdmin(TenantAdmin):
    list_display = ("name", "merchant", "provider", "mode", "enabled", "paused_reason", "page")
    list_filter = (*_TENANT, "provider", "mode", "enabled")
    list_select_related = ("merchant",)
    exclude = ("secrets_encrypted", "settings")
    readonly_fields = ("public_id", "shown_settings", "created_at")
    search_exact = ("public_id", "name")
    actions = ("enable", "disable", "reconcile")

    @column("Account")
    def page(self, row):
        return format_html('<a href="{}">Open</a>', reverse("console:connection", args=[row.public_id]))

    @column("Settings")
    def shown_settings(self, row):
        return pretty(row.settings)

    @admin.action(description="Enable, and take a pause back …", permissions=["manage"])
    def enable(self, request, queryset):
        return self._switch(request, queryset, enabled=True)

    @admin.action(description="Disable …", permissions=["manage"])
    def disable(self, request, queryset):
        return self._switch(request, queryset, enabled=False)

    @admin.action(description="Reconcile now …", permissions=["manage"])
    def reconcile(self, request, queryset):
        """Order the sweep that the schedule and the command run, too; the worker carries it out."""
        rows = self.few(request, queryset, Role.MANAGER)
        if rows is None:
            return None
        page = self.confirm(
            request,
            rows,
            action="reconcile",
            title="Reconcile now",
            button="Reconcile",
            describe=lambda row: "What got stuck is looked up at the provider now; no new charge is started.",
        )
        if page is not None:
            return page
        async_task("retries.tasks.reconcile_sweep", cluster="recovery", task_name="reconcile from the admin")
        for row in rows:
            self.log_change(request, row, f"Reconciled: {reason_of(request)}")
        report(self, request, len(rows), [])
        return None

    def _switch(self, request, queryset, *, enabled):
        rows = self.few(request, queryset, Role.MANAGER)
        if rows is None:
            return None
        name = "enable" if enabled else "disable"
        what = "Charges go through this connection again." if enabled else "Nothing is charged or polled through it."
        page = self.confirm(
            request,
            rows,
            action=name,
            title=f"{name.capitalize()} connections",
            button=name.capitalize(),
            describe=lambda row: what,
            danger=not enabled,
        )
        if page is not None:
            return page
        done, refused = 0, []
        for row in rows:
            try:
                connection_switch(connection_pk=row.pk, enabled=enabled)
            except RecoveryError as error:
                refused.append(f"{row}: {error.message}")
            else:
                self.log_change(request, row, f"{name.capitalize()}d: {reason_of(request)}")
                done += 1
        report(self, request, done, refused)
        return None


@admin.register(Customer)
class CustomerAdmin(LedgerAdmin):
    list_display = ("__str__", "email", "country", "connection", "merchant", "first_seen_at")
    list_filter = _ACCOUNT
    list_select_related = ("connection", "merchant")
    search_exact = ("public_id", "email")
    search_in_connections = ("connector_customer_id",)
    search_fields = ("public_id",)


@admin.register(Invoice)
class InvoiceAdmin(LedgerAdmin):
    """Replaced by the console's, which adds cases, actions and the way to the case page."""

    list_display = ("__str__", "merchant", "customer", "state", "amount", "due", "issued_at")
    list_filter = ("status", *_ACCOUNT)
    list_select_related = ("merchant", "customer")
    search_exact = ("public_id", "number")
    search_in_connections = ("provider_invoice_id", "subscription_id")
    search_fields = ("public_id",)

    @column("Status")
    def state(self, invoice):
        return badge("invoice", invoice.status)

    @column("Due now")
    def due(self, invoice):
        return money(invoice.due_minor, invoice.currency)


@admin.register(Transaction)
class TransactionAdmin(LedgerAdmin):
    list_display = ("public_id", "kind", "state", "amount", "captured", "invoice", "merchant", "started_at")
    list_filter = ("kind", "status", *_TENANT)
    list_select_related = ("merchant", "invoice")
    search_exact = ("public_id",)

    @column("Status")
    def state(self, row):
        return badge("transaction", row.status)

    @column("Captured")
    def captured(self, row):
        return money(row.captured_minor, row.currency)


@admin.register(Attempt)
class AttemptAdmin(LedgerAdmin):
    list_display = (
        "public_id",
        "invoice",
        "number",
        "state",
        "category_shown",
        "raw_code",
        "amount",
        "origin",
        "trigger",
        "attempted_at",
    )
    list_filter = ("status", CategoryFilter, "origin", "trigger", "kind", *_ACCOUNT)
    list_select_related = ("invoice",)
    exclude = ("decision",)
    readonly_fields = ("decision_shown",)
    search_exact = ("public_id", "idempotency_key")
    search_in_connections = ("provider_payment_id",)

    def get_search_results(self, request, queryset, search_term):
        """Also by the provider's id, whose index is (connection, kind, id)."""
        rows, distinct = super().get_search_results(request, queryset, search_term)
        connections = Connection.objects.filter(pk__in=self._connections(request))
        named = queryset.filter(
            connection__in=connections, kind__in=TransactionKind.values, provider_id=search_term.strip()
        )
        return (rows | named if search_term.strip() else rows), distinct

    def _connections(self, request):
        return ConnectionAdmin(Connection, self.admin_site).get_queryset(request).values("pk")

    @column("Status")
    def state(self, attempt):
        return badge("attempt", attempt.status)

    @column("Category")
    def category_shown(self, attempt):
        return category_badge(attempt.category)

    @column("Decision")
    def decision_shown(self, attempt):
        return pretty(attempt.decision)


@admin.register(Dispute)
class DisputeAdmin(LedgerAdmin):
    list_display = (
        "provider_id", "kind", "state", "amount", "reason_code", "invoice", "merchant", "opened_at", "respond_by"
    )  # fmt: skip
    list_filter = ("kind", "status", *_ACCOUNT)
    list_select_related = ("merchant", "invoice")
    search_exact = ("public_id",)
    search_in_connections = ("provider_id",)

    @column("Status")
    def state(self, row):
        return badge("dispute", row.status)


@admin.register(Event)
class EventAdmin(LedgerAdmin):
    list_display = ("invoice", "seq", "kind", "from_state", "to_state", "actor", "occurred_at")
    list_filter = _TENANT
    list_select_related = ("invoice",)
    exclude = ("data", "xid")
    readonly_fields = ("data_shown",)
    search_exact = ("invoice__public_id",)

    @column("Data")
    def data_shown(self, event):
        return pretty(event.data)


class OutboxStateFilter(admin.SimpleListFilter):
    """As the indexes know it: what waits, and what was given up, are few; the others need none."""

    title = "state"
    parameter_name = "state"
    _states = {
        "waiting": {"done_at__isnull": True, "dead_at__isnull": True},
        "dead": {"dead_at__isnull": False},
        "done": {"done_at__isnull": False},
    }

    def lookups(self, request, model_admin):
        return [("waiting", "Waiting"), ("dead", "Given up"), ("done", "Done")]

    def queryset(self, request, queryset):
        return queryset.filter(**self._states.get(self.value() or "", {}))


@admin.register(OutboxMessage)
class OutboxMessageAdmin(LedgerAdmin):
    list_display = ("consumer", "event", "merchant", "attempts", "due_at", "done_at", "dead_at", "last_error")
    list_filter = (OutboxStateFilter, *_TENANT)
    list_select_related = ("event", "merchant")


@admin.register(ProviderPayment)
class ProviderPaymentAdmin(LedgerAdmin):
    list_display = ("provider_payment_id", "invoice", "connection", "merchant")
    list_filter = _ACCOUNT
    list_select_related = ("invoice", "connection", "merchant")
    search_in_connections = ("provider_payment_id",)


@admin.register(StaffNote)
class StaffNoteAdmin(LedgerAdmin):
    """Notes are written on the case page."""

    list_display = ("public_id", "invoice", "merchant", "author", "written_at")
    list_filter = (("merchant", MemberFilter),)
    list_select_related = ("invoice", "merchant")
    search_exact = ("public_id",)


@admin.register(ReviewItem)
class ReviewItemAdmin(LedgerAdmin):
    """Questions are answered in the staff queue, where the answers take effect."""

    list_display = ("kind", "invoice", "merchant", "owner", "opened_at", "resolved_at", "resolution")
    list_filter = ("kind", ("resolved_at", admin.EmptyFieldListFilter), *_TENANT)
    list_select_related = ("invoice", "merchant", "owner")
    exclude = ("facts",)
    readonly_fields = ("facts_shown",)
    search_exact = ("public_id", "subject_id")

    @column("Facts")
    def facts_shown(self, item):
        return pretty(item.facts)


@admin.register(BillerNote)
class BillerNoteAdmin(LedgerAdmin):
    """What billing systems have to know of money that moved past them, and what keeps them from it."""

    list_display = ("transaction", "state", "what", "amount", "invoice", "connection", "tries", "why", "tried_at")
    list_filter = ("status", *_ACCOUNT)
    list_select_related = ("transaction", "invoice", "connection")
    search_exact = ("transaction__public_id", "invoice__public_id")
    actions = ("retry",)

    @column("Status")
    def state(self, note):
        return badge("note", note.status)

    @column("Of")
    def what(self, note):
        return note.transaction.get_kind_display()

    @column("Amount")
    def amount(self, note):
        return money(note.transaction.captured_minor, note.transaction.currency)

    @admin.action(description="Tell the billing system again …", permissions=["act"])
    def retry(self, request, queryset):
        rows = self.few(request, queryset, Role.SUPPORT)
        if rows is None:
            return None
        page = self.confirm(
            request,
            rows,
            action="retry",
            title="Tell the billing system again",
            button="Try again",
            describe=lambda note: f"It is read first and told only what it does not know. Last time: {note.why or '-'}",
        )
        if page is not None:
            return page
        done, refused = 0, []
        for note in rows:
            stamp = Stamp(actor=f"user:{request.user.pk}", cause=f"staff: {reason_of(request)}", now=clock.now())
            try:
                note_retry(note_pk=note.pk, stamp=stamp)
            except RecoveryError as error:
                refused.append(f"{note}: {error.message}")
            else:
                done += 1
        report(self, request, done, refused)
        return None
