"""Cards and tokens in the admin: what each card has left and why, who holds a slot, a merchant's own limits.

Rows change by the provider's word and by declines; people set limits and take a slot, both through the services.
"""

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponse

from accounts.admin.base import MemberFilter, TenantAdmin, badge, column, reason_of, report, values_filter
from accounts.selectors import merchants_with_role
from accounts.states import Role
from invoices.admin import CustomerAdmin
from invoices.models import Customer
from invoices.services.ledger import Stamp
from recovery_site.common import clock
from recovery_site.common.errors import RecoveryError
from tokens.card_budgets import card_budget, card_budgets, rule_lines
from tokens.mirror import slot_keeper
from tokens.models import Card, ImportedMark, RetryLimit, Token
from tokens.networks import NETWORKS
from tokens.rules import ADDABLE, ALL_NETWORKS, load_rules
from tokens.services import retry_limit_check, retry_limit_set

_ACCOUNT = (("merchant", MemberFilter), ("connection", MemberFilter))


@admin.register(Card)
class CardAdmin(TenantAdmin):
    """One card shows which rule applies to it now, what is left of each, and what it waits for."""

    ordering = ("-pk",)
    list_display = (
        "__str__",
        "kind",
        "funding",
        "country",
        "issuer",
        "connection",
        "merchant",
        "stopped_at",
        "wait_until",
    )
    list_filter = (values_filter("network", NETWORKS), ("stopped_at", admin.EmptyFieldListFilter), *_ACCOUNT)
    list_select_related = ("connection", "merchant")
    search_exact = ("public_id",)
    search_in_connections = ("fingerprint",)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        card, now = self.get_object(request, object_id), clock.now()
        context = {"budgets": [card_budget(card, now)] if card is not None else [], "now": now}
        return super().change_view(request, object_id, form_url, {**(extra_context or {}), **context})


@admin.register(Token)
class TokenAdmin(TenantAdmin):
    ordering = ("-pk",)
    list_display = ("__str__", "state", "customer", "is_default", "decline_code", "last_success_at", "merchant")
    list_filter = ("status", *_ACCOUNT)
    list_select_related = ("card", "customer", "merchant")
    search_exact = ("public_id",)
    search_in_connections = ("provider_token",)

    @column("Status")
    def state(self, token):
        return badge("token", token.status)


@admin.register(ImportedMark)
class ImportedMarkAdmin(TenantAdmin):
    ordering = ("-pk",)
    list_display = ("card", "token", "at", "count", "source", "merchant")
    list_filter = (("merchant", MemberFilter),)
    list_select_related = ("card", "token__card", "merchant")


admin.site.unregister(Customer)


@admin.register(Customer)
class CustomerCardsAdmin(CustomerAdmin):
    """The customer's cards with budgets and waits, and the slot, which a manager may take from its holder."""

    actions = ("unlock",)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        customer, now = self.get_object(request, object_id), clock.now()
        context: dict[str, Any] = {"now": now}
        if customer is not None:
            context |= {"budgets": card_budgets(customer, now), "holder": slot_keeper().holder(customer.pk)}
        return super().change_view(request, object_id, form_url, {**(extra_context or {}), **context})

    @admin.action(description="Take the slot from its holder …", permissions=["manage"])
    def unlock(self, request, queryset):
        rows = self.few(request, queryset, Role.MANAGER)
        if rows is None:
            return None
        page = self.confirm(
            request,
            rows,
            action="unlock",
            title="Take slots from their holders",
            button="Take the slot",
            describe=self._will,
            danger=True,
        )
        if page is not None:
            return page
        done, refused = 0, []
        for customer in rows:
            stamp = Stamp(actor=f"user:{request.user.pk}", cause="admin", now=clock.now())
            try:
                told = slot_keeper().unlock(customer.pk, reason_of(request), stamp)
            except RecoveryError as error:
                refused.append(f"{customer}: {error.message}")
            else:
                self.log_change(request, customer, f"Slot taken: {reason_of(request)}")
                self.message_user(request, f"{customer}: {told}", messages.INFO)
                done += 1
        report(self, request, done, refused)
        return None

    def _will(self, customer: Customer) -> str:
        holder = slot_keeper().holder(customer.pk)
        if holder is None:
            return "Nothing but its entry in Redis is cleaned: the slot is free."
        return f"The slot goes from {holder.owner} to the next queued invoice; without one the holder is planned anew."


class RetryLimitForm(forms.ModelForm):
    """Refuses, before anything is stored, what is looser than the network's rule."""

    network = forms.ChoiceField(choices=[(ALL_NETWORKS, "all networks"), *((name, name) for name in NETWORKS)])
    name = forms.ChoiceField(label="Rule")

    class Meta:
        model = RetryLimit
        fields = ("merchant", "network", "name", "limit")

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        if "name" in self.fields:
            names = sorted({*ADDABLE, *(rule.name for rule in load_rules().rules)})
            self.fields["name"].choices = [(name, name) for name in names]  # type: ignore[attr-defined]

    def clean(self) -> dict[str, Any]:
        values: dict[str, Any] = super().clean() or {}
        network, name = (values.get(key) or getattr(self.instance, key) for key in ("network", "name"))
        if network and name and values.get("limit") is not None:
            try:
                retry_limit_check(network=network, name=name, limit=values["limit"], now=clock.now())
            except RecoveryError as error:
                self.add_error("limit", error.message)
        return values


@admin.register(RetryLimit)
class RetryLimitAdmin(TenantAdmin):
    """The networks' rules, and what a merchant has set below them; a limit is set through its service."""

    change_role = Role.MANAGER
    form = RetryLimitForm
    list_display = ("__str__", "network", "name", "limit", "merchant", "changed_by", "changed_at")
    list_filter = ("network", ("merchant", MemberFilter))
    list_select_related = ("merchant",)
    ordering = ("merchant", "network", "name")

    def get_readonly_fields(self, request, obj=None):
        return (
            ("changed_by", "changed_at") if obj is None else ("merchant", "network", "name", "changed_by", "changed_at")
        )

    def get_fields(self, request, obj=None):
        names = ("merchant", "network", "name", "limit")
        return names if obj is None else (*names, "changed_by", "changed_at")

    def has_add_permission(self, request):
        return self.has_change_permission(request)

    def has_delete_permission(self, request, obj=None):
        return self.has_change_permission(request, obj)

    def changelist_view(self, request, extra_context=None):
        return super().changelist_view(request, {**(extra_context or {}), "rules": rule_lines(clock.now())})

    def formfield_for_foreignkey(self, db_field, request, **kwargs):
        if db_field.name == "merchant":
            kwargs["queryset"] = merchants_with_role(request.user, Role.MANAGER)
        return super().formfield_for_foreignkey(db_field, request, **kwargs)

    def save_model(self, request, obj, form, change):
        self._set(request, obj, obj.limit)
        obj.pk = RetryLimit.objects.values_list("pk", flat=True).get(
            merchant=obj.merchant, network=obj.network, name=obj.name
        )

    def delete_model(self, request, obj):
        self._set(request, obj, None)

    def _set(self, request, limit, number):
        retry_limit_set(
            merchant=limit.merchant,
            network=limit.network,
            name=limit.name,
            limit=number,
            actor=f"user:{request.user.pk}",
            now=clock.now(),
        )
